"""De-identification: what is planted is found in no byte of the result, references hold, pixels and geometry stay."""

import csv
import gzip
import itertools
import json
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
from PIL import Image, ImageDraw
from pydicom.datadict import DicomDictionary
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.tag import Tag
from pydicom.uid import (
    UID,
    CTImageStorage,
    EncapsulatedPDFStorage,
    EnhancedSRStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    RTStructureSetStorage,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
)

from medjax.data.deidentify import Deidentifier
from medjax.data.formats import dicom
from medjax.data.formats._dicom_blank import Blank, has_text
from medjax.data.formats._dicom_group import OWN, no_scan
from medjax.data.formats._dicom_header import load_header
from medjax.data.formats._dicom_profile import DEVICE, DEVICE_UIDS, Options
from medjax.data.io import files_below
from medjax.data.key import Key
from medjax.types import UserError
from tests.commands import command
from tests.dicom_files import PYDICOM, SERIES, SIZE, WHO, complaints, image, needs_dciodvfy, slices

pytest.importorskip("dicomanonymizer", reason="dicom-anonymizer is not installed (pip install medjax[dicom])")

KEY = Key(b"k" * 32)
TEXT = ("SH", "LO", "ST", "LT", "UC", "UT", "UR", "PN", "AE")
DAY, TIME, AGE, NUMBER, NAME = "19470203", "134751.974233", "077Y", "99887766", "PLANTEDNAME"
PLANTED = (b"PLANTED", DAY.encode(), TIME.encode(), AGE.encode(), NUMBER.encode())
STRUCTURE = {"SpecificCharacterSet", "Modality", "PhotometricInterpretation", "SOPClassUID", "NumberOfFrames"}
SECRET = 0xBEEF  # of pixels that show a name


def run(source: Path, target: Path, key: Key = KEY, options: Options = Options(), blank: Blank = Blank()):  # noqa: B008
    """All files below a folder, without the command's process."""
    work = Deidentifier(source, target, key, options, blank)
    files = files_below(source)
    for file in files:
        work.add(file, [other.name for other in files if other.parent == file.parent])
    return work.done


def written(target: Path) -> list[Path]:
    return sorted(path for path in target.rglob("*") if path.is_file())


def found_in(folder: Path, planted=PLANTED) -> list[str]:
    """Which planted bytes are in files below a folder, also inflated, or in their paths."""
    found = []
    for path in written(folder):
        content = path.read_bytes()
        if path.suffix == ".gz":
            content += gzip.decompress(content)
        content += path.relative_to(folder).as_posix().encode()
        found += [f"{path.name}: {text!r}" for text in planted if text in content]
    return found


def value_of(vr: str, tag: int):
    """What is planted in an attribute of that VR, None for those of numbers."""
    if vr in TEXT:
        return f"PLANTED{tag:08X}"
    if vr in ("OB", "OW", "UN", "OB or OW"):
        return b"PLANTED." + b"." * 8
    values = {"DA": DAY, "TM": TIME, "DT": DAY + TIME, "AS": AGE, "UI": f"1.2.{NUMBER}.{tag}", "CS": NAME, "IS": NUMBER}
    return values.get(vr)


def plant(dataset: Dataset, keep: set[str], named: set[str]) -> int:
    """Plants in every attribute of the dictionary that can hold an identifier, in `named` ones the patient's name.

    Returns in how many.
    """
    count = 0
    for tag, (vr, _, _, _, keyword) in DicomDictionary.items():
        value = value_of(vr, tag)
        if value is None or keyword in keep or tag >> 16 in (0, 2, 0x7FE0, 0xFFFE):
            continue
        dataset.add(DataElement(tag, "OB" if vr == "OB or OW" else vr, NAME if keyword in named else value))
        count += 1
    return count


def planted_image(pixels: np.ndarray, keep: set[str], named: set[str]) -> Dataset:
    dataset = image(pixels)
    needed = {element.keyword for element in dataset if element.VR in ("IS", "CS", "DS")} - {"PatientSex"}
    assert plant(dataset, keep | needed, named) > 2000
    dataset.PatientName, dataset.PatientID = f"{NAME}^PLANTEDFIRST", f"{NUMBER}"
    for sequence in ("ReferencedSeriesSequence", "RequestAttributesSequence", "IconImageSequence"):
        inner, deep = Dataset(), Dataset()
        plant(inner, keep, named)
        plant(deep, keep, named)
        block = deep.private_block(0x0029, "PLANTED CREATOR", create=True)
        block.add_new(1, "UN", b"PLANTEDPRIVATE")
        inner.DerivationCodeSequence = [deep]
        setattr(dataset, sequence, [inner])
    block = dataset.private_block(0x0019, "PLANTED CREATOR", create=True)
    block.add_new(1, "LO", "PLANTEDPRIVATE")
    block.add_new(2, "SQ", [deep])
    for tag, vr, value in ((0x60000022, "LO", "PLANTEDOVERLAY"), (0x60003000, "OW", b"PLANTED."), (0x60000010, "US", 2),
                           (0x50000022, "LO", "PLANTEDCURVE"), (0x00091001, "UN", b"PLANTEDNOBODYS"),
                           (0xFFFCFFFC, "OB", b"PLANTEDPADDING")):
        dataset.add(DataElement(tag, vr, value))
    dataset.preamble = b"PLANTED PREAMBLE".ljust(128, b"\0")
    dataset.file_meta.SourceApplicationEntityTitle = "PLANTEDAE"
    return dataset


@pytest.mark.parametrize("options", [
    Options(), *(pytest.param(options, marks=pytest.mark.slow) for options in (
        Options(device=True), Options(descriptions=True)))], ids=str)
def test_what_is_planted_in_every_attribute_is_found_nowhere(tmp_path, options):
    pixels = np.arange(600, dtype=np.uint16).reshape(20, 30)
    pixels[2:5, 4:10] = SECRET
    # What the option keeps of a device is kept, but for the patient's name.
    keep, named = (STRUCTURE | DEVICE_UIDS, DEVICE) if options.device else (STRUCTURE, set())
    dataset = planted_image(pixels, keep, named)
    dataset.PixelData += b"PLANTED AFTER THE PIXELS"
    place = tmp_path / "in" / "PLANTEDFOLDER"
    place.mkdir(parents=True)
    dataset.save_as(place / "PLANTEDFILE.dcm", enforce_file_format=True)
    assert len(found_in(tmp_path / "in")) == len(PLANTED)
    done = run(tmp_path / "in", tmp_path / "out", options=options, blank=Blank(((4, 2, 6, 3),)))
    assert not done.left_out
    assert len(done.rows) == 1
    assert found_in(tmp_path / "out", (*PLANTED, SECRET.to_bytes(2, "little"))) == []
    (made,) = written(tmp_path / "out")
    result = pydicom.dcmread(made)
    expected = pixels.copy()
    expected[2:5, 4:10] = 0
    np.testing.assert_array_equal(result.pixel_array, expected)
    assert result.preamble == b"\0" * 128
    assert not [element for element in result.iterall() if element.tag.is_private or element.tag.group >> 8 in (0x50, 0x60)]


def test_the_header_says_what_was_done(tmp_path):
    slices(tmp_path / "in", [0.0])
    run(tmp_path / "in", tmp_path / "out", options=Options(dates=True, patient=True))
    result = pydicom.dcmread(written(tmp_path / "out")[0])
    assert result.PatientIdentityRemoved == "YES"
    assert all(len(text) <= 64 for text in result.DeidentificationMethod)
    assert [(code.CodeValue, code.CodingSchemeDesignator) for code in result.DeidentificationMethodCodeSequence] == [
        ("113100", "DCM"), ("113107", "DCM"), ("113108", "DCM")]
    assert result.LongitudinalTemporalInformationModified == "MODIFIED"
    run(tmp_path / "in", tmp_path / "basic")
    assert pydicom.dcmread(written(tmp_path / "basic")[0]).LongitudinalTemporalInformationModified == "REMOVED"


def test_dates_of_a_patient_move_by_one_number_of_days(tmp_path):
    for number, (day, patient) in enumerate([("20200131", "a"), ("20200302", "a"), ("20200131", "b")]):
        slices(tmp_path / "in" / str(number), [0.0], StudyDate=day, StudyTime="101112",
               AcquisitionDateTime=f"{day}101112.5+0100", PatientID=f"patient {patient}", PatientBirthDate="19300101",
               PatientAge="093Y", PatientWeight="70", AcquisitionDate="2020")
    run(tmp_path / "in", tmp_path / "out", options=Options(dates=True, patient=True))
    results = [pydicom.dcmread(path) for path in written(tmp_path / "out")]
    days: dict[str, list[int]] = {}
    for result in results:
        assert (result.PatientBirthDate, result.PatientAge, result.PatientWeight) == ("", "090Y", 70)
        assert result.AcquisitionDateTime == result.StudyDate + "101112.5"
        assert (result.StudyTime, result.AcquisitionDate) == ("101112", "")
        day = np.datetime64(f"{result.StudyDate[:4]}-{result.StudyDate[4:6]}-{result.StudyDate[6:]}")
        days.setdefault(result.PatientID, []).append(int((day - np.datetime64("2020-01-31")).astype(int)))
    one, two = (sorted(moved) for moved in sorted(days.values(), key=len))
    assert two[1] - two[0] == 31
    assert two[0] == KEY.days("patient a")
    assert one == [KEY.days("patient b")]
    assert KEY.days("patient a") != KEY.days("patient b")


def test_descriptions_keep_known_words_that_name_nobody(tmp_path):
    slices(tmp_path / "in", [0.0], SeriesDescription="Flair^AX Miller, for Dr Skull", PatientName="Skull^Anna",
           Manufacturer="SIEMENS Healthineers", ManufacturerModelName="Secret 3")
    run(tmp_path / "in", tmp_path / "out", options=Options(descriptions=True))
    result = pydicom.dcmread(written(tmp_path / "out")[0])
    assert (result.SeriesDescription, result.Manufacturer) == ("Flair AX", "SIEMENS Healthineers")
    assert result.ManufacturerModelName == "REMOVED"


def study(folder: Path) -> Path:
    """Two series of a patient, one of them divided into two folders, with a segmentation and a structure set."""
    for name, series in (("one", SERIES), ("two", "1.2.3.4"), ("three", "1.2.3.4")):
        slices(folder / name, [0.0, 3.0, 6.0], value=ord(name[0]), SeriesInstanceUID=series, SeriesDescription="T1 " + name)
    images = sorted((folder / "one").iterdir())
    record = dicom.read(images, "a", "s")[0]
    labels = np.zeros(record.image.shape[:-1], np.uint8)
    labels[:, 2:4, 2:5] = 1
    (folder / "labels").mkdir()
    dicom.write_labels(folder / "labels" / "seg.dcm", [labels], ["background", "lesion"], images, WHO)
    structures = image(np.zeros(SIZE, np.uint16), None, SOPClassUID=RTStructureSetStorage, Modality="RTSTRUCT", Rows=None,
                       StructureSetLabel="PLANTED")
    del structures.PixelData
    structures.file_meta.MediaStorageSOPClassUID = RTStructureSetStorage
    contour, roi = Dataset(), Dataset()
    contour.ContourImageSequence = [Dataset() for _ in images]
    for item, path in zip(contour.ContourImageSequence, images, strict=True):
        item.ReferencedSOPInstanceUID = pydicom.dcmread(path).SOPInstanceUID
    contour.ContourData = [1.0, 2.0, 3.0]
    roi.ContourSequence = [contour]
    structures.ROIContourSequence = [roi]
    structures.save_as(folder / "labels" / "structures.dcm", enforce_file_format=True)
    return folder


def uids(folder: Path) -> set[str]:
    """All UIDs of instances, series, studies and frames of reference below a folder."""
    return {str(value) for path in written(folder) for element in pydicom.dcmread(path).iterall() if element.VR == "UI"
            for value in ([element.value] if element.VM == 1 else element.value or [])
            if UID(str(value)).name == str(value)}


def test_references_hold_and_runs_with_one_key_agree(tmp_path):
    source = study(tmp_path / "in")
    for name, key in (("a", KEY), ("b", KEY), ("c", Key(b"c" * 32))):
        assert not run(source, tmp_path / name, key).left_out
    before, after = uids(source), uids(tmp_path / "a")
    assert after == {KEY.uid(uid) for uid in before}
    assert len(after) == len(before) > 15
    assert all(uid.startswith("2.25.") and UID(uid).is_valid for uid in after)
    assert not after & uids(tmp_path / "c")
    one, two = (written(tmp_path / name) for name in "ab")
    assert [path.relative_to(tmp_path / "a") for path in one] == [path.relative_to(tmp_path / "b") for path in two]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(one, two, strict=True))
    results = [pydicom.dcmread(path) for path in one]
    images = {result.SOPInstanceUID for result in results if result.Modality == "MR"}
    (segmentation,) = (result for result in results if result.Modality == "SEG")
    (structures,) = (result for result in results if result.Modality == "RTSTRUCT")
    referenced = {item.ReferencedSOPInstanceUID
                  for item in segmentation.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
    contoured = {item.ReferencedSOPInstanceUID
                 for item in structures.ROIContourSequence[0].ContourSequence[0].ContourImageSequence}
    assert referenced == contoured
    assert len(referenced) == 3
    assert referenced < images


def series_of(folder: Path, new) -> dict[frozenset[str], list]:
    """The series that the reader puts together, by the UIDs of their instances, with what it reads of them."""
    groups = dicom.group(written(folder))
    return {frozenset(new(pydicom.dcmread(path).SOPInstanceUID) for path in paths): dicom.read(paths, "a", "s")
            for paths, _ in groups}


def test_series_pixels_and_geometry_stay(tmp_path):
    source = study(tmp_path / "in")
    run(source, tmp_path / "out")
    before, after = series_of(source, KEY.uid), series_of(tmp_path / "out", str)
    assert len(before) == 3
    assert before.keys() == after.keys()
    for instances, records in before.items():
        for old, new in zip(records, after[instances], strict=True):
            np.testing.assert_array_equal(old.image, new.image)
            np.testing.assert_array_equal(old.affine, new.affine)
            assert (old.slope, old.intercept, old.units) == (new.slope, new.intercept, new.units)


def with_stream(source: Path, target: Path, change) -> None:
    dataset = pydicom.dcmread(source)
    frames = list(generate_frames(dataset.PixelData, number_of_frames=int(dataset.get("NumberOfFrames", 1))))
    dataset.PixelData = encapsulate([change(frame) for frame in frames])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(target)


def test_results_of_medjax_are_still_known_as_such(tmp_path):
    source = slices(tmp_path / "scan", [0.0, 2.0])
    record = dicom.read(source, "a", "s")[0]
    (tmp_path / "in").mkdir()
    dicom.write(tmp_path / "in" / "result", [record.image.astype(np.float32)], source, WHO)
    assert not run(tmp_path / "in", tmp_path / "out").left_out
    kinds = {no_scan(load_header(path)) for path in written(tmp_path / "out")}
    assert kinds == {OWN}


COMMENT = b"PLANTED COMMENT."


@pytest.mark.parametrize(("name", "change"), [
    ("SC_rgb_jpeg_dcmtk.dcm", lambda stream: stream[:2] + b"\xff\xfe\0\x12" + COMMENT + b"\xff\xe1\0\x12" + COMMENT
     + stream[2:] + COMMENT),
    ("MR_small_jpeg_ls_lossless.dcm", lambda stream: stream[:2] + b"\xff\xfe\0\x12" + COMMENT + stream[2:] + COMMENT),
    ("MR_small_jp2klossless.dcm", lambda stream: stream[:stream.index(b"\xff\x90")] + b"\xff\x64\0\x14\0\1" + COMMENT
     + stream[stream.index(b"\xff\x90"):] + COMMENT),
    ("MR_small_RLE.dcm", lambda stream: stream + COMMENT)])
def test_compressed_pixels_lose_their_comments_alone(tmp_path, name, change):
    (tmp_path / "in").mkdir()
    with_stream(PYDICOM / name, tmp_path / "in" / "a.dcm", change)
    assert found_in(tmp_path / "in", [COMMENT])
    assert not run(tmp_path / "in", tmp_path / "out").left_out
    assert found_in(tmp_path / "out", [COMMENT]) == []
    (made,) = written(tmp_path / "out")
    result = pydicom.dcmread(made)
    assert result.file_meta.TransferSyntaxUID.is_compressed
    np.testing.assert_array_equal(result.pixel_array, pydicom.dcmread(PYDICOM / name).pixel_array)


def test_boxes_of_compressed_pixels_become_zero(tmp_path):
    (tmp_path / "in").mkdir()
    name = PYDICOM / "MR_small_jp2klossless.dcm"
    (tmp_path / "in" / "a.dcm").write_bytes(name.read_bytes())
    run(tmp_path / "in", tmp_path / "out", blank=Blank(((5, 7, 9, 3), (60, 60, 50, 50))))
    result, expected = pydicom.dcmread(written(tmp_path / "out")[0]), pydicom.dcmread(name).pixel_array.copy()
    expected[7:10, 5:14] = expected[60:, 60:] = 0
    assert not result.file_meta.TransferSyntaxUID.is_compressed
    np.testing.assert_array_equal(result.pixel_array, expected)


def test_overlays_in_unused_bits_are_cleared(tmp_path):
    (tmp_path / "in").mkdir()
    for signed in (0, 1):
        values = np.arange(-24, 24).reshape(SIZE) if signed else np.arange(48).reshape(SIZE)
        hidden = (values.astype(np.int16).view(np.uint16) & 0x0FFF) | np.uint16(0x8000)
        dataset = image(hidden, BitsStored=12, HighBit=11, PixelRepresentation=signed)
        dataset.add(DataElement(Tag(0x6000, 0x0102), "US", 15))
        dataset.save_as(tmp_path / "in" / f"{signed}.dcm", enforce_file_format=True)
    run(tmp_path / "in", tmp_path / "out")
    for result in map(pydicom.dcmread, written(tmp_path / "out")):
        stored = np.frombuffer(result.PixelData, np.int16)
        np.testing.assert_array_equal(stored, np.arange(48) - 24 * result.PixelRepresentation)


def ultrasound(path: Path, frames: np.ndarray, **tags) -> None:
    """A grey cine `(frames, H, W)` whose region is rows 40 to 99 and columns 20 to 99."""
    region = Dataset()
    for corner, at in (("MinX0", 20), ("MinY0", 40), ("MaxX1", 99), ("MaxY1", 99)):
        setattr(region, f"RegionLocation{corner}", at)
    dataset = image(frames[0].astype(np.uint16), None, SOPClassUID=UltrasoundMultiFrameImageStorage, Modality="US",
                    NumberOfFrames=len(frames), BitsAllocated=8, BitsStored=8, HighBit=7,
                    SequenceOfUltrasoundRegions=[region], **tags)
    dataset.PixelData = frames.astype(np.uint8).tobytes()
    dataset.save_as(path, enforce_file_format=True)


def drawn(text: str, size=(120, 200)) -> np.ndarray:
    """Speckle that leaves the borders dark, with a text near the upper one."""
    picture = Image.fromarray((np.random.default_rng(len(text)).random(size) * 90).astype(np.uint8))
    ImageDraw.Draw(picture).text((8, 6), text, fill=255)
    return np.asarray(picture)


def test_text_is_seen_where_it_stands_still():
    texts = [has_text(drawn(text)) for text in ("MILLER ANNA 1947", "ID 99887766", "Dr. House 10:24:31")]
    assert texts == [True] * 3
    speckle = np.random.default_rng(0).rayleigh(30, (40, 120, 200))
    phantom = np.hypot(*np.ogrid[-60:60, -100:100]) < 40
    assert not any(has_text(each) for each in speckle)
    assert not has_text(phantom * 200 + speckle[0])
    assert not has_text(np.zeros((10, 10)))


def test_ultrasound_is_blanked_outside_of_its_regions(tmp_path):
    (tmp_path / "in").mkdir()
    frames = np.stack([np.roll(drawn("MILLER ANNA 1947"), shift, 0) for shift in (0, 0)])
    frames[1, 50:90, 30:90] += 20
    ultrasound(tmp_path / "in" / "a.dcm", frames)
    said = run(tmp_path / "in", tmp_path / "warned").rows[0]["warnings"]
    assert "outside of the ultrasound regions" in said
    assert "looks like text" in said
    (row,) = run(tmp_path / "in", tmp_path / "out", blank=Blank(outside=True)).rows
    assert row["warnings"] == ""
    result = pydicom.dcmread(written(tmp_path / "out")[0]).pixel_array
    np.testing.assert_array_equal(result[:, 40:100, 20:100], frames[:, 40:100, 20:100])
    assert result.sum() == frames[:, 40:100, 20:100].sum()


def test_images_that_say_so_are_warned_of(tmp_path):
    slices(tmp_path / "in" / "a", [0.0], BurnedInAnnotation="YES")
    slices(tmp_path / "in" / "b", [0.0], SOPClassUID=UltrasoundImageStorage, Modality="US", PatientID="other")
    slices(tmp_path / "in" / "c", [0.0], SOPClassUID=CTImageStorage, Modality="CT", PatientID="third")
    warned = [str(row["warnings"]) for row in run(tmp_path / "in", tmp_path / "out").rows]
    assert warned[0].startswith("says that it has burned-in text")
    assert "without regions" in warned[1]
    assert warned[2] == ""
    far = run(tmp_path / "in" / "c", tmp_path / "far", blank=Blank(((0, 0, 1, 1), (3, 60, 9, 9)))).rows[0]["warnings"]
    assert "ends before a box" in far


@pytest.mark.parametrize("name", ["MR_small.dcm", "MR_small_implicit.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm"])
def test_what_follows_the_data_of_a_file_is_not_written(tmp_path, name):
    """Whether its reading fails at it or not."""
    (tmp_path / "in").mkdir()
    for number, tail in enumerate((b"PLANTED", b"PLANTED TRAILER " * 9, b"\0" * 8 + b"PLANTED!")):
        (tmp_path / "in" / f"{number}.dcm").write_bytes((PYDICOM / name).read_bytes() + tail)
    done = run(tmp_path / "in", tmp_path / "out")
    assert len(done.rows) + len(done.left_out) == 3
    assert found_in(tmp_path / "out") == []


def test_what_may_hold_text_elsewhere_is_left_out(tmp_path):
    place = tmp_path / "in"
    for number, sop in enumerate((EncapsulatedPDFStorage, EnhancedSRStorage, GrayscaleSoftcopyPresentationStateStorage,
                                  CTImageStorage, "1.2.3.4.5")):
        dataset = image(np.zeros(SIZE, np.uint16), SOPClassUID=sop)
        del dataset.PixelData
        dataset.file_meta.MediaStorageSOPClassUID = sop
        place.mkdir(exist_ok=True)
        dataset.save_as(place / f"{number}.dcm", enforce_file_format=True)
    (place / "letter.txt").write_text("PLANTED")
    (place / "photo.png").write_bytes(b"PLANTED")
    (place / "lone.json").write_text('{"EchoTime": 1}')
    (place / "cut.dcm").write_bytes((PYDICOM / "MR_small.dcm").read_bytes()[:700])
    done = run(place, tmp_path / "out")
    assert done.rows == []
    assert written(tmp_path / "out") == []
    assert len(done.left_out) == 9


def test_volumes_lose_their_texts_and_keep_their_values(tmp_path):
    place = tmp_path / "in" / "sub-PLANTED1" / "anat"
    place.mkdir(parents=True)
    values = np.random.default_rng(0).integers(-900, 900, (5, 6, 7)).astype(np.int16)
    affine = np.array([[0, 0, 2.0, -9], [1.5, 0, 0, 3], [0, 1, 0, 5], [0, 0, 0, 1]])
    for kind, name in ((nibabel.Nifti1Image, "sub-PLANTED1_task-PLANTED_run-2_T1w.nii.gz"),
                       (nibabel.Nifti2Image, "PLANTEDtwo.nii")):
        file = kind(values, affine)
        file.header["descrip"] = file.header["intent_name"] = file.header["aux_file"] = b"PLANTED"
        file.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"PLANTED EXTENSION"))
        file.header.set_slope_inter(0.5, 3)
        if "db_name" in file.header:
            file.header["db_name"] = file.header["data_type"] = b"PLANTED"
        file.to_filename(place / name)
    picture = SimpleITK.GetImageFromArray(values)
    picture.SetSpacing((1.0, 2.0, 3.0))
    picture.SetOrigin((4.0, 5.0, 6.0))
    picture.SetMetaData("Patient", "PLANTED")
    for name in ("PLANTED.nrrd", "PLANTED2.nhdr", "PLANTED3.mha", "PLANTED4.mhd"):
        SimpleITK.WriteImage(picture, str(place / name))
    fields = {"EchoTime": 0.03, "SliceTiming": [0, 0.5], "PhaseEncodingDirection": "j-", "InstitutionName": "PLANTED",
              "RepetitionTime": "PLANTED", "Manufacturer": "PLANTED", "AcquisitionTime": TIME}
    (place / "sub-PLANTED1_task-PLANTED_run-2_T1w.json").write_text(json.dumps(fields))
    assert len(found_in(tmp_path / "in", [b"PLANTED"])) == len(written(tmp_path / "in"))
    done = run(tmp_path / "in", tmp_path / "out")
    assert not done.left_out
    assert found_in(tmp_path / "out") == []
    made = {"".join(path.suffixes): path for path in written(tmp_path / "out")}
    assert len(written(tmp_path / "out")) == len(written(tmp_path / "in"))
    bids = made[".nii.gz"]
    subject = KEY.pseudonym("bids sub", "PLANTED1")
    assert bids.relative_to(tmp_path / "out").parts[:2] == (f"sub-{subject}", "anat")
    assert bids.name == f"sub-{subject}_task-{KEY.pseudonym('bids task', 'PLANTED')}_run-2_T1w.nii.gz"
    assert made[".json"].name.removesuffix(".json") == bids.name.removesuffix(".nii.gz")
    kept = {"EchoTime", "SliceTiming", "PhaseEncodingDirection"}
    assert json.loads(made[".json"].read_text()) == {key: value for key, value in fields.items() if key in kept}
    for path in (bids, made[".nii"]):
        file = nibabel.load(path)
        np.testing.assert_array_equal(file.dataobj.get_unscaled(), values)
        np.testing.assert_allclose(file.affine, affine, atol=1e-6)
        assert (file.dataobj.slope, file.dataobj.inter, len(file.header.extensions)) == (0.5, 3, 0)
    for suffix in (".nrrd", ".nhdr", ".mha", ".mhd"):
        result = SimpleITK.ReadImage(str(made[suffix]))
        np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(result), values)
        assert (result.GetSpacing(), result.GetOrigin()) == ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))


def test_a_key_is_made_for_its_owner_alone_and_must_be_one(tmp_path):
    key = Key.of(tmp_path / "new" / "a.key")
    assert (tmp_path / "new" / "a.key").stat().st_mode & 0o777 == 0o600
    assert Key.of(tmp_path / "new" / "a.key") == key != Key.of(tmp_path / "b.key")
    assert "secret" not in repr(key)
    (tmp_path / "c.key").write_bytes(b"short")
    with pytest.raises(UserError, match="is no key file"):
        Key.of(tmp_path / "c.key")


@pytest.mark.slow
def test_the_command(tmp_path):
    study(tmp_path / "in")
    (tmp_path / "in" / "letter.txt").write_text("PLANTED")
    paths = {name: tmp_path / name for name in ("out", "a.key", "table.csv")}
    arguments = ("-m", "medjax.deidentify", f"--input={tmp_path / 'in'}", f"--output={paths['out']}",
                 f"--key={paths['a.key']}")
    code, said, err = command(*arguments, f"--table={paths['table.csv']}", "--retain_dates", "--retain_patient",
                              "--retain_device", "--clean_descriptions", "--blank=0,0,2,1", "--blank=3,0,1,1",
                              "--blank_outside_regions")
    assert code == 0, err
    assert "letter.txt: left out" in err
    assert f"written: {paths['out']}, {paths['table.csv']}\n" in said
    assert "no guarantee of anonymity" in said
    assert found_in(paths["out"]) == []
    assert all(paths[name].stat().st_mode & 0o777 == 0o600 for name in ("a.key", "table.csv"))
    key = Key.of(paths["a.key"])
    rows = list(csv.reader(paths["table.csv"].read_text().splitlines()))
    assert ["patient", "P1", key.pseudonym("patient", "P1")] in rows
    assert ["series", str(SERIES), key.uid(SERIES)] in rows
    log = json.loads((paths["out"] / "deidentify.json").read_text())
    assert (log["patients"], log["left_out"], len(log["files"])) == (1, 1, 11)
    assert {row["file"] for row in log["files"]} | {"deidentify.csv", "deidentify.json"} == {
        path.relative_to(paths["out"]).as_posix() for path in written(paths["out"])}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.key", "in", "out", "table.csv"]


@pytest.mark.slow
def test_the_command_refuses_in_one_line(tmp_path):
    slices(tmp_path / "in", [0.0])
    (tmp_path / "there").mkdir()
    good = {"input": tmp_path / "in", "output": tmp_path / "out", "key": tmp_path / "a.key"}
    for changes, said in (({"output": tmp_path / "there"}, "is there already"),
                          ({"output": tmp_path / "in" / "out"}, "lies inside the input"),
                          ({"key": tmp_path / "out" / "a.key"}, "lies inside the output"),
                          ({"table": tmp_path / "out" / "t.csv"}, "lies inside the output"),
                          ({"blank": "1,2,3"}, "is no box"), ({"input": tmp_path / "no"}, "no such file")):
        code, _, err = command("-m", "medjax.deidentify", *(f"--{flag}={value}" for flag, value in (good | changes).items()))
        assert code == 2, changes
        assert said in err
        assert err.count("\n") == 1
        assert not (tmp_path / "out").exists()


@pytest.mark.slow
@needs_dciodvfy
def test_real_scans_have_no_new_errors(test_data, tmp_path):
    """One or two files of each real series, and one of each encoding; one that dciodvfy can't read has no errors before."""
    places = ("dicom/ct_ge_head", "dicom/ct_regular_3slice", "dicom/mr_t1w_head", "dicom/single", "ultrasound")
    files = list(itertools.chain.from_iterable(
        sorted((test_data / place).glob("*.dcm"))[:2 if place in places[:3] else None] for place in places))
    checked = 0
    for options in (Options(), Options(True, True, True, True)):
        for file in files:
            if file.name == "image_dfl.dcm":
                continue
            work = Deidentifier(file.parent, tmp_path / f"{options.dates}{checked}", KEY, options)
            work.add(file, [file.name])
            for made in written(work.target):
                assert complaints(made) <= complaints(file), file
                checked += 1
    assert checked > 40
