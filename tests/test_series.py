"""Which series of a folder are read: all acquired ones, or the one that is chosen; what medjax wrote is no scan."""

import importlib

import numpy as np
import pytest
from pydicom.uid import generate_uid

from medjax.data import io
from medjax.data.formats import dicom
from medjax.data.sources.files import Files
from medjax.data.split import describe_series, split
from medjax.infer.inputs import gather
from medjax.tasks.denoise import Denoise
from medjax.train.run import load_records
from medjax.types import Record, Region, SeriesFormat, UserError
from tests.dicom_files import SIZE, WHO, image, slices


def series(folder, name: str, number: int, **tags):
    return slices(folder, range(3), SeriesDescription=name, SeriesNumber=number, SeriesInstanceUID=generate_uid(), **tags)


@pytest.fixture
def clinic(tmp_path):
    """Of one patient a T1, a FLAIR, a localizer, a series without a description, and what medjax made of the T1."""
    folder = tmp_path / "clinic"
    own = series(folder / "t1", "3D T1", 3)
    series(folder / "flair", "FLAIR ax", 4)
    series(folder / "scout", "T1 localizer", 1)
    series(folder / "bare", "", 7)
    dicom.write(folder / "made", [np.zeros((3, *SIZE, 1))], own, WHO)
    return folder


def names(found) -> list[str]:
    return sorted(study.series for study in found)


def lines(caplog) -> list[str]:
    found = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return found


def test_what_medjax_wrote_and_localizers_are_left_out_with_one_line(clinic, caplog):
    assert isinstance(dicom, SeriesFormat)
    assert names(io.discover(clinic)) == ["3D T1", "FLAIR ax", "series 7"]
    assert lines(caplog) == [f"{clinic}: left out 3 medjax results, 3 localizers"]


def test_use_leaves_out_the_same_files_as_training(clinic, caplog):
    task = Denoise((0.0, 1.0), 2)
    found = gather({"image": clinic}, task, ())
    assert names(inputs.main for inputs in found) == ["3D T1", "FLAIR ax", "series 7"]
    assert lines(caplog) == [f"{clinic}: left out 3 medjax results, 3 localizers"]
    assert names(inputs.main for inputs in gather({"image": clinic}, task, (), "flair")) == ["FLAIR ax"]


@pytest.mark.parametrize(("chosen", "found"), [
    ("t1", ["3D T1"]), ("FLAIR", ["FLAIR ax"]), ("3", ["3D T1"]), ("04", ["FLAIR ax"]), ("series 7", ["series 7"]),
    ("a", ["FLAIR ax"]), ("LOCAL", ["T1 localizer"]), ("1003", ["3D T1 medjax"]), ("T1 medjax", ["3D T1 medjax"])])
def test_a_series_is_chosen_by_name_or_number(clinic, chosen, found):
    """A localizer and a result of medjax are read only where no scan is meant."""
    assert names(io.discover(clinic, series=chosen)) == found


def test_a_series_that_is_not_there_is_said_with_those_that_are(clinic):
    with pytest.raises(UserError) as caught:
        io.discover(clinic, series="T2")
    assert str(caught.value) == (f"{clinic}: no series has 'T2' in its name, or as its number; there is series 7, FLAIR ax, "
                                 "3D T1")


def test_a_folder_of_results_is_read_and_said(clinic, caplog):
    assert names(io.discover(clinic / "made")) == ["3D T1 medjax"]
    assert lines(caplog) == [f"{clinic / 'made'}: all 3 images are results of medjax, and are read as scans"]


def test_files_of_formats_without_series_are_chosen_by_name(tmp_path):
    for name in ("sub-01_T1w", "sub-01_T2w"):
        np.save(tmp_path / f"{name}.npy", np.eye(4, dtype=np.float32))
    assert [study.id for study in io.discover(tmp_path, series="t1")] == ["sub-01_T1w"]
    with pytest.raises(UserError, match="there is sub-01_T1w, sub-01_T2w"):
        io.discover(tmp_path, series="flair")


def config_of(path, chosen: str):
    config = importlib.import_module("configs.quickstart").get_config()
    config.data.path, config.data.series = str(path), chosen
    return config


def test_a_run_reads_the_series_that_its_config_names(clinic, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert [record.series for record in load_records(config_of(clinic, "FLAIR"))] == ["FLAIR ax"]
    assert [record.series for record in load_records(config_of("", "FLAIR"), clinic, "T1")] == ["3D T1"]
    with pytest.raises(UserError, match=r"config\.data\.series: 'FLAIR' can't be chosen from the source icbm152"):
        load_records(config_of("", "FLAIR"))


def test_names_of_series_are_on_the_screen_and_not_in_the_cache(tmp_path):
    for patient in range(3):
        for number, name in enumerate(("PLANTED T1", "PLANTED T2")):
            slices(tmp_path / "in" / f"{patient}{number}", range(3), SeriesDescription=name, PatientID=f"P{patient}",
                   SeriesInstanceUID=generate_uid())
    source = Files(str(tmp_path / "in"), cache=str(tmp_path / "cache"))
    for records in (source.load(), source.load()):
        assert describe_series(split(records)) == ["series read: PLANTED T1 (3 images), PLANTED T2 (3 images)"]
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and b"PLANTED" in path.read_bytes()]


def test_the_list_of_series_is_short():
    records = [Record(np.zeros((2, 2, 1)), f"{n}", f"{n}", series=f"S{min(n, 20)}") for n in range(30)]
    (line,) = describe_series({"train": [Region.whole(record) for record in records]})
    assert line.startswith("series read: S20 (10 images), S0 (1 image), ")
    assert line.endswith(", S10 (1 image), 9 images of 9 others")
    bare = Record(np.zeros((2, 2, 1)), "a", "a")
    assert describe_series({"train": [Region.whole(bare)]}) == []


def test_one_file_is_taken_as_it_is(tmp_path):
    path = tmp_path / "one.dcm"
    image(np.ones(SIZE, np.uint16), SeriesDescription="T1 scout").save_as(path, enforce_file_format=True)
    assert names(io.discover(path)) == ["T1 scout"]
    with pytest.raises(UserError, match="no series has 'flair'"):
        io.discover(path, series="flair")
