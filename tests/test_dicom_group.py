"""Which DICOM files make a study, whose it is, and what is no scan."""

import shutil

import numpy as np
import pytest
from pydicom.uid import SecondaryCaptureImageStorage, generate_uid

from medjax.data import io
from medjax.data.formats import dicom
from medjax.types import Format, UserError, WritableFormat
from tests.dicom_files import PYDICOM, SERIES, SIZE, STUDY, image, slices

DIRECTORIES = PYDICOM / "dicomdirtests"


def one(folder, name="one.dcm", **tags):
    path = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    image(np.arange(48, dtype=np.uint16).reshape(SIZE), **tags).save_as(path, enforce_file_format=True)
    return path


def counts(found) -> list[int]:
    return sorted(len(paths) for paths, _ in found)


def test_dicom_fulfils_the_contract():
    assert isinstance(dicom, Format)
    assert isinstance(dicom, WritableFormat)
    assert "" in dicom.SUFFIXES
    assert dicom.KIND == "image"


def test_series_are_told_apart(tmp_path):
    series = slices(tmp_path, range(4)) + slices(tmp_path, range(3), SeriesInstanceUID=generate_uid())
    turned = slices(tmp_path, range(5), ImageOrientationPatient=[0, 1, 0, 0, 0, -1])
    alone = [one(tmp_path, z=None)]
    other_folder = slices(tmp_path / "again", range(2))
    assert counts(dicom.group(series + turned + alone + other_folder)) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(("tags", "said"), [
    ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "1 localizer"),
    ({"SeriesDescription": "AAHead_Scout"}, "1 localizer"),
    ({"SeriesDescription": "3-plane loc"}, "1 localizer"),
    ({"SeriesDescription": "Survey_SHC"}, "1 localizer"),
    ({"SOPClassUID": SecondaryCaptureImageStorage, "ImageType": ["DERIVED", "SECONDARY", "OTHER"]}, "1 secondary capture"),
    ({"SOPClassUID": SecondaryCaptureImageStorage, "Modality": "OT"}, "1 secondary capture"),
    ({"SeriesDescription": "Exam Summary"}, "1 screenshot"),
    ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "1 screenshot"),
    ({"Modality": "SEG"}, "1 segmentation"), ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.481.2"}, "1 radiotherapy dose"),
    ({"Rows": None, "SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.67"}, "1 report"),
    ({"Rows": None, "SOPClassUID": "1.2.840.10008.5.1.4.1.1.104.1"}, "1 Encapsulated PDF"),
])
def test_what_is_no_scan_is_left_out_but_read_when_given_alone(tmp_path, caplog, tags, said):
    series = slices(tmp_path, range(4))
    extra = one(tmp_path, **{"SeriesInstanceUID": generate_uid(), "SeriesDescription": "", **tags})
    assert counts(dicom.group([*series, extra])) == [4]
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == f"{tmp_path}: left out {said}"
    if "Rows" not in tags:
        assert dicom.group([extra]) == [((extra,), "P1")]
        assert len(io.read(extra)) == 1
    else:
        with pytest.raises(UserError, match="holds no image"):
            dicom.group([extra])


@pytest.mark.parametrize("tags", [
    {"ImageType": ["DERIVED", "SECONDARY"]}, {"SeriesDescription": "fMRI pilot 2"},
    {"SeriesDescription": "Bone survey", "Modality": "DX"},
    {"SOPClassUID": SecondaryCaptureImageStorage, "Modality": "CR", "ImageType": None},
    {"SeriesDescription": "Localized spectroscopy"}])
def test_scans_stay(tmp_path, tags):
    assert len(dicom.group([*slices(tmp_path, range(2)), one(tmp_path, SeriesInstanceUID=generate_uid(), **tags)])) == 2


def test_duplicates_are_left_out(tmp_path, caplog):
    series = slices(tmp_path, range(4))
    shutil.copy(series[1], tmp_path / "copy of a slice.dcm")
    assert counts(dicom.group(sorted(tmp_path.iterdir()))) == [4]
    assert [record.getMessage() for record in caplog.records] == [f"{tmp_path}: left out 1 duplicate"]
    shutil.copytree(tmp_path, tmp_path / "backup")
    assert counts(dicom.group(sorted(path for path in tmp_path.rglob("*.dcm")))) == [4, 4]


def test_a_folder_of_wrapped_pictures_is_read(tmp_path, caplog):
    files = [one(tmp_path, f"{n}.dcm", z=None, SOPClassUID=SecondaryCaptureImageStorage, Modality="OT") for n in range(3)]
    assert counts(dicom.group(files)) == [1, 1, 1]
    assert not caplog.records


def test_a_folder_without_a_scan_says_what_it_holds(tmp_path):
    files = [one(tmp_path, f"{n}.dcm", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]) for n in range(2)]
    files.append(one(tmp_path, "r.dcm", Rows=None, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11"))
    with pytest.raises(UserError, match="no acquired image of a patient: 2 localizers, 1 report; give a file by itself"):
        dicom.group(files)


def test_damaged_files_do_not_abort_the_others(tmp_path, caplog):
    series = slices(tmp_path, range(4))
    (tmp_path / "cut.dcm").write_bytes(series[0].read_bytes()[:140])
    (tmp_path / "text.dcm").write_text("hello")
    bad = one(tmp_path, "bad.dcm", ImageOrientationPatient=[0, 0, 0, 0, 0, 0])
    assert counts(dicom.group([*series, tmp_path / "cut.dcm", tmp_path / "text.dcm", bad])) == [4]
    lines = [record.getMessage() for record in caplog.records]
    assert any("text.dcm: no DICOM file" in line for line in lines)
    assert any("bad.dcm: ImageOrientationPatient" in line for line in lines)
    assert "damaged file" in lines[-1]
    with pytest.raises(UserError, match="1 non-image file, 1 damaged file"):
        dicom.group([tmp_path / "cut.dcm", tmp_path / "text.dcm"])


@pytest.mark.parametrize("name", ["***", "", "ANON", "anonymous", "Anonymized", "0", "000000", "xxx", "Unknown", "N/A",
                                  "no id", "-"])
def test_an_id_that_names_nobody_falls_back_on_the_study(tmp_path, caplog, name):
    studies = [generate_uid() for _ in range(3)]
    files = [one(tmp_path, f"{n}.dcm", PatientID=name, StudyInstanceUID=study, SeriesInstanceUID=generate_uid())
             for n, study in enumerate(studies)]
    assert sorted(patient for _, patient in dicom.group(files)) == sorted(studies)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "PatientID of 3 files names nobody" in line


@pytest.mark.parametrize("name", ["ANON0012", "1", "P-0", "sub-01", "X1"])
def test_an_id_that_names_somebody_stays(tmp_path, name):
    assert dicom.group([one(tmp_path, PatientID=name)])[0][1] == name


def test_patients_with_nothing_said_are_told_apart_by_their_files(tmp_path):
    for folder in "ab":
        slices(tmp_path / folder, range(3), PatientID="***", StudyInstanceUID=None)
    assert {study.subject for study in io.discover(tmp_path)} == {"a", "b"}


def test_a_dicomdir_stands_for_its_files(caplog):
    by_directory = dict(dicom.group([DIRECTORIES / "DICOMDIR"]))
    assert set(by_directory.values()) == {"77654033", "98890234"}
    assert "left out 12 localizers" in caplog.text
    assert sum(len(paths) for paths in by_directory) == 31 - 12
    assert io.discover(DIRECTORIES / "DICOMDIR")


def test_a_dicomdir_without_its_files_names_the_folder_to_give(tmp_path):
    shutil.copy(DIRECTORIES / "DICOMDIR", tmp_path)
    with pytest.raises(UserError, match="lists no file that is there; give the folder that holds the images"):
        dicom.group([tmp_path / "DICOMDIR"])
    series = slices(tmp_path, range(3))
    assert counts(dicom.group([*series, tmp_path / "DICOMDIR"])) == [3]


def test_headers_are_read_no_further_than_needed(tmp_path, monkeypatch):
    """Behind Columns nothing is parsed: neither functional groups nor pixels."""
    from medjax.data.formats import _dicom_header
    path = one(tmp_path)
    header = _dicom_header.load_header(path)
    assert {element.keyword for element in header} <= set(_dicom_header.GROUPING)
    data = path.read_bytes()
    pixels = data.index(b"\xe0\x7f\x10\x00")
    path.write_bytes(data[:pixels] + b"\xff" * 100)
    assert _dicom_header.load_header(path).Columns == SIZE[1]
    assert (header.StudyInstanceUID, header.SeriesInstanceUID) == (STUDY, SERIES)
