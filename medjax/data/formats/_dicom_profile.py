"""What becomes of each DICOM attribute: PS3.15 Annex E, Table E.1-1 (edition 2026c, from the package dicom-anonymizer).

The table lists what may identify a patient. Beyond it, no free text passes here: text that the table doesn't list is kept
where it consists of known words or has a known form, and is emptied otherwise.
"""

import re
from dataclasses import dataclass
from enum import Enum
from functools import cache

from pydicom.datadict import DicomDictionary, keyword_for_tag
from pydicom.sr.codedict import codes
from pydicom.tag import BaseTag

from medjax.types import UserError

EDITION = "2026c"


class Action(Enum):
    """The action codes of the table; of the combined ones that which keeps every IOD valid (X/Z is Z, X/D is D)."""

    KEEP = "K"
    REMOVE = "X"
    EMPTY = "Z"
    DUMMY = "D"
    UID = "U"


@dataclass(frozen=True)
class Options:
    """The options of PS3.15 E.3 that are chosen."""

    dates: bool = False
    patient: bool = False
    device: bool = False
    descriptions: bool = False
    faces: bool = False

    @property
    def codes(self) -> list[tuple[str, str]]:
        """Code values and meanings of the profile and its options (CID 7050)."""
        chosen = [(True, "113100", "Basic Application Confidentiality Profile"),
                  (self.faces, "113102", "Clean Recognizable Visual Features Option"),
                  (self.descriptions, "113105", "Clean Descriptors Option"),
                  (self.dates, "113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
                  (self.patient, "113108", "Retain Patient Characteristics Option"),
                  (self.device, "113109", "Retain Device Identity Option")]
        return [(value, meaning) for taken, value, meaning in chosen if taken]


PATIENT = {"PatientSex", "PatientAge", "PatientSize", "PatientWeight"}
DEVICE = {"DeviceSerialNumber", "StationName", "ManufacturerModelName", "SoftwareVersions", "DetectorID", "GantryID",
          "CassetteID", "PlateID", "GeneratorID", "DeviceID", "SecondaryCaptureDeviceID",
          "SecondaryCaptureDeviceManufacturerModelName", "SecondaryCaptureDeviceSoftwareVersions"}
DEVICE_UIDS = {"DeviceUID"}
DESCRIPTIONS = {"SeriesDescription", "StudyDescription", "ProtocolName", "AcquisitionProtocolName",
                "PerformedProcedureStepDescription", "RequestedProcedureDescription", "ContrastBolusAgent", "ROIName",
                "SegmentLabel", "FrameLabel", "WindowCenterWidthExplanation", "AcquisitionDeviceProcessingDescription"}
NEVER_DATED = {"PatientBirthDate", "PatientBirthTime", "PatientDeathDate"}
TEXT = ("SH", "LO", "ST", "LT", "UC", "UT", "UR", "PN", "AE")
TEMPORAL = ("DA", "TM", "DT")
BINARY = ("OB", "OW", "OD", "OF", "OL", "OV", "UN")
PALETTES = {f"{kind}{colour}PaletteColorLookupTableData"
            for kind in ("", "Segmented") for colour in ("Red", "Green", "Blue", "Alpha")}
KEPT_BINARY = {"PixelData", "FloatPixelData", "DoubleFloatPixelData", "VectorGridData", "LUTData"} | PALETTES
REMOVED = {"CodingSchemeIdentificationSequence", "CodingSchemeVersion", "IconImageSequence", "DigitalSignaturesSequence",
           "MACParametersSequence", "EncryptedAttributesSequence", "OriginalAttributesSequence", "ContentSequence",
           "ModifiedAttributesSequence", "GraphicAnnotationSequence", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"}
DUMMIES = {"DA": "19000101", "TM": "000000", "DT": "19000101000000", "AS": "000Y", "UR": "http://removed.invalid"}
DUMMY_TEXT = "REMOVED"
REQUIRED = {"Manufacturer", "ManufacturerModelName", "SoftwareVersions", "SegmentLabel", "SegmentAlgorithmName", "StackID",
            "ReceiveCoilName", "TransmitCoilName", "MultiCoilElementName", "PulseSequenceName", "TrackingID",
            "ConvolutionKernel", "RescaleType", "ModalityLUTType", "TransducerData", "ImagedNucleus", "DeviceSerialNumber",
            "EnergyWindowName", "OpticalPathIdentifier", "AlgorithmVersion", "AlgorithmName", "RTImageLabel", "LUTLabel",
            "LUTExplanation", "LongCodeValue", "URNCodeValue"}
"""Texts that are never empty in some IOD."""
RESCALED = "HU|US|OD|MGML|Z_EFF|ED|EDW|HU_MOD|PCT"
FORMS = {"RescaleType": RESCALED, "ModalityLUTType": RESCALED, "ImagedNucleus": r"\d{0,3}[A-Z][a-z]?\d{0,3}",
         "StackID": r"\d{1,4}",
         "ConvolutionKernel": r"[A-Z][a-z]?[A-Z]?\d{1,3}[a-z]?|STANDARD|SOFT|BONE|BONEPLUS|LUNG|DETAIL|EDGE|CHST|[A-D]"}
MAKERS = {"Manufacturer", "SecondaryCaptureDeviceManufacturer", "DetectorManufacturerName", "ReceiveCoilManufacturerName",
          "TransmitCoilManufacturerName"}
_MAKER_WORDS = """
agfa aloka analogic ate barco bruker canon carestream co corporation electric esaote fuji fujifilm gbs ge gehc gems
gmbh group healthcare healthineers hitachi hologic imaging inc inst inst. konica kodak lodox lorad ltd mallinckrodt medjax
medical medison mindray minolta neusoft nmr olympus philips picker pie planmeca samsung scientific shimadzu siemens
sirona sonosite supersonic swissray system systems technologies toshiba toshiba_mec trex ultrasound united varian
vital images ziehm zeiss
"""
_DESCRIPTION_WORDS = """
2d 3d 4d t1 t2 t1w t2w t2* pd pdw flair stir swi swan tof mra mrv mrcp mrs dwi dti adc bold asl epi fmri dixon space
mprage spgr fspgr bravo cube vibe lava thrive trufi fiesta ciss haste ssfse tse fse gre ge se ir fs fat sat fatsat
water in out phase opp opposed pre post gd contrast ce dce dsc perfusion diffusion trace rest task localizer scout
topogram scanogram survey calibration ax axial sag sagittal cor coronal tra transverse obl oblique mpr mip minip recon
reformat derived original bone soft tissue lung mediastinum standard kernel thin thick slice slices window ct cta cect
ncct pet pt mr mri us spect cbct head brain skull face sinus orbit orbits neck cspine tspine lspine spine cervical
thoracic lumbar sacrum chest thorax heart cardiac coronary aorta abdomen abdominal pelvis pelvic liver kidney kidneys
spleen pancreas prostate bladder uterus breast shoulder elbow wrist hand hip knee ankle foot leg arm extremity
extremities whole body arterial venous portal delayed late early angio vein artery inspiration expiration supine prone
gated ap pa lateral lat left right l r lt rt with without wo w and of the dose low high resolution hr rad b0 b500 b800
b1000 tumor tumour lesion gtv ctv ptv external cord lungs esophagus oesophagus parotid mandible brainstem femur rectum
bowel stomach airway nodule edema oedema necrosis segmentation label background hippocampus ventricle ventricles
matter csf vertebra vertebrae rib ribs cyst stent implant 1 2 3 4 5 6 7 8 9 10
"""
MAKER_WORDS, DESCRIPTION_WORDS = (frozenset(words.split()) for words in (_MAKER_WORDS, _DESCRIPTION_WORDS))
SCHEMES = {"DCM", "SCT", "UCUM"}
LEGACY = re.compile(r"[A-Z]\d?-[0-9A-F]{3,8}")  # of SNOMED's former identifiers (SRT), whose meanings aren't known here
LEGACY_SCHEMES = {"SRT", "SNM3", "99SDM"}


@cache
def listed() -> dict[tuple[int, int], Action]:
    """The actions by group and element. Raises UserError where the package with the table is not installed."""
    try:
        from dicomanonymizer.dicom_anonymization_databases import dicomfields_2026c as table
    except ImportError as error:
        raise UserError("dicom-anonymizer", f"is not installed, and has the table of PS3.15 {EDITION}; install it: "
                        "pip install dicom-anonymizer, or medjax[dicom]") from error
    actions = {Action.DUMMY: (table.D_TAGS, table.Z_D_TAGS, table.X_D_TAGS, table.X_Z_D_TAGS),
               Action.EMPTY: (table.Z_TAGS, table.X_Z_TAGS), Action.REMOVE: (table.X_TAGS,),
               Action.UID: (table.U_TAGS, table.X_Z_U_STAR_TAGS)}
    return {tag: action for action, groups in actions.items() for group in groups for tag in group}


def action_of(tag: BaseTag, vr: str, options: Options) -> Action:
    """What becomes of a public attribute that isn't nested in one that goes. KEEP of a text is subject to `kept_text`."""
    keyword = keyword_for_tag(tag)
    if tag not in DicomDictionary or tag.group >> 8 in (0x50, 0x60) or keyword in REMOVED:
        return Action.REMOVE
    if vr in BINARY:
        return Action.KEEP if keyword in KEPT_BINARY else Action.REMOVE
    if vr == "UI":
        return Action.KEEP if options.device and keyword in DEVICE_UIDS else Action.UID
    if (options.patient and keyword in PATIENT) or (options.device and keyword in DEVICE):
        return Action.KEEP
    if options.descriptions and keyword in DESCRIPTIONS:
        return Action.KEEP
    if vr in TEMPORAL:
        if options.dates and keyword not in NEVER_DATED:
            return Action.KEEP
        return listed().get((tag.group, tag.element), Action.EMPTY)
    found = listed().get((tag.group, tag.element), Action.KEEP)
    return Action.KEEP if found == Action.UID else found


def dummy(keyword: str, vr: str) -> str:
    """A value that says nothing, of that VR."""
    return DUMMIES.get(vr, DUMMY_TEXT)


def kept_text(keyword: str, value: str, options: Options) -> str:
    """What stays of a free text: the whole, if its form or all its words are known, or the known words of a description."""
    if options.device and keyword in DEVICE:
        return value
    if keyword in FORMS and re.fullmatch(FORMS[keyword], value):
        return value
    if keyword in MAKERS and set(re.split(r"[ ,./&\\-]+", value.lower())) - {""} <= MAKER_WORDS:
        return value
    if options.descriptions and keyword in DESCRIPTIONS:
        words = [word for word in re.split(r"[^A-Za-z0-9*]+", value) if word.lower() in DESCRIPTION_WORDS]
        if words:
            return " ".join(words)
    return DUMMY_TEXT if keyword in REQUIRED else ""


def code_of(value: str, scheme: str) -> tuple[str, str, str]:
    """A code as value, scheme and the meaning that the standard gives it; codes that it doesn't know become a dummy."""
    meaning = _meanings().get((scheme, value))
    if meaning:
        return value, scheme, meaning[:64]
    if scheme in LEGACY_SCHEMES and LEGACY.fullmatch(value):
        return value, scheme, DUMMY_TEXT
    return DUMMY_TEXT, "99REMOVED", DUMMY_TEXT


@cache
def _meanings() -> dict[tuple[str, str], str]:
    found = {}
    for scheme in SCHEMES:
        known = getattr(codes, scheme)
        for name in known.dir():
            code = getattr(known, name)
            found[scheme, code.value] = code.meaning
    return found
