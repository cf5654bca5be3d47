"""What makes a dataset with new pixels an object of its own, and says what it was made from and by what."""

import uuid
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from importlib import metadata
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import UID, EnhancedMRImageStorage, SecondaryCaptureImageStorage, generate_uid

from medjax.data.formats._dicom_header import group_of, has_values, text, texts, whole
from medjax.data.formats._dicom_planes import Plane
from medjax.types import Derivation

MAKER = "medjax"
MARK = " medjax"
SERIES_NUMBERS = 1000  # a derived series is numbered so much above its source
IMPLEMENTATION = UID("2.25.98463422866272778673840141067949033070")  # of files that medjax writes
RUN = uuid.uuid4().hex  # two runs never share a series
SHORT_TEXT, LONG_STRING = 1024, 64  # longest values of ST and LO
DEFAULT_DESCRIPTION = "Processed by a network"
FRAME_TYPES = ("MRImageFrameTypeSequence", "CTImageFrameTypeSequence", "PETFrameTypeSequence")
# The modules MR Pulse Sequence and Bulk Motion Synchronization (PS3.3) allow these in original images alone, as dciodvfy
# checks it; the source that is referred to has them.
ORIGINAL_MR_ONLY = (
    "PulseSequenceName", "MRAcquisitionType", "EchoPulseSequence", "MultipleSpinEcho", "MultiPlanarExcitation",
    "PhaseContrast", "VelocityEncodingAcquisitionSequence", "TimeOfFlightContrast", "ArterialSpinLabelingContrast",
    "SteadyStatePulseSequence", "EchoPlanarPulseSequence", "SaturationRecovery", "SpectrallySelectedSuppression",
    "OversamplingPhase", "GeometryOfKSpaceTraversal", "RectilinearPhaseEncodeReordering", "SegmentedKSpaceTraversal",
    "CoverageOfKSpace", "NumberOfKSpaceTrajectories", "BulkMotionCompensationTechnique", "BulkMotionSignalSource",
    "BulkMotionSignalSourceSequence")


def new_series(source: Dataset, target: Path, kind: str = "") -> str:
    """The SeriesInstanceUID of results: one for each source series, folder of results and kind of result in a run."""
    name = text(source, "SeriesInstanceUID") or uuid.uuid4().hex
    return generate_uid(entropy_srcs=[RUN, name, str(target.parent.absolute()), kind])


def derive(dataset: Dataset, series: str, planes: Mapping[int, Plane], derivation: Derivation, resized: bool) -> None:
    """Identifies a dataset as derived from `planes` (by frame), with the means of `derivation`."""
    if "SOPClassUID" not in dataset:
        dataset.SOPClassUID = dataset.file_meta.get("MediaStorageSOPClassUID") or SecondaryCaptureImageStorage
    enhanced = dataset.SOPClassUID.name.startswith(("Enhanced", "Legacy Converted Enhanced"))
    meanings = [codes.DCM.ArtificialIntelligence, *([codes.DCM.SpatialResampling] if resized else [])]
    _sources(dataset, planes, derivation, meanings)
    dataset.SOPInstanceUID = generate_uid()
    dataset.SeriesInstanceUID = series
    dataset.SeriesNumber = series_number(Path(dataset.filename), dataset)
    dataset.SeriesDescription = text(dataset, "SeriesDescription")[:LONG_STRING - len(MARK)] + MARK
    if dataset.SOPClassUID == EnhancedMRImageStorage:
        for keyword in ORIGINAL_MR_ONLY:
            if keyword in dataset:
                delattr(dataset, keyword)
    dataset.ImageType = _derived(texts(dataset, "ImageType"), enhanced)
    _frame_types(dataset, len(planes))
    before = text(dataset, "DerivationDescription")
    dataset.DerivationDescription = ("; ".join(part for part in (before, described(derivation)) if part))[-SHORT_TEXT:]
    dataset.DerivationCodeSequence = DicomSequence([*(dataset.get("DerivationCodeSequence") or []), *map(coded, meanings)])
    dataset.ContributingEquipmentSequence = DicomSequence(
        [*(dataset.get("ContributingEquipmentSequence") or []), equipment(derivation)])
    now = datetime.now()
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    dataset.file_meta = _meta(dataset)


def series_number(path: Path, source: Dataset) -> int:
    """The number of a series derived from that of `source`."""
    return (whole(path, source, "SeriesNumber") or 0) + SERIES_NUMBERS


def described(derivation: Derivation) -> str:
    """What was done, with the algorithm, in one sentence."""
    means = "; ".join(part for part in (derivation.means, f"medjax {version()}") if part)
    said = f"{derivation.description or DEFAULT_DESCRIPTION} ({means})"
    return plain(said)[:SHORT_TEXT]


def plain(text_: str) -> str:
    """Text that every character set of DICOM has, on one line and in one value."""
    return " ".join(text_.replace("\\", "/").encode("ascii", "replace").decode().split())


def equipment(derivation: Derivation) -> Dataset:
    """An item of ContributingEquipmentSequence for medjax and its algorithm (PS3.3, C.12.1.1)."""
    item = Dataset()
    item.Manufacturer = MAKER
    item.ManufacturerModelName = plain(derivation.algorithm or MAKER)[:LONG_STRING]
    versions = (version(), derivation.version, derivation.identity)
    item.SoftwareVersions = [plain(one)[:LONG_STRING] for one in versions if one]
    item.ContributionDateTime = datetime.now().strftime("%Y%m%d%H%M%S")
    item.ContributionDescription = described(derivation)
    item.PurposeOfReferenceCodeSequence = DicomSequence([coded(codes.DCM.ProcessingEquipment)])
    return item


def coded(code: Code) -> Dataset:
    """An item of a code sequence."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item


@cache
def version() -> str:
    """The version of medjax."""
    return metadata.version("medjax")


def _derived(kinds: tuple[str, ...], enhanced: bool) -> list[str]:
    """ImageType with DERIVED\\SECONDARY in front; multi-frame ("enhanced") objects allow PRIMARY alone."""
    return ["DERIVED", "PRIMARY" if enhanced else "SECONDARY", *kinds[2:]]


def _frame_types(dataset: Dataset, frames: int) -> None:
    for sequence in FRAME_TYPES:
        for frame in range(frames):
            group = group_of(dataset, frame, sequence, "FrameType")
            if has_values(group, "FrameType"):
                group.FrameType = _derived(texts(group, "FrameType"), True)


def _sources(dataset: Dataset, planes: Mapping[int, Plane], derivation: Derivation, meanings: list[Code]) -> None:
    """Refers to the source image; each frame of an object with functional groups to the source's frame."""
    if not has_values(dataset, "SOPInstanceUID"):
        return
    groups = dataset.get("PerFrameFunctionalGroupsSequence") or []
    for frame, group in enumerate(groups):
        item = Dataset()
        item.DerivationDescription = described(derivation)
        item.DerivationCodeSequence = DicomSequence(map(coded, meanings))
        item.SourceImageSequence = DicomSequence([_reference(dataset, frame + 1)])
        group.DerivationImageSequence = DicomSequence([item])
    dataset.SourceImageSequence = DicomSequence([_reference(dataset)])
    if groups and has_values(dataset, "StudyInstanceUID") and has_values(dataset, "SeriesInstanceUID"):
        dataset.SourceImageEvidenceSequence = DicomSequence([_evidence(dataset)])


def _reference(dataset: Dataset, frame: int | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    if frame is not None:
        item.ReferencedFrameNumber = frame
    item.PurposeOfReferenceCodeSequence = DicomSequence([coded(codes.DCM.SourceImageForImageProcessingOperation)])
    return item


def _evidence(dataset: Dataset) -> Dataset:
    """The source with its series and study, which multi-frame objects list of all that they refer to."""
    study, series, instance = Dataset(), Dataset(), Dataset()
    instance.ReferencedSOPClassUID, instance.ReferencedSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    series.SeriesInstanceUID, series.ReferencedSOPSequence = dataset.SeriesInstanceUID, DicomSequence([instance])
    study.StudyInstanceUID, study.ReferencedSeriesSequence = dataset.StudyInstanceUID, DicomSequence([series])
    return study


def _meta(dataset: Dataset) -> FileMetaDataset:
    """File meta information of medjax's own."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    meta.ImplementationClassUID = IMPLEMENTATION
    meta.ImplementationVersionName = f"MEDJAX_{version()}"[:16]
    return meta
