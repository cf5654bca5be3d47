"""Label maps as DICOM segmentations (PS3.3, A.51), made by highdicom."""

import copy
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from medjax.data.formats._dicom_derive import (
    LONG_STRING,
    MAKER,
    described,
    equipment,
    new_series,
    plain,
    series_number,
    version,
)
from medjax.data.formats._dicom_header import damage_told, has_values, text, whole
from medjax.data.formats._dicom_planes import Plane, planes_of
from medjax.data.formats._dicom_resize import decimals
from medjax.data.formats._dicom_save import save, save_all
from medjax.data.formats._dicom_stacks import affine_of, stacks_of
from medjax.data.geometry import Orientation, spacing
from medjax.types import UNSAID, Derivation, UserError

MAY_BE_EMPTY = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
                "StudyTime")
MUST_BE_THERE = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
LABEL, UTF_8 = "SEGMENTATION", "ISO_IR 192"  # names of classes may hold any letter


def write_labels(target: Path, labels: Sequence[np.ndarray], names: Sequence[str], paths: Sequence[Path],
                 derivation: Derivation = UNSAID) -> None:
    """`labels` `(*space)` uint8, one per record that `dicom.read(paths)` gives, as binary DICOM segmentations.

    Each class but the first of `names`, the background, becomes a segment of that name; slices without any label are
    left out, as is usual. The segmentation of a single source file becomes the file `target`, that of a series
    `target`/segmentation.dcm (numbered where a series has several frames). Raises UserError for labels without a name,
    of another size than the source, or on an image that the format can't refer to.
    """
    planes = [plane for path in paths for plane in planes_of(path)]
    stacks = stacks_of(planes)
    series = new_series(stacks[0][0].source, target, LABEL)
    made = []
    for number, (stack, label) in enumerate(zip(stacks, labels, strict=True)):
        volume = label[None] if len(stack) == 1 else Orientation.of(affine_of(stack)).outside(label)
        _check(stack, volume, names)
        with damage_told(stack[0].path, "no segmentation can refer to it"):
            made.append(_segmentation(planes, stack, volume, names, derivation, series, number + 1))
    if len(paths) == 1 and len(made) == 1:
        save(target, made[0])
    else:
        save_all(target, ((f"segmentation{f'_{number + 1:04d}' if len(made) > 1 else ''}.dcm", one)
                          for number, one in enumerate(made)))


def _check(stack: Sequence[Plane], volume: np.ndarray, names: Sequence[str]) -> None:
    where, size = stack[0].path, (len(stack), *stack[0].pixels.shape[:2])
    if volume.shape != size:
        raise UserError(where, f"labels of {volume.shape} can't be laid over an image of {size}")
    if len(names) < 2 or volume.max() >= len(names):
        raise UserError(where, f"labels go up to {volume.max()}, but {len(names)} names were given; name the background and "
                               "each class")
    for keyword in MUST_BE_THERE:
        if not has_values(stack[0].source, keyword):
            raise UserError(where, f"has no {keyword}, which a segmentation must refer to")
    if _frames(stack[0]) > 1 and not _placed(stack):
        raise UserError(where, "is a multi-frame image without places in space; labels can't be written for it as DICOM")


def _segmentation(planes: Sequence[Plane], stack: Sequence[Plane], volume: np.ndarray, names: Sequence[str],
                  derivation: Derivation, series: str, number: int) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import highdicom  # takes half a second; most commands write no segmentation

        first = stack[0]
        several = _frames(first) > 1 or first.mosaic is not None
        geometry: dict[str, Any] = {}
        thickness = first.thickness or (spacing(affine_of(stack))[0] if len(stack) > 1 else 1.0)
        if several:
            geometry = {
                "plane_positions": [highdicom.PlanePositionSequence("PATIENT", plane.known_position.tolist())
                                    for plane in stack],
                "plane_orientation": highdicom.PlaneOrientationSequence("PATIENT", first.known_directions.ravel().tolist()),
                "pixel_measures": highdicom.PixelMeasuresSequence(first.spacing, thickness)}
        algorithm = highdicom.AlgorithmIdentificationSequence(
            name=plain(derivation.algorithm or MAKER), version=plain(derivation.version or version()), source=MAKER,
            family=codes.DCM.ArtificialIntelligence,
            parameters={"checkpoint": plain(derivation.identity)} if derivation.identity else None)
        segments = [highdicom.seg.SegmentDescription(
            segment_number=index, segment_label=name[:LONG_STRING], segmented_property_category=codes.SCT.Tissue,
            segmented_property_type=codes.SCT.Tissue, algorithm_type="AUTOMATIC", algorithm_identification=algorithm)
            for index, name in enumerate(names) if index]
        made = highdicom.seg.Segmentation(
            source_images=[_frames_placed(planes, thickness)] if several else [_source(plane) for plane in stack],
            pixel_array=np.ascontiguousarray(volume), segmentation_type="BINARY", segment_descriptions=segments,
            omit_empty_frames=bool(volume.any()),
            series_instance_uid=series, series_number=series_number(first.path, first.source),
            series_description=(text(first.source, "SeriesDescription")[:LONG_STRING - 20] + " segmentation").strip(),
            sop_instance_uid=generate_uid(), instance_number=number,
            manufacturer_model_name=plain(derivation.algorithm or MAKER)[:LONG_STRING], software_versions=version(),
            device_serial_number=plain(derivation.identity or version())[:LONG_STRING], manufacturer=MAKER,
            content_label=LABEL, specific_character_set=UTF_8,
            content_description=described(derivation)[:LONG_STRING], transfer_syntax_uid=ExplicitVRLittleEndian, **geometry)
    made.add_new("ContributingEquipmentSequence", "SQ", DicomSequence([equipment(derivation)]))
    if not _placed(stack):
        made.PatientOrientation = None  # unknown, and to be said where there is no place in space
    return made


def _source(plane: Plane) -> Dataset:
    """A copy of a source's header with what highdicom insists on."""
    source = copy.deepcopy(plane.source)
    for keyword in MAY_BE_EMPTY:
        if keyword not in source:
            setattr(source, keyword, "")
    if "FrameOfReferenceUID" in source and not _placed([plane]):
        del source.FrameOfReferenceUID
    return source


def _frames_placed(planes: Sequence[Plane], thickness: float) -> Dataset:
    """A multi-frame source with its geometry where highdicom looks for it, whether it has functional groups or none."""
    source = _source(planes[0])
    if planes[0].mosaic is not None:
        return source
    shared, measures, orientation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = decimals(planes[0].spacing)
    measures.SliceThickness = thickness
    orientation.ImageOrientationPatient = decimals(planes[0].known_directions.ravel())
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    source.SharedFunctionalGroupsSequence, source.PerFrameFunctionalGroupsSequence = [shared], []
    for plane in planes:
        group, place = Dataset(), Dataset()
        place.ImagePositionPatient = decimals(plane.known_position)
        group.PlanePositionSequence = [place]
        source.PerFrameFunctionalGroupsSequence.append(group)
    return source


def _placed(stack: Sequence[Plane]) -> bool:
    return all(plane.position is not None and plane.directions is not None and plane.spacing for plane in stack) and (
        "FrameOfReferenceUID" in stack[0].source)


def _frames(plane: Plane) -> int:
    return whole(plane.path, plane.source, "NumberOfFrames") or 1
