"""DICOM: series of slices, mosaics, single images, multi-frame objects; any modality that holds pixels.

Whatever the file layout, an object is a list of planes: pixels with the rescale, place and direction of their own.
Planes that lie side by side make a volume; planes at one place (a cine, echoes, repeated measurements) make frames.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from medjax.data.formats._dicom_group import NAMED_SUFFIXES, group, group_series
from medjax.data.formats._dicom_header import is_dicom, text
from medjax.data.formats._dicom_planes import Plane, planes_of
from medjax.data.formats._dicom_seg import write_labels
from medjax.data.formats._dicom_stacks import affine_of, stacks_of, uneven_places
from medjax.data.formats._dicom_write import write
from medjax.data.geometry import Orientation, spacing
from medjax.types import Record

__all__ = ["KIND", "SUFFIXES", "accepts", "group", "group_series", "read", "write", "write_labels"]

SUFFIXES = (*NAMED_SUFFIXES, "")
KIND = "image"


def accepts(path: Path) -> bool:
    """Whether a file is DICOM: by its suffix, or by DICOM's marker or a header that can be parsed inside."""
    return path.name.lower().endswith(NAMED_SUFFIXES) or is_dicom(path)


def read(paths: Sequence[Path], name: str, subject: str) -> list[Record]:
    """The volume of a series, mosaic or multi-frame file, a single image as a 2-D record, or several frames.

    Slices are sorted along their normal; slices at one place (nearer than a hundredth of a pixel) are frames, told
    apart by echo, temporal position, b-value, image type, acquisition and instance number. Values are rescaled (HU for
    CT) by `slope` and `intercept`; where slices differ in those, the image is float32 in units. Padding takes the
    lowest valid value and is False in `mask`. Irregular gaps and a tilted gantry are said in the log;
    `extras["slice_positions_mm"]` keeps the measured places `(slices, 3)` RAS, in the order of the slices. An image
    with coloured marks on at most 5 % of its pixels is grey. Raises UserError for what can't be decoded, and for
    volumes that lack slices.
    """
    stacks = stacks_of([plane for path in paths for plane in planes_of(path)])
    records = [_record(stack, name, subject) for stack in stacks]
    if len(records) == 1:
        return records
    return [replace(record, id=f"{name}#{number:03d}") for number, record in enumerate(records)]


def _record(stack: Sequence[Plane], name: str, subject: str) -> Record:
    scales = {(plane.slope, plane.intercept) for plane in stack}
    slope, intercept = scales.pop() if len(scales) == 1 else (1.0, 0.0)
    modality, units = text(stack[0].source, "Modality"), stack[0].units
    if len(stack) == 1:
        image, extras = _filled(stack, None, slope)
        extras = {key: value[0] for key, value in extras.items()}
        return Record(image[0], name, subject, slope, intercept, stack[0].spacing, None, modality, units, extras=extras)
    affine = affine_of(stack)
    turn = Orientation.of(affine)
    image, extras = _filled(stack, turn, slope)
    uneven = uneven_places(stack)
    if uneven is not None:
        flipped = turn.flips[turn.axes.index(0)]
        extras["slice_positions_mm"] = uneven[::-1] if flipped else uneven
    inside = turn.affine(affine, (len(stack), *stack[0].pixels.shape[:2]))
    return Record(image, name, subject, slope, intercept, spacing(inside), inside, modality, units, extras=extras)


def _filled(stack: Sequence[Plane], turn: Orientation | None, slope: float) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The image `(slices, H, W, C)`, turned, and its `mask` where some is padding, which takes the lowest valid value.

    float32 in units where slices differ in their rescale. Written slice by slice into one array: series are large.
    """
    same = len({(plane.slope, plane.intercept) for plane in stack}) == 1
    size = (len(stack), *stack[0].pixels.shape)
    axes = (0, 1, 2) if turn is None else turn.axes
    shape = (*(size[axis] for axis in axes), size[3])
    image = np.empty(shape, stack[0].pixels.dtype if same else np.float32)
    valid = np.ones((*shape[:3], 1), bool)
    slices, valid_slices = (array if turn is None else turn.outside(array) for array in (image, valid))
    for number, plane in enumerate(stack):
        pixels = plane.pixels
        slices[number] = pixels if same else pixels * np.float32(plane.slope) + np.float32(plane.intercept)
        if plane.padded is not None:
            valid_slices[number] = ~plane.padded[..., None]
    if valid.all() or not valid.any():
        return image, {}
    limits = np.iinfo(image.dtype) if image.dtype.kind in "iu" else np.finfo(image.dtype)
    lowest = image.min(where=valid, initial=limits.max) if slope > 0 else image.max(where=valid, initial=limits.min)
    np.copyto(image, lowest, where=~valid)
    return image, {"mask": valid}
