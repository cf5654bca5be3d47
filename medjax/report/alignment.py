"""How well two scans fit: a picture with the outlines of the one on the other, a table, and the next command."""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy import ndimage
from skimage.filters import threshold_otsu

from medjax.classical.rigid import OFF_MM, SHARP, Rigid

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


def table(found: Rigid) -> str:
    """How the patient moved between the scans, and how well they fit before and after."""
    lines = [f"{'from fixed to moving':32s}{'x':>8s}{'y':>8s}{'z':>8s}"]
    for name, values in (("rotation, degrees", found.degrees), ("translation, mm", found.shift_mm)):
        lines.append(f"{name:32s}" + "".join(f"{value:8.2f}" for value in values))
    centre = ", ".join(f"{value:.1f}" for value in found.centre_mm)
    lines.append("x to the patient's right, y to the front, z to the head (RAS); right-handed rotation about the fixed axes "
                 f"x, then y, then z, around the middle of the fixed scan ({centre})")
    before, after = found.nmi
    lines.append(f"normalised mutual information {before:.4f}, aligned {after:.4f}, of which a shift of {OFF_MM:g} mm loses "
                 f"{found.sharpness:.0%}")
    if not found.fits:
        lines.append(f"poor fit: between scans of one patient a shift loses {SHARP:.0%} or more; look at the picture")
    return "\n".join(lines)


def next_command(fixed: Path, output: Path) -> str:
    """The command that trains from the one contrast to the other: the files' names differ in the contrast's alone."""
    stems = [str(path.with_name(stem(path))) for path in (fixed, output)]
    alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(*stems, strict=False)))
    common = re.sub(r"[^/_.-]*$", "", stems[0][:alike])
    source, target = (stem[len(common):] for stem in stems)
    kind = output.name.removeprefix(stem(output))
    values = {"config": "configs/translate.py:source=multicontrast", "workdir": "runs/translate",
              "config.data.source.path": f"{common}{{contrast}}{kind}",
              "config.data.source.contrasts": _tuple((source, target)), "config.task.source": _tuple((source,)),
              "config.task.target": target}
    return " \\\n".join(["  python train.py", *(f"    --{key}={shlex.quote(value)}" for key, value in values.items())])


def _tuple(names: Sequence[str]) -> str:
    """Names as a flag's tuple, in double quotes: a shell needs no more than single quotes around it."""
    return "(" + ", ".join(json.dumps(name) for name in names) + ("," if len(names) == 1 else "") + ")"


def stem(path: Path) -> str:
    """A NIfTI file's name without its suffix."""
    return re.sub(r"\.nii(\.gz)?$", "", path.name)
