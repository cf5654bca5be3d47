"""Scans of the Helsinki Tomography Challenge 2022 and of their laboratory: MATLAB files (v5) with a struct `CtData…`.

Fan beams onto a flat detector (Meaney, Silva de Moura, Juvonen and Siltanen, doi 10.5281/zenodo.6984868).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from medjax.data import ct_geometry
from medjax.data.formats import _sinogram
from medjax.data.values import one_line
from medjax.types import Record, UserError

SUFFIXES = (".mat",)
KIND = "sinogram"
STRUCT = "CtData"
SEGMENTATION = "reconFullFbpSeg"
IMAGE_SHAPE = [512, 512]  # the challenge's
PARAMETERS = ("angles", "numDetectorsPost", "pixelSizePost", "distanceSourceOrigin", "distanceSourceDetector",
              "effectivePixelSizePost")


def accepts(path: Path) -> bool:
    """A file with a struct of that name, and one that can't be opened: its reading says what is wrong."""
    try:
        return any(name.startswith(STRUCT) for name, _, _ in scipy.io.whosmat(path))
    except NotImplementedError:  # MATLAB 7.3
        return False
    except Exception:  # it raises what its parsing happens to meet
        return True


def group(files: Sequence[Path]) -> list[tuple[tuple[Path, ...], str]]:
    """Each file is a study."""
    return [((file,), "") for file in files]


def read(paths: Sequence[Path], name: str, subject: str) -> list[Record]:
    """The sinogram with its image `(512, 512, 1)` by filtered back-projection (see `_sinogram.record`).

    The pixels are the detector's elements seen at the axis. Raises UserError.
    """
    (path,) = paths
    scan = _scan(path)
    parameters, sinogram = scan.get("parameters"), np.asarray(scan.get("sinogram"))
    parameters = parameters if isinstance(parameters, Mapping) else {}
    lacking = [key for key in PARAMETERS if key not in parameters]
    if lacking or sinogram.ndim != 2:
        raise UserError(path, f"lacks {', '.join(lacking) or 'a sinogram (views, detectors)'}")
    angles, count, detector, axis, distance, pixel = (np.asarray(parameters[key]).tolist() for key in PARAMETERS)
    geometry = ct_geometry.checked({
        "beam": "fan", "angles_deg": angles if isinstance(angles, list) else [angles], "detector_count": count,
        "detector_mm": detector, "source_axis_mm": axis, "source_detector_mm": distance, "pixel_mm": pixel,
        "image_shape": IMAGE_SHAPE}, path)
    return [_sinogram.record(path, sinogram, geometry, name, subject)]


def read_segmentation(path: Path) -> np.ndarray:
    """The challenge's segmentation of a full scan `(H, W, 1)` uint8: 1 acrylic, 0 air. Raises UserError."""
    found = _stored(path).get(SEGMENTATION)
    if not isinstance(found, np.ndarray) or found.ndim != 2:
        raise UserError(path, f"has no image {SEGMENTATION}")
    return np.ascontiguousarray(found > 0, np.uint8)[..., None]


def _scan(path: Path) -> Mapping[str, Any]:
    found = next((value for key, value in _stored(path).items() if key.startswith(STRUCT) and isinstance(value, Mapping)),
                 None)
    if found is None:
        raise UserError(path, f"has no struct {STRUCT}…")
    return found


def _stored(path: Path) -> Mapping[str, Any]:
    try:
        found: Mapping[str, Any] = scipy.io.loadmat(path, simplify_cells=True)
    except Exception as error:  # it raises what its parsing happens to meet
        raise UserError(path, f"damaged, or no MATLAB file of version 5: {one_line(error)}") from error
    return found
