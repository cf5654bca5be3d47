"""DICOM: series of slices, single images, multi-frame objects; any modality that holds pixels.

Whatever the file layout, an object is a list of planes: pixels with the rescale, place and direction of their own.
Planes that lie side by side make a volume; planes at one place (a cine, repeated measurements) make frames.
"""

import logging as python_logging
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom
from absl import logging
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, pixel_array

from medjax.data.geometry import Orientation, spacing
from medjax.data.values import finite, grey, native, one_line
from medjax.types import Record, UserError

SUFFIXES = (".dcm", ".ima", ".dicom")
QUANTITATIVE = ("CT", "PT", "MR", "NM", "RTDOSE", "SEG")  # MONOCHROME1 is about display there, not about the values
HEADER = ["SeriesInstanceUID", "PatientID", "StudyInstanceUID", "Rows", "Columns", "NumberOfFrames",
          "ImagePositionPatient", "ImageOrientationPatient"]
# What matters is checked here, in one line; pydicom's remarks, and the tracebacks of its decoders, are not for users.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
python_logging.getLogger("pydicom").setLevel(python_logging.CRITICAL)
TO_RAS = np.array([-1.0, -1.0, 1.0])
UNEVEN = 0.01  # gaps that differ by more than this part of their median are no regular grid


@dataclass(frozen=True)
class Plane:
    """One slice: stored pixels `(H, W, C)`, their rescale, their place (mm, DICOM's LPS) where known."""

    pixels: np.ndarray
    slope: float
    intercept: float
    position: np.ndarray | None
    directions: np.ndarray | None  # (2, 3): along a row, down a column
    spacing: tuple[float, float] | tuple[()]
    source: Dataset = field(repr=False)
    frame: int = 0


def read(paths: Sequence[Path], name: str, subject: str) -> list[Record]:
    """The volume of a series or multi-frame file, a single image as a 2-D record, or several frames.

    Slices are sorted along their normal. Values are rescaled (HU for CT) by `slope` and `intercept`; where slices
    differ in those, the image is float32 in units. Padding takes the lowest valid value and is False in `mask`.
    Irregular gaps and a tilted gantry are said in the log; `extras["slice_positions_mm"]` keeps the measured places
    `(slices, 3)` RAS, in the order of the slices. Raises UserError for what can't be decoded.
    """
    stacks = stacks_of(planes_of(path) for path in paths)
    if not stacks:
        raise UserError(paths[0].parent, "no DICOM images")
    records = [_record(paths[0], stack, name, subject) for stack in stacks]
    if len(records) == 1:
        return records
    return [Record(**{**vars(r), "id": f"{name}#{number:03d}"}) for number, r in enumerate(records)]


def load(path: Path, header_only: bool = False) -> Dataset:
    """The dataset of a file, or only what says which series it belongs to. Raises UserError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pydicom.dcmread(path, stop_before_pixels=header_only, specific_tags=HEADER if header_only else None)
    except Exception as error:  # pydicom raises what its parsing happens to meet
        raise UserError(path, f"no DICOM file, or damaged: {one_line(error)}") from error


def patient(header: Dataset) -> str:
    """Whose images these are: the PatientID, or the study's UID where it was taken out."""
    return str(header.get("PatientID") or header.get("StudyInstanceUID") or "")


def series(path: Path, header: Dataset) -> tuple:
    """What files of one volume have in common; a multi-frame file, or one without a place, stands alone."""
    directions = header.get("ImageOrientationPatient")
    try:
        if not directions or not header.get("ImagePositionPatient") or int(header.get("NumberOfFrames") or 1) > 1:
            return (path,)
    except ValueError as error:
        raise UserError(path, f"its header is damaged: {one_line(error)}") from error
    uid = header.get("SeriesInstanceUID") or ""
    return (path.parent, uid, header.Rows, header.Columns, *(round(float(v), 3) for v in directions))


def planes_of(path: Path) -> list[Plane]:
    """The planes of one file. Raises UserError where it holds none, or none that can be decoded."""
    dataset = load(path)
    if not {"PixelData", "FloatPixelData", "DoubleFloatPixelData"} & set(dataset.dir()):
        kind = dataset.get("SOPClassUID")
        raise UserError(path, f"holds no image ({kind.name if kind else 'no pixel data'})")
    pixels = _pixels(path, dataset)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return [_plane(path, dataset, frame, index) for index, frame in enumerate(pixels)]
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise UserError(path, f"its header is damaged: {one_line(error)}") from error


def stacks_of(files: Iterable[list[Plane]]) -> list[list[Plane]]:
    """Planes sorted into volumes: each stack has one plane at every place, in order along the normal."""
    planes = [plane for file in files for plane in file]
    if any(p.position is None or p.directions is None for p in planes):
        return [[plane] for plane in planes]
    if len({(p.pixels.shape, *np.round(p.directions.ravel(), 3)) for p in planes}) > 1:
        return [[plane] for plane in planes]
    normal = np.cross(*planes[0].directions) if planes else None
    places: dict[float, list[Plane]] = {}
    for plane in planes:
        places.setdefault(round(float(plane.position @ normal), 2), []).append(plane)
    counts = {len(at) for at in places.values()}
    if len(counts) > 1:
        logging.warning("%s: %d to %d images at one place; taking the first of each", planes[0].source.filename,
                        min(counts), max(counts))
    return [[places[place][repeat] for place in sorted(places)] for repeat in range(min(counts, default=0))]


def affine_of(stack: Sequence[Plane]) -> np.ndarray:
    """The `(4, 4)` map of (slice, row, column) to RAS mm; unequal gaps are taken at their mean."""
    first, last = stack[0], stack[-1]
    along_row, down_column = first.directions
    affine = np.eye(4)
    affine[:3, 0] = (last.position - first.position) / (len(stack) - 1)
    affine[:3, 1] = down_column * first.spacing[0]
    affine[:3, 2] = along_row * first.spacing[1]
    affine[:3, 3] = first.position
    return np.diag([*TO_RAS, 1.0]) @ affine


def padding(plane: Plane) -> np.ndarray | None:
    """Where a plane `(H, W)` holds padding, as its header says."""
    value = plane.source.get("PixelPaddingValue")
    if value is None or plane.pixels.shape[-1] != 1 or not isinstance(value, int):
        return None
    limit = plane.source.get("PixelPaddingRangeLimit", value)
    return (plane.pixels[..., 0] >= min(value, limit)) & (plane.pixels[..., 0] <= max(value, limit))


def _pixels(path: Path, dataset: Dataset) -> np.ndarray:
    """Stored pixels `(frames, H, W, C)`: decoded, colour as RGB, palettes looked up."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pixels = pixel_array(dataset)
            if dataset.PhotometricInterpretation == "PALETTE COLOR":
                pixels = apply_color_lut(pixels, dataset)
                if pixels.dtype == np.uint16:  # tables are wide, displays are not
                    pixels = (pixels >> 8).astype(np.uint8)
            elif "ModalityLUTSequence" in dataset:
                pixels = apply_modality_lut(pixels, dataset)
    except Exception as error:  # decoders raise whatever they meet
        raise UserError(path, _undecodable(dataset, error)) from error
    colour = dataset.get("SamplesPerPixel", 1) > 1 or dataset.PhotometricInterpretation == "PALETTE COLOR"
    if pixels.ndim == (3 if colour else 2):
        pixels = pixels[None]
    pixels = native(path, pixels if colour else pixels[..., None])
    finite(path, pixels)
    return grey(pixels)


def _undecodable(dataset: Dataset, error: Exception) -> str:
    syntax = dataset.file_meta.get("TransferSyntaxUID") if hasattr(dataset, "file_meta") else None
    if syntax is not None and syntax.is_compressed and "Unable to dec" in str(error):
        return f"needs a decoder for {syntax.name} that is not installed; try: pip install pylibjpeg[all]"
    return f"its pixels can't be decoded: {one_line(error)}"


def _plane(path: Path, dataset: Dataset, pixels: np.ndarray, index: int) -> Plane:
    position = _number_list(_value(dataset, index, "PlanePositionSequence", "ImagePositionPatient"))
    directions = _number_list(_value(dataset, index, "PlaneOrientationSequence", "ImageOrientationPatient"))
    sizes = _value(dataset, index, "PixelMeasuresSequence", "PixelSpacing") or dataset.get("ImagerPixelSpacing")
    sizes = _number_list(sizes)
    if position is not None and directions is not None and "GridFrameOffsetVector" in dataset:
        offset = float(dataset.GridFrameOffsetVector[index]) - float(dataset.GridFrameOffsetVector[0])
        position = position + offset * np.cross(directions[:3], directions[3:])
    slope, intercept = _rescale(dataset, index)
    if dataset.PhotometricInterpretation == "MONOCHROME1" and dataset.get("Modality") not in QUANTITATIVE:
        top = -1 if dataset.PixelRepresentation else 2**dataset.BitsStored - 1
        slope, intercept = -slope, intercept + slope * top
    return Plane(pixels, slope, intercept, position, None if directions is None else directions.reshape(2, 3),
                 () if sizes is None else (float(sizes[0]), float(sizes[1])), dataset, index)


def _rescale(dataset: Dataset, index: int) -> tuple[float, float]:
    if "ModalityLUTSequence" in dataset:
        return 1.0, 0.0
    slope = _value(dataset, index, "PixelValueTransformationSequence", "RescaleSlope")
    intercept = _value(dataset, index, "PixelValueTransformationSequence", "RescaleIntercept")
    slope = dataset.get("DoseGridScaling", 1.0) if slope is None else slope
    return float(slope) or 1.0, float(intercept or 0.0)


def _value(dataset: Dataset, index: int, sequence: str, tag: str):
    """An attribute of a frame: its own functional group, the shared one, or the dataset itself; None where empty."""
    groups = dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    for group in [*groups[index:index + 1], *shared[:1]]:
        found = group.get(sequence)
        if found and found[0].get(tag) is not None:
            return found[0].get(tag)
    return dataset.get(tag)


def _number_list(value) -> np.ndarray | None:
    return None if value is None or value == "" else np.array([float(v) for v in value])


def _record(path: Path, stack: Sequence[Plane], name: str, subject: str) -> Record:
    image, slope, intercept = _values(stack)
    extras = {}
    valid = _valid(stack)
    if valid is not None:
        lowest = image[valid].min() if slope > 0 else image[valid].max()
        image = np.where(valid[..., None], image, lowest)
        extras["mask"] = valid[..., None]
    modality = str(stack[0].source.get("Modality") or "")
    if len(stack) == 1:
        extras = {key: value[0] for key, value in extras.items()}
        return Record(image[0], name, subject, slope, intercept, stack[0].spacing, None, modality, extras)
    affine = affine_of(stack)
    turn = Orientation.of(affine)
    extras = {key: np.ascontiguousarray(turn.inside(value)) for key, value in extras.items()}
    uneven = _uneven(path, stack)
    if uneven is not None:
        flipped = turn.flips[turn.axes.index(0)]
        extras["slice_positions_mm"] = uneven[::-1] if flipped else uneven
    inside = turn.affine(affine, image.shape[:3])
    image = np.ascontiguousarray(turn.inside(image))
    return Record(image, name, subject, slope, intercept, spacing(inside), inside, modality, extras)


def _values(stack: Sequence[Plane]) -> tuple[np.ndarray, float, float]:
    """Pixels `(slices, H, W, C)` with slope and intercept; float32 in units where slices differ in those."""
    scales = {(p.slope, p.intercept) for p in stack}
    if len(scales) == 1:
        return np.stack([p.pixels for p in stack]), *scales.pop()
    return np.stack([p.pixels * np.float32(p.slope) + np.float32(p.intercept) for p in stack]), 1.0, 0.0


def _valid(stack: Sequence[Plane]) -> np.ndarray | None:
    """Where the pixels `(slices, H, W)` are no padding; None where all are valid, or none."""
    pads = [padding(p) for p in stack]
    valid = np.stack([np.ones(p.pixels.shape[:2], bool) if pad is None else ~pad
                      for p, pad in zip(stack, pads, strict=True)])
    return valid if valid.any() and not valid.all() else None


def _uneven(path: Path, stack: Sequence[Plane]) -> np.ndarray | None:
    """Says in one line what is irregular; the places of slices (RAS, mm) where their gaps differ, else None."""
    normal = np.cross(*stack[0].directions)
    places = np.array([p.position for p in stack])
    gaps = np.diff(places @ normal)
    differ = np.ptp(gaps) > UNEVEN * np.median(gaps)
    step = places[-1] - places[0]
    tilt = np.degrees(np.arccos(np.clip(step @ normal / np.linalg.norm(step), -1, 1)))
    remarks = []
    if differ:
        remarks.append(f"slice gaps range from {gaps.min():.3f} to {gaps.max():.3f} mm; the affine has their mean, "
                       f"{gaps.mean():.3f} mm, slice_positions_mm the places as measured")
    if tilt > 0.5:
        remarks.append(f"slices are sheared by {tilt:.1f} degrees (tilted gantry); the affine has it")
    if remarks:
        logging.warning("%s: %s", path.parent, "; ".join(remarks))
    return places * TO_RAS if differ else None
