"""A picture of two scans laid on each other: the outlines of the one drawn on the other show whether they fit."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy import ndimage
from skimage.filters import threshold_otsu

OUTLINE = "#ff5a36"
SMOOTH_MM = 1.5  # of what is outlined, so that noise is not
PLANES = ("axial", "coronal", "sagittal")  # across the axes z, y, x of a volume


def picture(path: Path, fixed: np.ndarray, moving: Mapping[str, np.ndarray], spacing_mm: Sequence[float]) -> None:
    """Writes a PNG: the middle plane across each axis of `fixed` `(D, H, W)` and, by name, of each of `moving`.

    All lie on one grid of `spacing_mm`. Lines are outlines of `fixed` where Otsu's method (1979) divides it. Anterior or
    superior is up, the patient's right (sagittal: anterior) on the left.
    """
    columns = {"fixed": fixed, **moving}
    figure = Figure((4 * len(columns), 12), layout="constrained", facecolor="black")
    threshold = threshold_otsu(fixed)
    for axis, row in enumerate(figure.subplots(3, len(columns), squeeze=False)):
        sizes = [s for i, s in enumerate(spacing_mm) if i != axis]
        outlined = ndimage.gaussian_filter(_plane(fixed, axis), [SMOOTH_MM / s for s in sizes])
        for axes, (name, volume) in zip(row, columns.items(), strict=True):
            low, high = np.percentile(volume, 0.5), np.percentile(volume[volume >= volume.mean()], 98)
            axes.imshow(_plane(volume, axis), "gray", aspect=sizes[0] / sizes[1], vmin=low, vmax=high)
            axes.contour(outlined, [threshold], colors=OUTLINE, linewidths=0.7)
            axes.set_axis_off()
            axes.set_title(name if axis == 0 else "", color="white")
        row[0].text(0.02, 0.98, PLANES[axis], color="white", va="top", transform=row[0].transAxes)
    partial = path.with_name(f".partial-{path.name}")
    try:
        figure.savefig(partial, format="png", dpi=100)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _plane(volume: np.ndarray, axis: int) -> np.ndarray:
    return volume.take(volume.shape[axis] // 2, axis)[::-1, ::-1].astype(np.float32)
