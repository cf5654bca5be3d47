"""The U-Net of the package fastmri (Zbontar et al., 2018): `fastmri.models.Unet`, or a checkpoint of its `UnetModule`.

The original makes a magnitude image of a zero-filled one, cropped, with mean 0 and standard deviation 1 in each slice and
clipped at 6 of these. `config.model.standardise` does so inside the network. Its multi-coil images are root sums of squares
of the coils; those of `mri_recon` are combined by estimated sensitivities.
"""

from collections.abc import Mapping
from typing import Any

from medjax.weights._table import HALVES_SWAPPED, Row, Shapes, layer

TITLE = "fastMRI's U-Net"
CONFIG = "configs/mri_recon.py:model=unet"
PREFIXES = ("unet.",)
PREPARATION = "each slice standardised, as in fastMRI; fastMRI also crops images (320 x 320), which the run does not"
DOWN, UP, LIFT = "down_sample_layers.{}", "up_conv.{}", "up_transpose_conv.{}.layers.0"


def settings(shapes: Shapes) -> dict[str, object]:
    """Width, depth and channels, of magnitude images."""
    depth = shapes.count(f"{DOWN}.layers.0.weight") + 1
    width, channels = shapes[f"{DOWN.format(0)}.layers.0.weight"][:2]
    return {"data.channels": channels, "task.magnitudes": True, "model.standardise": True,
            **network(width, depth)}


def network(width: int, depth: int) -> dict[str, object]:
    """The keys of `config.model` that make our U-Net fastMRI's."""
    return {"model.width": width, "model.depth": depth, "model.norm": "instance_plain", "model.act": "leaky_relu",
            "model.residual": False, "model.pool": "mean", "model.up": "transposed_norm"}


def rows(model: Mapping[str, Any]) -> list[Row]:
    """The table."""
    return table(model["depth"])


def table(depth: int, there: str = "", here: str = "") -> list[Row]:
    """The rows of a U-Net of `depth` levels, whose names begin with `there` and `here`."""
    def block(name: str, first: int, stacked: bool = False) -> list[Row]:
        return [*layer(f"{there}{name}.layers.0", f"{here}ConvNormAct_{first}/Conv_0", False,
                       **{"layout": HALVES_SWAPPED} if stacked else {}),
                *layer(f"{there}{name}.layers.4", f"{here}ConvNormAct_{first + 1}/Conv_0", False)]

    last = depth - 2
    found = [row for level in range(depth - 1) for row in block(DOWN.format(level), 2 * level)]
    found += block("conv", 2 * depth - 2)
    for step in range(depth - 1):
        name = UP.format(step) + (".0" if step == last else "")
        found += block(name, 2 * (depth + step), stacked=True)
    found += layer(f"{there}{UP.format(last)}.1", f"{here}Conv_0")
    return found + [row for step in range(depth - 1)
                    for row in layer(f"{there}{LIFT.format(step)}", f"{here}ConvTranspose_{step}", False)]
