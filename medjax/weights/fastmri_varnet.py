"""The end-to-end VarNet of the package fastmri (Sriram et al., 2020): `fastmri.models.VarNet`, or its `VarNetModule`.

Its image is the root of the coils' summed squares; ours is complex, combined by the sensitivities that it estimated. The
original learns sensitivities from the fully sampled middle of k-space cut sharply, `mri_recon` gives that cut smoothly.
"""

from collections.abc import Mapping
from typing import Any

from medjax.types import UserError
from medjax.weights import fastmri_unet
from medjax.weights._table import SCALAR, Row, Shapes

TITLE = "fastMRI's end-to-end VarNet"
CONFIG = "configs/mri_recon.py:model=varnet"
PREFIXES = ("varnet.",)
PREPARATION = "none: the network standardises; the middle of k-space is cut smoothly for sensitivities, in fastMRI sharply"
SENSITIVITIES, CASCADE = "sens_net.norm_unet.unet.", "cascades.{}."


def settings(shapes: Shapes) -> dict[str, object]:
    """Cascades, widths and depth."""
    first = fastmri_unet.DOWN + ".layers.0.weight"
    cascade = CASCADE.format(0) + "model.unet."
    depths = [shapes.count(name + first) + 1 for name in (SENSITIVITIES, cascade)]
    widths = [shapes[name + first.format(0)][0] for name in (SENSITIVITIES, cascade)]
    if depths[0] != depths[1]:
        raise UserError("config.model.depth", f"the weights have U-Nets of {depths[0]} levels for sensitivities and of "
                        f"{depths[1]} in cascades; varnet has one depth for both")
    return {"data.channels": 1, "model.published": True, "model.sensitivities": True, "model.width": widths[1],
            "model.sensitivity_width": widths[0], "model.depth": depths[0],
            "model.iterations": shapes.count(CASCADE + "dc_weight")}


def rows(model: Mapping[str, Any]) -> list[Row]:
    """The table."""
    depth = model["depth"]
    found = fastmri_unet.table(depth, SENSITIVITIES, "NormUNet_0/UNet_0/")
    for number in range(model["iterations"]):
        there, here = CASCADE.format(number), f"cascade{number}/"
        found.append(Row(f"{there}dc_weight", f"params/{here}length", SCALAR))
        found += fastmri_unet.table(depth, f"{there}model.unet.", f"{here}NormUNet_0/UNet_0/")
    return found
