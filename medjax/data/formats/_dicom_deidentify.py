"""A DICOM dataset without what identifies a patient: the Basic Application Level Confidentiality Profile, PS3.15 Annex E.

References stay whole: every UID of an instance is replaced by one that follows from the key, wherever it stands.
"""

import math
import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.uid import (
    UID,
    DeformableSpatialRegistrationStorage,
    RTStructureSetStorage,
    SpatialRegistrationStorage,
    UID_dictionary,
)

from medjax.data.formats import _dicom_profile as profile
from medjax.data.formats._dicom_blank import NO_BLANK, Blank, burned_in, tidy
from medjax.data.formats._dicom_group import NOBODY
from medjax.data.formats._dicom_header import damage_told, load, text, texts
from medjax.data.formats._dicom_pixels import has_pixels
from medjax.data.formats._dicom_profile import Action, Options
from medjax.data.key import Key
from medjax.types import UserError

WITHOUT_PIXELS = (RTStructureSetStorage, SpatialRegistrationStorage, DeformableSpatialRegistrationStorage)
TEXTUAL = (" SR ", "Report", "Encapsulated", "Presentation State", "Waveform", "Key Object", "Media")
VIDEO = ("MPEG", "HEVC", "SMPTE", "JPIP")
FORMS = {"DA": r"\d{8}", "TM": r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?", "DT": r"\d{4,14}(\.\d{1,6})?([+-]\d{4})?",
         "AS": r"\d{3}[DWMY]", "CS": r"[A-Z0-9_ ]{0,16}", "IS": r"[+-]?\d{1,12}",
         "DS": r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"}
NAMING = ("PatientName", "PatientID", "AccessionNumber", "StudyID", "PatientBirthDate", "OtherPatientIDs",
          "OtherPatientNames", "PatientBirthName", "PatientMotherBirthName", "ReferringPhysicianName", "OperatorsName")
SHORTEST = 4  # characters of a part of a name that is looked for elsewhere
SHORTEST_NUMBER = 6
OLDEST = 89  # years; those above are few enough to be recognised
SAFE_CODES = ("Modality", "PhotometricInterpretation", "SOPClassUID")
STRINGS = ("CS", "IS", "DS", "AS", *profile.TEXT, *profile.TEMPORAL, "UI")


@dataclass(frozen=True)
class Deidentified:
    """A dataset that can be written, whose it is (the patient, study, series and instance as they were), what was done."""

    dataset: FileDataset
    patient: str
    study: str
    series: str
    instance: str
    warnings: tuple[str, ...] = ()
    counts: Counter[str] = field(default_factory=Counter)


def deidentified(path: Path, key: Key, options: Options, blank: Blank = NO_BLANK) -> Deidentified:
    """The dataset of a file with all identifiers removed or replaced; pixels outside `blank` are as they were.

    Raises UserError for a file that can't be read, and for objects that may hold text elsewhere: reports, documents,
    presentation states, waveforms, video.
    """
    with damage_told(path, "its header is damaged"):
        dataset = load(path)
        _check(path, dataset)
        return _deidentified(path, dataset, key, options, blank)


def _deidentified(path: Path, dataset: FileDataset, key: Key, options: Options, blank: Blank) -> Deidentified:
    patient = text(dataset, "PatientID")
    patient = text(dataset, "StudyInstanceUID") if NOBODY.fullmatch(patient) else patient
    study, series, instance = (_plain(text(dataset, f"{level}InstanceUID")) for level in ("Study", "Series", "SOP"))
    if not patient or not instance:
        raise UserError(path, "has no SOP Instance UID" if patient else "has neither a PatientID nor a Study Instance UID")
    said = burned_in(path, dataset, blank)
    tidy(path, dataset, blank)
    work = _Work(key, options, key.days(patient), _names(dataset))
    work.clean(dataset)
    name = key.pseudonym("patient", patient)
    dataset.PatientName = dataset.PatientID = name
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = [f"DICOM PS3.15 {profile.EDITION} Annex E by medjax",
                                      *(meaning[:64] for _, meaning in options.codes)]
    dataset.DeidentificationMethodCodeSequence = [_code(*code) for code in options.codes]
    if options.faces:
        dataset.RecognizableVisualFeatures = "NO"
    dataset.LongitudinalTemporalInformationModified = "MODIFIED" if options.dates else "REMOVED"
    _new_meta(dataset)
    return Deidentified(dataset, patient, study, series, instance, said, work.counts)


def _check(path: Path, dataset: FileDataset) -> None:
    """Raises UserError for what is left out."""
    sop = text(dataset, "SOPClassUID")
    name = UID(sop).name
    if not _is_standard(sop, "SOP Class"):
        raise UserError(path, "left out: its SOP class is missing, or none of the standard's")
    if any(word in name for word in TEXTUAL):
        raise UserError(path, f"left out: {name} holds text that can't be checked")
    if not has_pixels(dataset) and sop not in WITHOUT_PIXELS:
        raise UserError(path, f"left out: {name.removesuffix(' Storage')} without pixels")
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax is None or any(word in syntax.name for word in VIDEO) or not _is_standard(syntax, "Transfer Syntax"):
        raise UserError(path, "left out: its transfer syntax is a video, unknown, or missing")


def _is_standard(uid: str, kind: str) -> bool:
    return uid in UID_dictionary and UID_dictionary[uid][1] == kind


def _plain(uid: str) -> str:
    return uid.strip("\0 ")


def _is_needed(dataset: Dataset, element: DataElement) -> bool:
    """False for binary values that aren't as long as other attributes say, or that no pixels use."""
    if element.keyword == "VectorGridData":
        return len(element.value) == 12 * math.prod(dataset.get("GridDimensions") or [0])
    if element.keyword != "LUTData" and element.keyword not in profile.PALETTES:
        return True
    colour = element.keyword.removeprefix("Segmented").removesuffix("Data")
    descriptor = dataset.get("LUTDescriptor" if colour == "LUT" else f"{colour}Descriptor")
    if not descriptor:
        return False
    if element.keyword.startswith("Segmented"):
        return text(dataset, "PhotometricInterpretation") == "PALETTE COLOR"
    entries = int(descriptor[0]) or 1 << 16
    return not isinstance(element.value, bytes) or len(element.value) in (entries, entries + entries % 2, 2 * entries)


def _names(dataset: Dataset) -> set[str]:
    """The parts of names and numbers of this patient, in upper case, which may stand where they don't belong."""
    said = [value for keyword in NAMING for value in texts(dataset, keyword)]
    parts = {part.upper() for value in said for part in [value.strip(), *re.split(r"[\s^=,._\-/\\]+", value)]}
    return {part for part in parts if len(part) >= SHORTEST and not NOBODY.fullmatch(part)}


def _code(value: str, meaning: str, scheme: str = "DCM") -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code


def _new_meta(dataset: FileDataset) -> None:
    """File meta information that pydicom fills in, and an empty preamble: the old ones may name a station, or anything."""
    syntax = dataset.file_meta.TransferSyntaxUID
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.preamble = b"\0" * 128


@dataclass
class _Work:
    """What the attributes of one file are replaced with."""

    key: Key
    options: Options
    days: int
    names: set[str]
    counts: Counter[str] = field(default_factory=Counter)

    def clean(self, dataset: Dataset, nested: bool = False) -> None:
        """All attributes of a dataset, and of those in its sequences, which hold no pixels."""
        code = self._code(dataset)
        for tag in list(dataset.keys()):
            if tag.is_private or (nested and tag.group == 0x7FE0):
                self._drop(dataset, tag, "private removed" if tag.is_private else "removed")
                continue
            try:
                element = dataset[tag]
                kept = self._cleaned(element) if _is_needed(dataset, element) else None
            except Exception:  # what pydicom raises for a value that can't be decoded, of any kind
                kept = None
            if kept is None:
                self._drop(dataset, tag, "removed")
            else:
                dataset[tag] = kept
        for keyword, value in code.items():
            if keyword in dataset:
                setattr(dataset, keyword, value)

    def _drop(self, dataset: Dataset, tag: Any, how: str) -> None:
        dataset.__delitem__(tag)
        self.counts[how] += 1

    @staticmethod
    def _code(dataset: Dataset) -> dict[str, str]:
        if "CodeValue" not in dataset and "CodingSchemeDesignator" not in dataset:
            return {}
        found = profile.code_of(text(dataset, "CodeValue"), text(dataset, "CodingSchemeDesignator"))
        return dict(zip(("CodeValue", "CodingSchemeDesignator", "CodeMeaning"), found, strict=True))

    def _cleaned(self, element: DataElement) -> DataElement | None:
        """The attribute as it is written, None for one that isn't."""
        action = profile.action_of(element.tag, element.VR, self.options)
        if action == Action.REMOVE:
            return None
        if element.VR == "SQ":
            if action != Action.KEEP:
                return self._replaced(element, []) if element.value else element
            for item in element.value:
                self.clean(item, nested=True)
            return element
        if element.keyword == "SpecificCharacterSet":
            return DataElement(element.tag, "CS", "ISO_IR 192")
        if element.VR not in STRINGS:
            return element
        values = _values(element)
        if not values:
            return element
        if action == Action.EMPTY:
            return self._replaced(element, "")
        if action == Action.DUMMY:
            return self._replaced(element, profile.dummy(element.keyword, element.VR))
        kept = [self._value(element.keyword, element.VR, value) for value in values]
        if element.VR in ("IS", "DS") and "" in kept:  # a list of numbers is whole or nothing
            kept = [""]
        return element if kept == values else self._replaced(element, kept if len(kept) > 1 else kept[0])

    def _replaced(self, element: DataElement, value: Any) -> DataElement:
        self.counts["UIDs replaced" if element.VR == "UI" else "replaced or emptied"] += 1
        return DataElement(element.tag, element.VR, value)

    def _value(self, keyword: str, vr: str, value: str) -> str:
        """What stands in the place of a value that isn't replaced whatever it is."""
        if vr == "UI":
            uid = _plain(value)
            return value if not uid or uid in UID_dictionary else self.key.uid(uid)
        if vr in profile.TEXT:
            kept = profile.kept_text(keyword, value.strip(), self.options)
            kept = " ".join(word for word in kept.split(" ") if not self._names_patient(word))
            return kept or (profile.DUMMY_TEXT if keyword in profile.REQUIRED else "")
        value = value.strip("\0 ")
        if value and not re.fullmatch(FORMS[vr], value):
            return ""
        if vr in ("DA", "DT"):
            return _shifted(value, self.days)
        if vr == "AS":
            return f"{OLDEST + 1:03d}Y" if value.endswith("Y") and int(value[:3]) > OLDEST else value
        if vr == "CS" and keyword not in SAFE_CODES and self._names_patient(value):
            return ""
        if vr == "IS" and len(value) >= SHORTEST_NUMBER and self._names_patient(value):
            return ""
        return value

    def _names_patient(self, value: str) -> bool:
        """Whether a value has a part of a name or number of the patient."""
        parts = {value.upper(), *re.split(r"[\s^=,._\-/\\]+", value.upper())}
        return bool(parts & self.names)


def _values(element: DataElement) -> list[str]:
    """The values as they are written; [] for none."""
    found = element.value
    if found is None or (isinstance(found, str) and not found):
        return []
    values = list(found) if isinstance(found, MultiValue | list | tuple) else [found]
    return [_written(value) for value in values]


def _written(value: Any) -> str:
    original = getattr(value, "original_string", None)
    if isinstance(original, str):
        return original
    if isinstance(value, float) and not math.isfinite(value):
        return ""
    return str(value)


def _shifted(value: str, days: int) -> str:
    """A DA or DT value moved by `days`, its time of day kept and its offset from UTC left out; "" for what is no date."""
    value = re.sub(r"[+-]\d{4}$", "", value)
    try:
        day = datetime.strptime(value[:8], "%Y%m%d") + timedelta(days)
    except (ValueError, OverflowError):  # a year or a month alone can't be moved by days
        return ""
    return f"{day.year:04d}{day.month:02d}{day.day:02d}" + value[8:]

