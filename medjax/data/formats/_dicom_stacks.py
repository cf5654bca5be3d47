"""Planes sorted into volumes: by place along their normal, and by echo, time, weighting, … where several share a place."""

import statistics
from collections.abc import Hashable, Sequence

import numpy as np
from absl import logging

from medjax.data.formats._dicom_planes import Plane
from medjax.data.geometry import TO_RAS
from medjax.types import UserError

SAME_PLACE = 0.01  # of a pixel: slices nearer than this lie at one place
SAME_DIRECTION = 0.002  # direction cosines that differ by less are rounding or jitter (0.1 degrees)
ASIDE = 1.0  # pixels that a slice may lie beside the line through the others
UNEVEN = 0.01  # gaps that differ by more than this part of their median are no regular grid
WHOLE = 0.05  # a gap so near to a multiple of the regular one (in regular gaps) is a hole
REMEDY = "copy the missing files, or take this series out of the folder"
NAMED = 3  # so many of what is missing are named, the others counted
Stack = list[Plane]
# Echo, time, weighting and segment always tell volumes apart. The others do so only where every volume comes out whole,
# because some scanners count acquisitions, or change the image type, from slice to slice.
ALWAYS = {"echo": "echo", "temporal_position": "temporal position", "b_value": "b-value", "segment": "segment"}
IF_WHOLE = {"image_type": "image type", "echo_time": "echo time", "acquisition": "acquisition"}


def stacks_of(planes: Sequence[Plane]) -> list[Stack]:
    """Planes as volumes: each stack has one plane at every place, in order along the normal.

    Planes without a place, or of several sizes or directions, stand alone. Stacks are in the order of their instance
    numbers. Raises UserError where a volume lacks slices, by comparison with the others or by a hole in regular gaps.
    """
    if any(plane.position is None or plane.directions is None for plane in planes) or not alike(planes):
        return [[plane] for plane in planes]
    if len(planes) == 1:
        return [list(planes)]
    if any(not plane.spacing for plane in planes):
        where = next(plane.path for plane in planes if not plane.spacing)
        raise UserError(where, "has no PixelSpacing; slices need one to make a volume")
    places = _places(planes)
    stacks = _split(list(planes), places)
    stacks = [sorted(stack, key=lambda plane: places[id(plane)]) for stack in stacks]
    _check_equal(stacks, places)
    for stack in stacks:
        _check_line(stack)
        _check_holes(stack)
    return sorted(stacks, key=lambda stack: min(plane.order.instance or 0 for plane in stack))


def alike(planes: Sequence[Plane]) -> bool:
    """Whether planes have one size and, but for jitter, one direction."""
    first = planes[0]
    return all(plane.pixels.shape == first.pixels.shape and
               np.abs(plane.known_directions - first.known_directions).max() <= SAME_DIRECTION for plane in planes)


def affine_of(stack: Sequence[Plane]) -> np.ndarray:
    """The `(4, 4)` map of (slice, row, column) to RAS mm; unequal gaps are taken at their mean."""
    first, last = stack[0], stack[-1]
    along_row, down_column = first.known_directions
    affine = np.eye(4)
    affine[:3, 0] = (last.known_position - first.known_position) / (len(stack) - 1)
    affine[:3, 1] = down_column * first.known_spacing[0]
    affine[:3, 2] = along_row * first.known_spacing[1]
    affine[:3, 3] = first.known_position
    return np.diag([*TO_RAS, 1.0]) @ affine


def is_uneven(stack: Sequence[Plane]) -> bool:
    """Whether the gaps between slices differ."""
    gaps = np.diff([plane.known_position @ np.cross(*stack[0].known_directions) for plane in stack])
    return bool(np.ptp(gaps) > UNEVEN * np.median(gaps))


def uneven_places(stack: Sequence[Plane]) -> np.ndarray | None:
    """Says in one line what is irregular; the places of slices (RAS, mm) where their gaps differ, else None."""
    normal = np.cross(*stack[0].known_directions)
    places = np.array([plane.known_position for plane in stack])
    gaps = np.diff(places @ normal)
    differ = is_uneven(stack)
    step = places[-1] - places[0]
    tilt = np.degrees(np.arccos(np.clip(step @ normal / np.linalg.norm(step), -1, 1)))
    remarks = []
    if differ:
        remarks.append(f"slice gaps range from {gaps.min():.3f} to {gaps.max():.3f} mm; the affine has their mean, "
                       f"{gaps.mean():.3f} mm, slice_positions_mm the places as measured")
    if tilt > 0.5:
        remarks.append(f"slices are sheared by {tilt:.1f} degrees (tilted gantry); the affine has it")
    if remarks:
        logging.warning("%s: %s", stack[0].path.parent, "; ".join(remarks))
    return places * TO_RAS if differ else None


def _places(planes: Sequence[Plane]) -> dict[int, int]:
    """The number of each plane's place along the normal, by the plane's id."""
    normal = np.cross(*planes[0].known_directions)
    tolerance = SAME_PLACE * min(planes[0].known_spacing)
    ordered = sorted(planes, key=lambda plane: float(plane.known_position @ normal))
    heights = np.array([plane.known_position @ normal for plane in ordered])
    gaps = np.diff(heights)
    nearly = gaps[(gaps <= tolerance) & (gaps > tolerance / 10)]
    if nearly.size:
        logging.warning("%s: slices up to %.2g mm apart are taken as one place (less than %g of a pixel)",
                        planes[0].path.parent, nearly.max(), SAME_PLACE)
    numbered = np.concatenate([[0], np.cumsum(gaps > tolerance)])
    return {id(plane): int(number) for plane, number in zip(ordered, numbered, strict=True)}


def _split(planes: list[Plane], places: dict[int, int]) -> list[Stack]:
    """Planes divided so that each set has one at a place: by what the headers say, then by instance number."""
    for field in ALWAYS:
        sets = _by(planes, field)
        counts_slices = len(sets) == len(planes) and _single(planes, places)
        if len(sets) > 1 and not counts_slices:
            return [stack for part in sets for stack in _split(part, places)]
    if _single(planes, places):
        return [planes]
    for field in IF_WHOLE:
        sets = _by(planes, field)
        if len(sets) > 1 and all(_covered(part, places) == _covered(planes, places) for part in sets):
            return [stack for part in sets for stack in _split(part, places)]
    return _by_instance(planes, places)


def _by_instance(planes: list[Plane], places: dict[int, int]) -> list[Stack]:
    at: dict[int, list[Plane]] = {}
    for plane in sorted(planes, key=lambda plane: places[id(plane)]):
        at.setdefault(places[id(plane)], []).append(plane)
    if len({len(there) for there in at.values()}) > 1:
        raise UserError(planes[0].path.parent, _unequal(planes, places, list(at.values())))
    for there in at.values():
        instances = [plane.order.instance for plane in there]
        if None in instances or len(set(instances)) < len(instances):
            names = sorted(plane.path.name for plane in there)
            raise UserError(there[0].path.parent, f"{names[0]} and {names[1]} lie at one place, and neither echo, time, "
                            "b-value, image type, acquisition nor instance number tells them apart; take one of them away")
        there.sort(key=lambda plane: plane.order.instance or 0)
    return [list(stack) for stack in zip(*at.values(), strict=True)]


def _unequal(planes: list[Plane], places: dict[int, int], at: list[list[Plane]]) -> str:
    """What is missing, or too much, where places do not have the same number of images."""
    most = max(len(there) for there in at)
    for field, label in IF_WHOLE.items():
        sets = _by(planes, field)
        if len(sets) == most and all(_single(part, places) for part in sets):
            return _difference(sets, places, label, field)
    usual = statistics.mode(len(there) for there in at)
    odd = [f"{len(there)} at {_position(there[0])}" for there in at if len(there) != usual]
    return f"has {usual} image{'s' if usual > 1 else ''} at most places, but {_listed(odd)}; {REMEDY}"


def _check_equal(stacks: list[Stack], places: dict[int, int]) -> None:
    """Raises UserError where volumes of a series do not have the same places."""
    if len({tuple(places[id(plane)] for plane in stack) for stack in stacks}) == 1:
        return
    differ = (field for field in (*ALWAYS, *IF_WHOLE) if len({getattr(stack[0].order, field) for stack in stacks}) > 1)
    field = next(differ, "instance")
    label = {**ALWAYS, **IF_WHOLE}.get(field, "instance")
    raise UserError(stacks[0][0].path.parent, _difference(stacks, places, label, field))


def _difference(sets: list[Stack], places: dict[int, int], label: str, field: str) -> str:
    """One line on which of `sets` of planes lacks slices that another has."""
    every = {places[id(plane)]: plane for part in sets for plane in part}
    short = min(sets, key=lambda part: len(_covered(part, places)))
    missing = sorted(every.keys() - _covered(short, places))
    value = getattr(short[0].order, field)
    value = "\\".join(value) if isinstance(value, tuple) else f"{value:g}" if value is not None else "(none)"
    at = _listed([_position(every[place]) for place in missing])
    return f"{label} {value} lacks {len(missing)} of {len(every)} slices: at {at}; {REMEDY}"


def _check_line(stack: Stack) -> None:
    """Raises UserError where a slice lies beside the line through the others: no volume has such slices."""
    if len(stack) < 3:
        return
    places = np.array([plane.known_position for plane in stack])
    step = places[-1] - places[0]
    off = places - places[0]
    aside = np.linalg.norm(off - np.outer(off @ step / (step @ step), step), axis=1)
    worst = int(aside.argmax())
    if aside[worst] > ASIDE * max(stack[0].known_spacing):
        raise UserError(stack[worst].path, f"lies {aside[worst]:.2f} mm beside the line through the other slices of its "
                                           "series; take it out of the folder")


def _check_holes(stack: Stack) -> None:
    """Raises UserError where regular gaps have holes: gaps that are whole multiples of the most common one.

    Gaps that are as much wider as their slices are thicker are no holes.
    """
    normal = np.cross(*stack[0].known_directions)
    gaps = np.diff([plane.known_position @ normal for plane in stack])
    if len(gaps) < 2:
        return
    alike_ = np.abs(gaps[:, None] - gaps) <= UNEVEN * gaps[:, None]
    order = np.lexsort((gaps, -alike_.sum(1)))  # most common, then smallest
    regular = alike_[order[0]]
    times = gaps / np.median(gaps[regular])
    if 2 * regular.sum() < len(gaps):
        return
    holes = (np.rint(times) > 1) & (np.abs(times - np.rint(times)) <= WHOLE) & ~_thicker(stack, regular, times)
    if holes.any():
        at = [f"{round(times[i]) - 1} after {_position(stack[i])}" for i in np.flatnonzero(holes)]
        count = int((np.rint(times[holes]) - 1).sum())
        raise UserError(stack[0].path.parent, f"{count} slice{'s are' if count > 1 else ' is'} missing: {_listed(at)} "
                                              f"(regular gaps are {np.median(gaps[regular]):.3f} mm); {REMEDY}")


def _thicker(stack: Stack, regular: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Which gaps have slices beside them that are as much thicker as the gap is wider."""
    if any(plane.thickness is None for plane in stack):
        return np.zeros(len(times), bool)
    thickness = np.array([plane.thickness for plane in stack])
    beside = (thickness[:-1] + thickness[1:]) / 2
    return beside >= 0.9 * times * np.median(beside[regular])


def _by(planes: Sequence[Plane], field: str) -> list[list[Plane]]:
    """Planes that have one value of a field of `Order`."""
    sets: dict[Hashable, list[Plane]] = {}
    for plane in planes:
        sets.setdefault(getattr(plane.order, field), []).append(plane)
    return list(sets.values())


def _covered(planes: Sequence[Plane], places: dict[int, int]) -> set[int]:
    return {places[id(plane)] for plane in planes}


def _single(planes: Sequence[Plane], places: dict[int, int]) -> bool:
    return len(_covered(planes, places)) == len(planes)


def _position(plane: Plane) -> str:
    return "(" + ", ".join(f"{value:.2f}" for value in plane.known_position) + ") mm"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
