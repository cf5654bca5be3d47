"""The headers of derived DICOM images: what made them and from what; dciodvfy finds no error that their sources had not."""

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, generate_uid

from medjax.data.formats import dicom
from medjax.types import Derivation
from tests.dicom_files import (
    PYDICOM,
    SIZE,
    complaints,
    doppler,
    enhanced,
    needs_dciodvfy,
    rewritten,
    siemens_mosaic,
    slices,
)


def test_a_derived_image_says_what_made_it(test_data, tmp_path):
    source = pydicom.dcmread(test_data / "dicom" / "single" / "CT_small.dcm")
    (made,) = rewritten(test_data / "dicom" / "single" / "CT_small.dcm", tmp_path / "a.dcm")
    assert made.ImageType == ["DERIVED", "SECONDARY", *source.ImageType[2:]]
    assert made.DerivationDescription.startswith("Noise reduced (denoise/unet, 1.4, 0a1b2c; medjax ")
    assert made.DerivationCodeSequence[-1].CodeMeaning == "Artificial Intelligence"
    item = made.ContributingEquipmentSequence[-1]
    assert (item.Manufacturer, item.ManufacturerModelName) == ("medjax", "denoise/unet")
    assert list(item.SoftwareVersions)[1:] == ["1.4", "0a1b2c"]
    assert item.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"  # Processing Equipment
    (reference,) = made.SourceImageSequence
    assert reference.ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert reference.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
    assert made.file_meta.ImplementationClassUID != source.file_meta.ImplementationClassUID
    assert made.file_meta.ImplementationVersionName.startswith("MEDJAX")
    assert made.SOPInstanceUID == made.file_meta.MediaStorageSOPInstanceUID != source.SOPInstanceUID
    assert made.get("FrameOfReferenceUID") == source.get("FrameOfReferenceUID")
    (again,) = rewritten(tmp_path / "a.dcm", tmp_path / "b.dcm")
    assert len(again.ContributingEquipmentSequence) == 2  # what was done before stays said
    assert again.DerivationDescription.count("Noise reduced") == 2


def test_any_text_can_be_said(tmp_path):
    (path,) = slices(tmp_path, [0], SpecificCharacterSet="ISO_IR 100", PatientName="Müller")
    who = Derivation("Rauschen\nverringert", "Größe 5\\µ" + 60 * "x", "1", "2")
    dicom.write(tmp_path / "a.dcm", [np.zeros((*SIZE, 1))], [path], who)
    made = pydicom.dcmread(tmp_path / "a.dcm")
    assert made.PatientName == "Müller"
    assert made.DerivationDescription.startswith("Rauschen verringert (Gr??e 5/?")
    assert len(made.ContributingEquipmentSequence[0].ManufacturerModelName) == 64
    dicom.write_labels(tmp_path / "b.dcm", [np.ones(SIZE, np.uint8)], ["background", "Größe µ"], [path], who)
    made = pydicom.dcmread(tmp_path / "b.dcm")
    assert (made.PatientName, made.SegmentSequence[0].SegmentLabel) == ("Müller", "Größe µ")


def test_an_enhanced_image_says_it_of_every_frame(test_data, tmp_path):
    source = pydicom.dcmread(test_data / "dicom" / "single" / "eCT_Supplemental.dcm")
    (made,) = rewritten(test_data / "dicom" / "single" / "eCT_Supplemental.dcm", tmp_path / "a.dcm")
    for number, group in enumerate(made.PerFrameFunctionalGroupsSequence):
        (item,) = group.DerivationImageSequence
        (reference,) = item.SourceImageSequence
        assert reference.ReferencedSOPInstanceUID == source.SOPInstanceUID
        assert reference.ReferencedFrameNumber == number + 1
        kinds = group.get("CTImageFrameTypeSequence") or made.SharedFunctionalGroupsSequence[0].CTImageFrameTypeSequence
        assert kinds[0].FrameType[:2] == ["DERIVED", "PRIMARY"]
        assert kinds[0].PixelPresentation == "MONOCHROME"  # its palette is gone
    assert made.PixelPresentation == "MONOCHROME"
    assert "RedPaletteColorLookupTableDescriptor" not in made
    assert made.SourceImageEvidenceSequence[0].StudyInstanceUID == source.StudyInstanceUID


@pytest.fixture(scope="module")
def sources(test_data, tmp_path_factory) -> dict[str, Path]:
    """Everything that can be read, by name."""
    folder = tmp_path_factory.mktemp("sources")
    found = []
    for name in ("ct_ge_head", "ct_regular_3slice", "mr_t1w_head"):
        (folder / name).mkdir()
        for path in sorted((test_data / "dicom" / name).iterdir())[:3]:
            shutil.copy(path, folder / name)
        found.append(folder / name)
    found += [path for path in (test_data / "dicom" / "single").iterdir() if path.stem not in UNWRITABLE]
    found += (test_data / "ultrasound").glob("*.dcm")
    found += [test_data / "badinput" / f"{name}.dcm" for name in ("MR_small_padded", "J2K_pixelrep_mismatch",
                                                                  "slicethickness_empty_string")]
    found += [siemens_mosaic(folder, 0), enhanced(folder), PYDICOM / "SC_rgb_jpeg_dcmtk.dcm", PYDICOM / "JPEG2000.dcm"]
    doppler(folder / "doppler.dcm")
    return {path.stem: path for path in [*found, folder / "doppler.dcm"]}


UNWRITABLE = ("JPGExtended", "liver_1frame")
WRITABLE = (
    "ct_ge_head", "ct_regular_3slice", "mr_t1w_head", "CT_small", "MR_small", "MR_small_RLE", "MR_small_bigendian",
    "MR_small_implicit", "MR_small_jp2klossless", "MR_small_jpeg_ls_lossless", "SC_ybr_full_422_uncompressed",
    "decimal_rescale", "eCT_Supplemental", "emri_small", "examples_palette", "image_dfl", "rtdose", "US1_UNCR",
    "examples_ybr_color", "gdcm-US-ALOKA-16", "MR_small_padded", "J2K_pixelrep_mismatch", "slicethickness_empty_string",
    "mosaic_0", "enhanced", "SC_rgb_jpeg_dcmtk", "JPEG2000", "doppler")


def legible(path: Path, target: Path) -> Path:
    """A copy that dciodvfy looks into: not deflated, and with its class of object in the dataset too."""
    dataset = pydicom.dcmread(path)
    if "SOPClassUID" in dataset and dataset.file_meta.TransferSyntaxUID != DeflatedExplicitVRLittleEndian:
        return path
    if "SOPClassUID" not in dataset:
        dataset.SOPClassUID, dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPClassUID, generate_uid()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.save_as(target)
    return target


LARGER = ("ct_regular_3slice", "CT_small", "eCT_Supplemental", "emri_small", "enhanced", "examples_palette", "rtdose",
          "US1_UNCR")


@needs_dciodvfy
@pytest.mark.parametrize(("name", "scale"), [*((name, 1) for name in WRITABLE), *((name, 2) for name in LARGER)])
def test_dciodvfy_finds_no_error_that_the_source_did_not_have(sources, tmp_path, name, scale):
    source = sources[name]
    rewritten(source, tmp_path / "out", scale)
    made = tmp_path / "out"
    first = sorted(source.iterdir())[0] if source.is_dir() else legible(source, tmp_path / "legible.dcm")
    assert complaints(made / first.name if made.is_dir() else made) - complaints(first) == set()
