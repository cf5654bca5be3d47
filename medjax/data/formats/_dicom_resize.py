"""Headers of images of another size over the same field of view: spacing, places, and what is counted in pixels."""

from collections.abc import Iterable, Sequence

import numpy as np
from pydicom.dataset import Dataset

from medjax.data.formats._dicom_header import group_of, has_values, numbers
from medjax.data.formats._dicom_planes import SPACINGS, Plane
from medjax.data.formats._dicom_stacks import affine_of
from medjax.data.geometry import TO_RAS, resized
from medjax.types import UserError

FOLLOW_COUNT = ("SliceThickness", "SpacingBetweenSlices")
SHUTTER = ("ShutterShape", "ShutterLeftVerticalEdge", "ShutterRightVerticalEdge", "ShutterUpperHorizontalEdge",
           "ShutterLowerHorizontalEdge", "CenterOfCircularShutter", "RadiusOfCircularShutter",
           "VerticesOfThePolygonalShutter", "ShutterPresentationValue", "ShutterOverlayGroup",
           "ShutterPresentationColorCIELabValue")
OVERLAYS = range(0x6000, 0x6020, 2)
# An ultrasound region: what is counted in pixels along columns (x) and rows (y), and mm per pixel along each.
REGION_PIXELS = {1: ("RegionLocationMinX0", "RegionLocationMaxX1"), 0: ("RegionLocationMinY0", "RegionLocationMaxY1")}
REGION_REFERENCE = {1: "ReferencePixelX0", 0: "ReferencePixelY0"}
REGION_STEPS = {1: "PhysicalDeltaX", 0: "PhysicalDeltaY"}


def resize(plane: Plane, dataset: Dataset, scale: np.ndarray) -> None:
    """Changes the header of a whole file for pixels `scale` times as far apart along (rows, columns).

    Overlays and shutters, drawn in pixels, are dropped. Raises UserError for mosaics.
    """
    if plane.mosaic is not None:
        raise UserError(plane.path, "a mosaic can't be written in another size")
    frames = int(dataset.get("NumberOfFrames") or 1)
    visited: set[int] = set()
    for frame in range(frames):
        measures = group_of(dataset, frame, "PixelMeasuresSequence", "PixelSpacing")
        place = group_of(dataset, frame, "PlanePositionSequence", "ImagePositionPatient")
        directions = group_of(dataset, frame, "PlaneOrientationSequence", "ImageOrientationPatient")
        position = numbers(plane.path, place, "ImagePositionPatient", 3)
        turned = numbers(plane.path, directions, "ImageOrientationPatient", 6)
        if position is not None and turned is not None and plane.spacing and id(place) not in visited:
            row, column = (scale - 1) / 2 * plane.spacing
            place.ImagePositionPatient = decimals(position + row * turned[3:] + column * turned[:3])
            visited.add(id(place))
        if measures is not dataset and id(measures) not in visited:
            measures.PixelSpacing = decimals(numbers(plane.path, measures, "PixelSpacing", 2) * scale)
            visited.add(id(measures))
    for keyword in SPACINGS:
        sizes = numbers(plane.path, dataset, keyword, 2)
        if sizes is not None:
            setattr(dataset, keyword, decimals(sizes * scale))
    ratio = numbers(plane.path, dataset, "PixelAspectRatio", 2)
    if ratio is not None and scale[0] != scale[1]:
        dataset.PixelAspectRatio = [str(round(1000 * value)) for value in ratio * scale]
    for region in dataset.get("SequenceOfUltrasoundRegions") or []:
        _resize_region(plane, region, scale)
    for keyword in SHUTTER:
        if keyword in dataset:
            delattr(dataset, keyword)
    for overlay in OVERLAYS:
        for element in list(dataset.group_dataset(overlay)):
            del dataset[element.tag]


def place_slice(dataset: Dataset, stack: Sequence[Plane], shape: tuple[int, ...], number: int) -> None:
    """Place and thickness of slice `number` of a volume of `shape` over the stack's field of view."""
    size = (len(stack), *stack[0].pixels.shape[:2])
    corner = (resized(affine_of(stack), size, shape) @ [number, 0, 0, 1])[:3] * TO_RAS
    dataset.ImagePositionPatient = decimals(corner)
    for keyword in FOLLOW_COUNT:
        if has_values(dataset, keyword):
            thickness = numbers(stack[0].path, dataset, keyword, 1)
            if thickness is not None:
                setattr(dataset, keyword, decimals(thickness * len(stack) / shape[0])[0])
    if "SliceLocation" in dataset:
        del dataset.SliceLocation


def decimals(values: Iterable[float]) -> list[str]:
    """Numbers as DICOM decimal strings, at most 16 characters."""
    return [f"{float(value):.9g}" for value in values]


def _resize_region(plane: Plane, region: Dataset, scale: np.ndarray) -> None:
    """A region of an ultrasound image, whose physical units per pixel measure distances in it."""
    for axis in (0, 1):
        for keyword in REGION_PIXELS[axis]:
            edge = numbers(plane.path, region, keyword, 1)
            if edge is not None:
                end = keyword.endswith("1")  # the last pixel inside
                setattr(region, keyword, max(0, round((edge[0] + end) / scale[axis]) - end))
        reference = numbers(plane.path, region, REGION_REFERENCE[axis], 1)
        if reference is not None:
            setattr(region, REGION_REFERENCE[axis], round(reference[0] / scale[axis]))
        step = numbers(plane.path, region, REGION_STEPS[axis], 1)
        if step is not None:
            setattr(region, REGION_STEPS[axis], float(step[0] * scale[axis]))
