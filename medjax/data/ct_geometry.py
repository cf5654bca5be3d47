"""The geometry of a CT scan as JSON, as it lies beside a sinogram and in a record's `extras["ct_geometry"]`.

    {"beam": "fan", "angles_deg": {"first": 0, "last": 359.5, "count": 720}, "detector_count": 560, "detector_mm": 0.2,
     "source_axis_mm": 410.66, "source_detector_mm": 553.74, "pixel_mm": 0.148, "image_shape": [512, 512]}

`beam`                "parallel", or "fan" onto a flat detector
`angles_deg`          of the views, a list or {first, last, count} with both ends; 0 looks up the image, positive angles
                      turn source and detector counter-clockwise (as `medjax.physics.ct` has it)
`detector_count`, `detector_mm`  its elements, and their spacing on the detector
`source_axis_mm`, `source_detector_mm`  distances of a fan beam's source; not of parallel beams
`pixel_mm`            the size of the image's pixels, one number or [row, column]
`image_shape`         rows and columns of the image
`detector_offset_mm`  how far the detector's middle is from the ray through the axis, along the detector; 0 if not there
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medjax.physics.ct import Fan, Parallel, Planar
from medjax.types import UserError

BEAMS = ("parallel", "fan")
SPAN = ("first", "last", "count")
NEEDED = ("beam", "angles_deg", "detector_count", "detector_mm", "pixel_mm", "image_shape")
OF_FAN = ("source_axis_mm", "source_detector_mm")
OPTIONAL = ("detector_offset_mm",)
MAX_COUNT = 1 << 14  # views, detector elements, rows and columns; a filter over more elements would not fit in memory


def read(path: Path) -> str:
    """The geometry in a JSON file, checked, as JSON with every key. Raises UserError that names the key."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(path, f"can't be read as JSON: {error}") from error
    return checked(found, path)


def is_geometry(path: Path) -> bool:
    """Whether a file is the JSON of a geometry, sound or not; others lie beside images too (BIDS)."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and "beam" in found


def checked(given: Any, where: object) -> str:
    """The geometry as JSON with every key, its angles as a list. Raises UserError that names `where` and the key."""
    if not isinstance(given, Mapping):
        raise UserError(where, "is no JSON object; give the keys of a CT geometry")
    if given.get("beam") not in BEAMS:
        raise UserError(where, f"beam: unknown {given.get('beam')!r}; choose from {', '.join(BEAMS)}")
    needed = NEEDED + (OF_FAN if given["beam"] == "fan" else ())
    for key in needed:
        if key not in given:
            raise UserError(where, f"{key}: is missing; a {given['beam']} beam needs {', '.join(needed)}")
    for key in given:
        if key not in needed + OPTIONAL:
            raise UserError(where, f"{key}: unknown key of a {given['beam']} beam; it has {', '.join(needed + OPTIONAL)}")
    found = {"beam": given["beam"], "angles_deg": _angles(given["angles_deg"], where),
             "detector_count": _count(given, "detector_count", where), "detector_mm": _size(given, "detector_mm", where)}
    found |= {key: _size(given, key, where) for key in needed if key in OF_FAN}
    pixel = given["pixel_mm"]
    pixels = pixel if isinstance(pixel, list) and len(pixel) == 2 else [pixel, pixel]
    found["pixel_mm"] = [_size({"pixel_mm": value}, "pixel_mm", where) for value in pixels]
    shape = given["image_shape"]
    if not isinstance(shape, list | tuple) or len(shape) != 2:
        raise UserError(where, f"image_shape: {shape!r}; give two numbers, rows and columns")
    found["image_shape"] = [_count({"image_shape": value}, "image_shape", where) for value in shape]
    found["detector_offset_mm"] = _number(given.get("detector_offset_mm", 0.0), "detector_offset_mm", where)
    text = json.dumps(found)
    operator(text, where)
    return text


def operator(text: str, where: object = "ct_geometry") -> Planar:
    """The projector of a checked geometry (see `medjax.physics.ct`). Raises UserError where it can't be."""
    found = json.loads(text)
    common = {"shape": tuple(found["image_shape"]), "pixel_mm": tuple(found["pixel_mm"]),
              "angles": np.deg2rad(found["angles_deg"]), "detectors": found["detector_count"],
              "detector_mm": found["detector_mm"], "shift_mm": found["detector_offset_mm"]}
    try:
        if found["beam"] == "parallel":
            return Parallel(**common)
        return Fan(**common, source_mm=found["source_axis_mm"], detector_distance_mm=found["source_detector_mm"])
    except UserError as error:
        raise UserError(where, ": ".join(error.args)) from None


def _angles(given: Any, where: object) -> list[float]:
    if isinstance(given, Mapping):
        if set(given) != set(SPAN):
            raise UserError(where, f"angles_deg: has {', '.join(map(str, given))}; give {', '.join(SPAN)}, or a list")
        count = _count(given, "count", where)
        first, last = (_number(given[key], "angles_deg", where) for key in SPAN[:2])
        return np.linspace(first, last, count).tolist()
    if not isinstance(given, Sequence) or isinstance(given, str) or not 0 < len(given) <= MAX_COUNT:
        raise UserError(where, f"angles_deg: give up to {MAX_COUNT} numbers, or {', '.join(SPAN)}")
    return [_number(value, "angles_deg", where) for value in given]


def _number(value: Any, key: str, where: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or abs(value) > 1e9:
        raise UserError(where, f"{key}: {str(value)[:40]} is no number")
    return float(value)


def _size(given: Mapping[str, Any], key: str, where: object) -> float:
    value = _number(given[key], key, where)
    if value < 1e-6:
        raise UserError(where, f"{key}: {value:g}; give a size in mm, above 0")
    return value


def _count(given: Mapping[str, Any], key: str, where: object) -> int:
    value = _number(given[key], key, where)
    if value != int(value) or not 1 <= value <= MAX_COUNT:
        raise UserError(where, f"{key}: {value:g}; give a whole number from 1 to {MAX_COUNT}")
    return int(value)
