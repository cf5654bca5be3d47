"""Spatial transforms as text files that ITK reads, and with it ANTs and 3D Slicer."""

from pathlib import Path

import numpy as np

from medjax.data.geometry import TO_RAS
from medjax.files import write_atomically

SUFFIX = ".tfm"


def write_transform(path: Path, matrix: np.ndarray, centre_mm: np.ndarray) -> None:
    """Writes `matrix` `(4, 4)`, which maps RAS mm to RAS mm, as an ITK affine transform (in LPS) about a centre in RAS mm.

    ITK's transforms map points of the image that stays, on whose grid the result lies, to the one that is resampled.
    """
    turn = TO_RAS[:, None] * matrix[:3, :3] * TO_RAS
    shift = TO_RAS * (matrix[:3, :3] @ centre_mm + matrix[:3, 3] - centre_mm)
    parameters, fixed = (" ".join(f"{value:.17g}" for value in values) for values in (
        [*turn.ravel(), *shift], TO_RAS * centre_mm))
    write_atomically(path, "#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n"
                           f"Parameters: {parameters}\nFixedParameters: {fixed}\n")
