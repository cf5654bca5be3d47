"""DICOM files as studies: which files make a series, whose they are, and what holds no acquired image of a patient."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from absl import logging
from pydicom.dataset import Dataset
from pydicom.uid import (
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    MultiFrameSingleBitSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    RTDoseStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)
from tqdm import tqdm

from medjax.data.formats._dicom_derive import MAKER
from medjax.data.formats._dicom_header import damage_told, has_values, load, load_header, text, texts, whole
from medjax.data.formats._dicom_planes import directions_of, kind_of
from medjax.data.formats._dicom_stacks import SAME_DIRECTION
from medjax.types import UserError

NAMED_SUFFIXES = (".dcm", ".ima", ".dicom")
DIRECTORY = "dicomdir"
CAPTURES = (SecondaryCaptureImageStorage, MultiFrameSingleBitSecondaryCaptureImageStorage,
            MultiFrameGrayscaleByteSecondaryCaptureImageStorage, MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
            MultiFrameTrueColorSecondaryCaptureImageStorage)
CAPTURE, OWN, DUPLICATE = "secondary capture", "medjax result", "duplicate"
LOCALIZER = re.compile(r"(?<![a-z])(locali[sz]er|scout|topogram|scanogram|surview|(fast|plane) pilot|3[ -]?plane loc)"
                       r"(?![a-z])", re.I)
SURVEY = re.compile(r"(?<![a-z])survey(?![a-z])", re.I)  # of MR alone: a bone survey is an examination
SCREEN = re.compile(r"exam summary|dose (report|info|summary|record)|patient protocol|screen ?(save|shot|capture)|"
                    r"protocol page", re.I)
SCREEN_TYPES = {"SCREEN SAVE", "SCREEN_SAVE", "SCREENSAVE", "SCREENSHOT", "SCREEN CAPTURE", "POSDISP", "CT_SOM5 PROT",
                "DOSE_INFO", "DOSE REPORT"}
NOBODY = re.compile(r"[\W_x0]*|anon(ymous|ymized|ymised)?|unknown|none|null|n/?a|no ?(id|name)|patient( ?id)?|removed|"
                    r"de-?identified|default|unnamed", re.I)
DAMAGED_NAMED = 10


Headers = list[tuple[Path, Dataset]]


@dataclass
class _Series:
    """Files of one size and direction that belong together; `directions` is None for a file that stands alone."""

    directions: np.ndarray | None
    patient: str
    name: str
    files: list[Path] = field(default_factory=list)


def group(files: Sequence[Path]) -> list[tuple[tuple[Path, ...], str]]:
    """The files that make one study each, with the patient's id: the slices of a series together, others alone.

    A series has one folder, SeriesInstanceUID, size and (within 0.1 degrees) direction. The patient is the PatientID, or
    the StudyInstanceUID where the PatientID names nobody ("ANON", "***"). A DICOMDIR stands for the files that it lists.
    Among several files those that hold no acquired image of a patient (localizers, screenshots, reports,
    segmentations, doses, what medjax wrote) are left out, as are duplicates (of one SOPInstanceUID in one folder) and
    files whose header can't be read; one line says how many and why. A file given alone is always taken. Raises UserError
    where nothing is left.
    """
    return [(paths, patient) for paths, patient, _ in group_series(files)]


def group_series(files: Sequence[Path], series: str = "") -> list[tuple[tuple[Path, ...], str, str]]:
    """As `group`, with the SeriesDescription of each, or its SeriesNumber ("series 3").

    Of `series`, a number or part of a description, all files are taken that are acquired images; where none is, all that
    hold an image: so a localizer or a result of medjax is read where it was chosen.
    """
    if len(files) == 1 and files[0].name.lower() == DIRECTORY:
        return _series(_kept(_listed(files[0]), series), by_folder=False)
    files = [file for file in files if file.name.lower() != DIRECTORY]
    if len(files) == 1:
        header = load_header(files[0])
        if "Rows" not in header:
            raise UserError(files[0], f"holds no image ({kind_of(header) or 'no pixel data'})")
        return _series([(files[0], header)] if _is_of(header, series) else [], by_folder=True)
    return _series(_kept(files, series), by_folder=True) if files else []


def no_scan(header: Dataset) -> str:
    """What a file is that holds no acquired image of a patient, in a word or two; "" for one that does.

    DERIVED and SECONDARY in ImageType alone say nothing against a file: scanners write reformatted, filtered and composed
    series so. What tells is the SOP class, and those further values and descriptions that name localizers and screenshots.
    """
    sop, modality = text(header, "SOPClassUID"), text(header, "Modality")
    kinds, description = {kind.upper() for kind in texts(header, "ImageType")}, text(header, "SeriesDescription")
    if "Rows" not in header:
        name = kind_of(header)
        if name.endswith(" SR Storage"):
            return "report"
        return name.removesuffix(" Storage") if name.endswith(" Storage") else "non-image file"
    if sop == SegmentationStorage or modality == "SEG":
        return "segmentation"
    if sop == RTDoseStorage:
        return "radiotherapy dose"
    if "LOCALIZER" in kinds or (modality in ("CT", "MR") and LOCALIZER.search(description)):
        return "localizer"
    if modality == "MR" and SURVEY.search(description):
        return "localizer"
    if kinds & SCREEN_TYPES or SCREEN.search(description):
        return "screenshot"
    if sop in CAPTURES and (modality in ("", "OT", "SC") or "SECONDARY" in kinds):
        return CAPTURE
    return OWN if _is_own(header) else ""


def _is_own(header: Dataset) -> bool:
    """Whether medjax has written a file: a network would learn from the output of another, or of itself."""
    return any(text(item, "Manufacturer") == MAKER for item in header.get("ContributingEquipmentSequence") or [])


def _series_name(header: Dataset) -> str:
    number = text(header, "SeriesNumber")
    return text(header, "SeriesDescription") or (f"series {number}" if number else "")


def _is_of(header: Dataset, series: str) -> bool:
    """Whether a file is of a series; "" is every one. Digits are a number: "3" is not the 3 of "3D T1"."""
    if series.isdecimal():
        return text(header, "SeriesNumber").lstrip("0") == series.lstrip("0")
    return series.casefold() in _series_name(header).casefold()


def _kept(files: Sequence[Path], series: str = "") -> Headers:
    """Files of a series with an acquired image and their headers; where there are none, what comes next to them: secondary
    captures, results of medjax, of a chosen series whatever has an image. Says what is left out.
    """
    by_kind, damaged = _by_kind(files, series)
    folder = os.path.commonpath([file.parent for file in files])
    for problem in damaged[:DAMAGED_NAMED]:
        logging.warning("left out: %s", problem)
    with_image = [kind for kind, found in by_kind.items() if kind != DUPLICATE and "Rows" in found[0][1]]
    taken = next((kind for kind in ("", CAPTURE, OWN, *(with_image if series else ())) if kind in by_kind), None)
    left_out = Counter({kind: len(found) for kind, found in by_kind.items() if kind != taken and kind})
    if damaged:
        left_out["damaged file"] = len(damaged)
    said = ", ".join(f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in left_out.most_common())
    if taken is None:
        if series and not by_kind:
            return []
        raise UserError(folder, f"no acquired image of a patient: {said}; give a file by itself to read it all the same")
    if left_out:
        logging.warning("%s: left out %s", folder, said)
    if taken == OWN:
        logging.warning("%s: all %d images are results of medjax, and are read as scans", folder, len(by_kind[OWN]))
    return by_kind[taken]


def _by_kind(files: Sequence[Path], series: str) -> tuple[dict[str, Headers], list[UserError]]:
    """The files of a series, with their headers, by what they are if no scans ("" for scans); files that are damaged."""
    found: dict[str, Headers] = {}
    damaged: list[UserError] = []
    seen: set[tuple[Path, str]] = set()
    for file in tqdm(files, "reading DICOM headers", unit="file", leave=False, delay=2):
        try:
            header = load_header(file)
            if not _is_of(header, series):
                continue
            directions_of(file, header)
            with damage_told(file, "its header is damaged"):
                kind = no_scan(header)
        except UserError as error:
            damaged.append(error)
            continue
        identity = (file.parent, text(header, "SOPInstanceUID"))
        if not kind and identity[1] and identity in seen:
            kind = DUPLICATE
        seen.add(identity)
        found.setdefault(kind, []).append((file, header))
    return found, damaged


def _series(headers: Headers, by_folder: bool) -> list[tuple[tuple[Path, ...], str, str]]:
    found: list[_Series] = []
    open_: dict[tuple, list[_Series]] = {}
    nobody: Counter[str] = Counter()
    for file, header in headers:
        patient = text(header, "PatientID")
        if NOBODY.fullmatch(patient):
            nobody[patient] += 1
            patient = text(header, "StudyInstanceUID")
        directions = directions_of(file, header)
        if directions is None or not has_values(header, "ImagePositionPatient") or _frames(file, header) > 1:
            found.append(_Series(None, patient, _series_name(header), [file]))
            continue
        key = (file.parent if by_folder else None, text(header, "SeriesInstanceUID"), patient,
               whole(file, header, "Rows"), whole(file, header, "Columns"))
        near = (one for one in open_.get(key, []) if np.abs(one.directions - directions).max() <= SAME_DIRECTION)
        series = next(near, None)
        if series is None:
            series = _Series(directions, patient, _series_name(header))
            found.append(series)
            open_.setdefault(key, []).append(series)
        series.files.append(file)
    if nobody and len(headers) > 1:
        count, names = sum(nobody.values()), ", ".join(repr(name) for name in list(nobody)[:3])
        logging.warning("%s: the PatientID of %d file%s names nobody (%s); each study (StudyInstanceUID) counts as a "
                        "patient of its own, though one patient may have several; a table of subjects would tell",
                        headers[0][0].parent, count, "s" if count > 1 else "", names)
    return [(tuple(series.files), series.patient, series.name) for series in found]


def _frames(file: Path, header: Dataset) -> int:
    return whole(file, header, "NumberOfFrames", 0) or 1


def _listed(directory: Path) -> list[Path]:
    """The files that a DICOMDIR lists and that are there, below its folder. Raises UserError where there are none."""
    with damage_told(directory, "can't be read as a DICOMDIR; give the folder that holds the images"):
        names = [texts(record, "ReferencedFileID") for record in load(directory).get("DirectoryRecordSequence") or []]
    root = directory.parent.resolve()
    files = [directory.parent.joinpath(*name) for name in names if name]
    files = [file for file in files if file.is_file() and file.resolve().is_relative_to(root)]
    if not files:
        raise UserError(directory, "lists no file that is there; give the folder that holds the images")
    return sorted(set(files))
