"""A DICOM file as planes: pixels with the rescale, place, direction and order of their own."""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID

from medjax.data.formats._dicom_header import damage_told, group_of, load, numbers, text, texts, whole
from medjax.data.formats._dicom_mosaic import Mosaic, is_mosaic, mosaic_of
from medjax.data.formats._dicom_pixels import claim_of, has_pixels, pixels_of
from medjax.data.geometry import TO_RAS
from medjax.types import UserError

QUANTITATIVE = ("CT", "PT", "MR", "NM", "RTDOSE", "SEG")  # MONOCHROME1 is about display there, not about the values
SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
UNIT_TOLERANCE = 0.01  # how far directions may be from perpendicular unit vectors
B_VALUES = ((0x0019, "SIEMENS MR HEADER", 0x0C), (0x0043, "GEMS_PARM_01", 0x39), (0x2001, "Philips Imaging DD 001", 0x03),
            (0x0065, "Image Private Header", 0x09))  # private attributes of Siemens, GE, Philips and United Imaging
GE_B_VALUE_BASE = 1e9  # GE adds it to some b-values


@dataclass(frozen=True)
class Order:
    """What tells images at one place apart: which echo, time, weighting, … each belongs to. None where not said."""

    echo: float | None = None
    echo_time: float | None = None
    temporal_position: float | None = None
    b_value: float | None = None
    segment: float | None = None
    image_type: tuple[str, ...] = ()
    acquisition: float | None = None
    instance: float | None = None


@dataclass(frozen=True)
class Plane:
    """One slice: stored pixels `(H, W, C)`, their rescale, their place (mm, DICOM's LPS) where known.

    `source` is the file's dataset without its pixels. `colours` `(H, W, 3)` are those of a grey image with coloured marks.
    `padding` is the range of stored values that stand for no image.
    """

    pixels: np.ndarray
    slope: float
    intercept: float
    position: np.ndarray | None
    directions: np.ndarray | None  # (2, 3): along a row, down a column
    spacing: tuple[float, float] | tuple[()]
    order: Order
    path: Path
    source: Dataset = field(repr=False)
    frame: int = 0
    colours: np.ndarray | None = None
    padding: tuple[int, int] | None = None
    thickness: float | None = None
    units: str = ""
    mosaic: Mosaic | None = None

    @property
    def known_position(self) -> np.ndarray:
        """The position of a plane that was found to have one."""
        assert self.position is not None
        return self.position

    @property
    def known_directions(self) -> np.ndarray:
        """The directions of a plane that was found to have them."""
        assert self.directions is not None
        return self.directions

    @property
    def known_spacing(self) -> tuple[float, float]:
        """The spacing of a plane that was found to have one."""
        assert self.spacing
        return self.spacing

    @property
    def affine(self) -> np.ndarray:
        """The `(4, 4)` map of (0, row, column) to RAS mm of a plane that was found to have a place."""
        affine = np.eye(4)
        affine[:3, 1] = TO_RAS * self.known_directions[1] * self.known_spacing[0]
        affine[:3, 2] = TO_RAS * self.known_directions[0] * self.known_spacing[1]
        affine[:3, 3] = TO_RAS * self.known_position
        return affine

    @property
    def padded(self) -> np.ndarray | None:
        """Where the plane `(H, W)` holds padding; None where it says nothing of padding."""
        if self.padding is None or self.pixels.shape[-1] != 1:
            return None
        return (self.pixels[..., 0] >= self.padding[0]) & (self.pixels[..., 0] <= self.padding[1])


def planes_of(path: Path) -> list[Plane]:
    """The planes of one file. Raises UserError where it holds none, or none that can be decoded."""
    dataset = load(path)
    with damage_told(path, "its header is damaged"):
        if not has_pixels(dataset):
            raise UserError(path, f"holds no image ({kind_of(dataset) or 'no pixel data'})")
        pixels = pixels_of(path, dataset)
        if "PixelData" in dataset:
            del dataset.PixelData  # decoded: no need to hold both
        colours = pixels.colours if pixels.colours is not None else [None] * len(pixels.stored)
        planes = [replace(plane_of(path, dataset, stored, index), colours=colour)
                  for index, (stored, colour) in enumerate(zip(pixels.stored, colours, strict=True))]
        if is_mosaic(dataset):
            return _tiles(planes[0])
        return planes


def kind_of(dataset: Dataset) -> str:
    """The name of the kind of object, as the standard has it; "" where it isn't said."""
    return UID(text(dataset, "SOPClassUID")[:64]).name


def directions_of(path: Path, dataset: Dataset) -> np.ndarray | None:
    """`(2, 3)` unit vectors along a row and down a column. Raises UserError for others."""
    found = numbers(path, dataset, "ImageOrientationPatient", 6)
    if found is None:
        return None
    pair = found.reshape(2, 3)
    if np.abs(pair @ pair.T - np.eye(2)).max() > UNIT_TOLERANCE:
        raise UserError(path, f"ImageOrientationPatient is {found.tolist()}; it must be two perpendicular unit vectors")
    return pair


def plane_of(path: Path, dataset: Dataset, stored: np.ndarray, index: int) -> Plane:
    """A frame of a file with its `stored` pixels, which may be empty where only its place is asked for. Raises UserError."""
    place = group_of(dataset, index, "PlanePositionSequence", "ImagePositionPatient")
    position = numbers(path, place, "ImagePositionPatient", 3)
    directions = directions_of(path, group_of(dataset, index, "PlaneOrientationSequence", "ImageOrientationPatient"))
    if position is not None and directions is not None and "GridFrameOffsetVector" in dataset:
        offsets = numbers(path, dataset, "GridFrameOffsetVector", None)
        if offsets is None or index >= len(offsets):
            raise UserError(path, "GridFrameOffsetVector is shorter than NumberOfFrames")
        position = position + (offsets[index] - offsets[0]) * np.cross(*directions)
    slope, intercept = _rescale(path, dataset, index)
    measures = group_of(dataset, index, "PixelMeasuresSequence", "SliceThickness")
    return Plane(stored, slope, intercept, position, directions, _spacing(path, dataset, index),
                 _order(path, dataset, index), path, dataset, index, padding=_padding(path, dataset),
                 thickness=_optional(path, measures, "SliceThickness"), units=_units(dataset, index))


def _tiles(whole_plane: Plane) -> list[Plane]:
    """The slices of a mosaic as planes of their own."""
    mosaic = mosaic_of(whole_plane.path, whole_plane.source, whole_plane.pixels, whole_plane.spacing)
    return [replace(whole_plane, pixels=tile, position=position, frame=index, mosaic=mosaic)
            for index, (tile, position) in enumerate(zip(mosaic.tiles(), mosaic.positions, strict=True))]


def _spacing(path: Path, dataset: Dataset, index: int) -> tuple[float, float] | tuple[()]:
    """Distance in mm between rows and between columns. Raises UserError where it is not positive."""
    measures = group_of(dataset, index, "PixelMeasuresSequence", "PixelSpacing")
    for group, keyword in ((measures, SPACINGS[0]), *((dataset, other) for other in SPACINGS[1:])):
        sizes = numbers(path, group, keyword, 2)
        if sizes is not None:
            if (sizes <= 0).any():
                raise UserError(path, f"{keyword} is {sizes.tolist()}; it must be two positive numbers of mm")
            return float(sizes[0]), float(sizes[1])
    return ()


def _rescale(path: Path, dataset: Dataset, index: int) -> tuple[float, float]:
    if "ModalityLUTSequence" in dataset:
        return 1.0, 0.0
    values = []
    for keyword, default in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0)):
        group = group_of(dataset, index, "PixelValueTransformationSequence", keyword)
        found = numbers(path, group, keyword, 1)
        values.append(default if found is None else float(found[0]))
    slope, intercept = values
    if "RescaleSlope" not in dataset and "DoseGridScaling" in dataset:
        scaling = numbers(path, dataset, "DoseGridScaling", 1)
        slope = slope if scaling is None else float(scaling[0])
    if slope == 0 or not math.isfinite(float(np.float32(slope))):
        raise UserError(path, f"RescaleSlope is {slope:g}; it must not be 0, and fit float32")
    if text(dataset, "PhotometricInterpretation") == "MONOCHROME1" and text(dataset, "Modality") not in QUANTITATIVE:
        bits = whole(path, dataset, "BitsStored", 1) or claim_of(path, dataset).bits
        top = -1 if whole(path, dataset, "PixelRepresentation") else 2**bits - 1
        slope, intercept = -slope, intercept + slope * top
    return slope, intercept


def _order(path: Path, dataset: Dataset, index: int) -> Order:
    def first(sequence: str, keyword: str, classic: str) -> float | None:
        group = group_of(dataset, index, sequence, keyword)
        return _optional(path, group, keyword if group is not dataset else classic)

    frame_types = ("MRImageFrameTypeSequence", "CTImageFrameTypeSequence", "PETFrameTypeSequence")
    kinds = [texts(group_of(dataset, index, sequence, "FrameType"), "FrameType") for sequence in frame_types]
    several = (whole(path, dataset, "NumberOfFrames", 0) or 1) > 1
    return Order(echo=first("MREchoSequence", "EffectiveEchoTime", "EchoNumbers"),
                 echo_time=_optional(path, dataset, "EchoTime"),
                 temporal_position=first("FrameContentSequence", "TemporalPositionIndex", "TemporalPositionIdentifier"),
                 b_value=_b_value(path, dataset, index),
                 segment=first("SegmentIdentificationSequence", "ReferencedSegmentNumber", "ReferencedSegmentNumber"),
                 image_type=next((kind for kind in kinds if kind), texts(dataset, "ImageType")),
                 acquisition=first("FrameContentSequence", "FrameAcquisitionNumber", "AcquisitionNumber"),
                 instance=index if several else _optional(path, dataset, "InstanceNumber"))


def _b_value(path: Path, dataset: Dataset, index: int) -> float | None:
    """The diffusion weighting in s/mm^2, rounded: where the standard has it, or where the vendors had it before."""
    found = _optional(path, group_of(dataset, index, "MRDiffusionSequence", "DiffusionBValue"), "DiffusionBValue")
    if found is not None:
        return float(np.rint(found))
    for group, creator, element in B_VALUES:
        try:
            value = dataset.private_block(group, creator)[element].value
            text_ = value.decode() if isinstance(value, bytes) else value if isinstance(value, str) else None
            first = text_.split("\\")[0] if text_ is not None else np.ravel(value)[0]
            return float(np.rint(float(first) % GE_B_VALUE_BASE))
        except Exception:  # absent, or of any type: private attributes hold what they like
            continue
    return None


def _padding(path: Path, dataset: Dataset) -> tuple[int, int] | None:
    value = whole(path, dataset, "PixelPaddingValue")
    if value is None:
        return None
    limit = whole(path, dataset, "PixelPaddingRangeLimit")
    ends = [_signed(path, dataset, end) for end in (value, value if limit is None else limit)]
    return min(ends), max(ends)


def _signed(path: Path, dataset: Dataset, value: int) -> int:
    """Some write the padding of signed pixels as an unsigned number."""
    bits = claim_of(path, dataset).bits
    signed = whole(path, dataset, "PixelRepresentation")
    return value - 2**bits if signed and value >= 2 ** (bits - 1) else value


def _optional(path: Path, dataset: Dataset, keyword: str) -> float | None:
    """The first number of an attribute that reading can do without: None where it is absent or damaged."""
    try:
        found = numbers(path, dataset, keyword, None)
    except UserError:
        return None
    return None if found is None else float(found[0])


def _units(dataset: Dataset, index: int) -> str:
    """What rescaled values are in: "HU" for CT that says so, the units of PET ("BQML"), else ""."""
    modality = text(dataset, "Modality")
    if modality == "PT":
        return text(dataset, "Units")
    if modality != "CT" or "ModalityLUTSequence" in dataset:
        return ""
    group = group_of(dataset, index, "PixelValueTransformationSequence", "RescaleIntercept")
    if "RescaleIntercept" not in group:
        return ""
    return "HU" if text(group, "RescaleType") in ("HU", "") else ""  # the standard: it may be left out where it is HU
