"""The ICBM152 T1 template with its tissue maps, both of the nilearn wheel: a segmentation without a download."""

from dataclasses import dataclass

import numpy as np

from medjax.data.sources import icbm152
from medjax.types import Record

CLASSES = ("background", "fluid", "grey matter", "white matter")
MAPS = {2: "mni_icbm152_gm_tal_nlin_sym_09a_converted.nii.gz", 3: "mni_icbm152_wm_tal_nlin_sym_09a_converted.nii.gz"}


@dataclass(frozen=True)
class Icbm152Tissues:
    """One T1-weighted volume `(189, 233, 197, 1)`, 1 mm, with extras["label"]: the index in `CLASSES`.

    A voxel is grey or white matter where that map (Fonov et al., NeuroImage 54, 2011) says so by half or more, and by
    more than the other; the rest of the brain counts as fluid.
    """

    def load(self) -> list[Record]:
        """The volume. Raises UserError if nilearn is not installed."""
        (record,) = icbm152.Icbm152().load()
        shares = {tissue: icbm152.volume(name)[0] for tissue, name in MAPS.items()}
        label = (record.image[..., 0] > 0).astype(np.uint8)
        for tissue, share in shares.items():
            others = np.maximum.reduce([s for t, s in shares.items() if t != tissue])
            label[(share >= 0.5 * share.max()) & (share > others)] = tissue
        record.extras.update(label=label[..., None])
        return [record]
