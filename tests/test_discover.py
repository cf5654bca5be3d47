"""Which files are studies, of which format, by which names, and whose."""

import json
import os
import sys

import numpy as np
import pytest
from PIL import Image
from pydicom.uid import generate_uid

import medjax.data.formats
from medjax.data import io
from medjax.data.split import split
from medjax.data.write import write
from medjax.types import Format, UserError, WritableFormat
from tests.dicom_files import slices


def put(folder, *names, kind=np.float32):
    """Small arrays under these names."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.arange(12).reshape(3, 4).astype(kind))


def error_of(*args, **kwargs) -> str:
    with pytest.raises(UserError) as caught:
        io.discover(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def ids(path, **kwargs) -> dict[str, str]:
    """The subject of each study."""
    return {study.id: study.subject for study in io.discover(path, **kwargs)}


# Formats

TINY = '''
"""Two rows of digits, for a test."""
import numpy as np
from medjax.types import Record
SUFFIXES, KIND = (".tiny", ".npy"), "image"
def accepts(path): return path.suffix == ".tiny"
def group(files): return [((file,), "") for file in files]
def read(paths, name, subject):
    return [Record(np.array([list(line) for line in paths[0].read_text().split()], np.uint8)[..., None], name, subject)]
'''


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A format of a user: a module that lies where formats are, and nothing else."""
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "tiny.py").write_text(TINY)
    monkeypatch.setattr(medjax.data.formats, "__path__", [*medjax.data.formats.__path__, str(tmp_path / "more")])
    io.formats.cache_clear(), io._by_suffix.cache_clear()
    yield tmp_path / "in"
    monkeypatch.undo()
    sys.modules.pop("medjax.data.formats.tiny", None)
    io.formats.cache_clear(), io._by_suffix.cache_clear()


def test_a_format_is_found_by_its_module_alone(tiny):
    put(tiny, "a.npy")
    (tiny / "b.tiny").write_text("12\n34")
    found = {study.id: study for study in io.discover(tiny)}
    assert {name: study.format for name, study in found.items()} == {"a": "array", "b": "tiny"}
    assert found["b"].read()[0].image[..., 0].tolist() == [[1, 2], [3, 4]]
    assert ".tiny" in error_of(tiny.parent / "more")  # what it suggests is known from the modules
    with pytest.raises(UserError, match=r"c\.tiny: can't be written as tiny, the format of b\.tiny, which is only read"):
        write(tiny / "c.tiny", [np.zeros((2, 2, 1))], found["b"])


def test_every_format_keeps_the_contract():
    found = io.formats()
    assert {"array", "bart", "dicom", "fastmri", "htc2022", "ismrmrd", "kspace_array", "metaimage", "nifti", "nrrd",
            "picture", "sinogram", "video"} <= set(found)
    for name, module in found.items():
        assert isinstance(module, Format), name
        assert all(suffix == "" or (suffix[0] == "." and suffix == suffix.lower()) for suffix in module.SUFFIXES), name
        assert module.KIND in io.KINDS
    assert {name for name, module in found.items() if isinstance(module, WritableFormat)} == {
        "array", "dicom", "metaimage", "nifti", "nrrd", "picture", "video"}


def test_a_file_that_is_no_format_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(io.registry, "loaded", lambda _: {"json": json})
    io.formats.cache_clear()
    try:
        with pytest.raises(UserError, match="json: is no file format: it has no SUFFIXES, KIND, accepts, group, read"):
            io.formats()
    finally:
        io.formats.cache_clear()


def test_studies_of_one_kind_are_taken_and_the_others_passed_over(tmp_path):
    put(tmp_path, "image.npy")
    np.save(tmp_path / "raw.npy", np.ones((2, 4, 4), np.complex64))
    (tmp_path / "notes.txt").write_text("hello")
    assert list(ids(tmp_path)) == ["image"]
    assert list(ids(tmp_path, kind="kspace")) == ["raw"]
    assert "no sinograms below this folder; give .mat, .npy" in error_of(tmp_path, kind="sinogram")
    assert "raw.npy: holds complex k-space (kspace_array); give an image" in error_of(tmp_path / "raw.npy")
    assert "image.npy: holds an image (array); give a sinogram" in error_of(tmp_path / "image.npy", kind="sinogram")
    assert error_of(tmp_path, kind="movie") == "kind: unknown 'movie'; choose from image, kspace, sinogram"


# Names and places


def test_a_dot_in_a_name_is_no_suffix(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "patient.1.png")
    (study,) = io.discover(tmp_path / "patient.1.png")
    assert (study.id, study.suffix, study.place.name) == ("patient.1", ".png", "patient.1.png")
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "scan.PNG")
    assert next(s for s in io.discover(tmp_path) if s.id == "scan").suffix == ".PNG"


def test_ids_are_unique(tmp_path):
    put(tmp_path, "a.npy", "b.npy")
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a.png")
    assert sorted(ids(tmp_path)) == ["a.npy", "a.png", "b"]


def test_series_with_names_like_uids_have_places_of_their_own(tmp_path):
    """A UID's last number is no suffix; two series of one folder are named after their first files."""
    for number in (1, 2):
        for file in slices(tmp_path / f"new{number}", range(3), SeriesInstanceUID=generate_uid()):
            file.rename(tmp_path / f"1.2.840.5.{number}.{file.stem}")
        (tmp_path / f"new{number}").rmdir()
    found = io.discover(tmp_path)
    assert len(found) == len({study.place for study in found}) == len({study.id for study in found}) == 2
    assert all(study.place.name.startswith("1.2.840.5.") and len(study.place.name.split(".")) == 6 for study in found)


def test_a_series_has_its_folder_only_where_it_is_alone(tmp_path):
    slices(tmp_path / "in" / "one", range(3))
    slices(tmp_path / "in" / "two", range(3), SeriesInstanceUID=generate_uid())
    assert {study.place.as_posix() for study in io.discover(tmp_path / "in")} == {"one", "two"}
    assert [study.id for study in io.discover(tmp_path / "in" / "one")] == ["one"]
    put(tmp_path / "in" / "two", "deeper/thumb.npy")
    places = {study.place.as_posix() for study in io.discover(tmp_path / "in")}
    assert {"one", "two/deeper/thumb.npy"} < places
    assert "two" not in places  # the other result would lie inside


def test_the_folder_one_is_in_has_a_name(tmp_path, monkeypatch):
    slices(tmp_path / "scan7", range(3))
    monkeypatch.chdir(tmp_path / "scan7")
    assert [study.id for study in io.discover(".")] == ["scan7"]


def test_names_of_any_bytes(tmp_path):
    """Latin-1, as old disks have it: the file is read, its name is text that can be hashed, printed and stored."""
    for number in range(4):
        put(tmp_path, os.fsdecode(f"M\xfcller{number}.npy".encode("latin-1")))
    studies = io.discover(tmp_path)
    assert [study.id for study in studies] == [f"M\\udcfcller{number}" for number in range(4)]
    assert all(study.read()[0].image.shape == (3, 4, 1) for study in studies)
    assert len(split([record for study in studies for record in study.read()])["train"]) == 2


def test_linked_folders_are_followed_once(tmp_path):
    put(tmp_path / "elsewhere", "b.npy", "deep/c.npy")
    put(tmp_path / "in" / "z_real", "a.npy")
    (tmp_path / "in" / "a_link").symlink_to("z_real")  # has its own name already
    (tmp_path / "in" / "m_link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "n_link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "z_real" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "elsewhere" / "deep" / "loop").symlink_to(tmp_path / "elsewhere")
    assert sorted(ids(tmp_path / "in")) == ["m_link/b", "m_link/deep/c", "z_real/a"]
    (tmp_path / "way").symlink_to(tmp_path / "in")
    assert sorted(ids(tmp_path / "way")) == ["m_link/b", "m_link/deep/c", "z_real/a"]


# Subjects


def test_subjects_of_links_are_those_of_their_own_path(tmp_path):
    """As DataLad keeps files: links out of the folder of the subject, to a name that tells nothing or something else."""
    for number in range(4):
        put(tmp_path, f"annex/objects/sub-99/key{number}.npy")
        (tmp_path / "in" / f"sub-0{number % 2}" / "anat").mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / f"sub-0{number % 2}" / "anat" / f"run{number}.npy").symlink_to(
            tmp_path / "annex" / "objects" / "sub-99" / f"key{number}.npy")
    assert sorted(ids(tmp_path / "in").values()) == ["sub-00", "sub-00", "sub-01", "sub-01"]


def write_table(path, **rows):
    path.write_text("filename,patientid\n" + "".join(f"{name},{patient}\n" for name, patient in rows["rows"].items()))
    return path


def test_a_table_names_files_by_their_path(tmp_path):
    put(tmp_path, *(f"p{number}/T1.npy" for number in range(5)))
    table = write_table(tmp_path / "who.csv", rows={f"p{number}/T1.npy": f"P{number}" for number in range(5)})
    assert ids(tmp_path, subjects=table) == {f"p{number}/T1": f"P{number}" for number in range(5)}
    write_table(table, rows={"T1.npy": "P4"})
    said = error_of(tmp_path, subjects=table)
    assert "its row T1.npy fits " in said
    assert said.endswith("name the folders too, as in p1/T1.npy")
    table.write_text("filename,patientid\nT1.npy,P0\nT1.npy,P1\n")
    assert "has rows of different patients for T1.npy" in error_of(tmp_path, subjects=table)
    write_table(table, rows={"T1.npy": "P4", **{f"p{number}/T1.npy": f"P{number}" for number in range(4)}})
    assert ids(tmp_path, subjects=table)["p4/T1"] == "P4"  # the others have rows that fit better


def test_a_table_names_a_series_by_its_folder(tmp_path):
    for number in (1, 2):
        for file in slices(tmp_path / "in" / f"p{number}" / "T1", range(3), SeriesInstanceUID=generate_uid()):
            file.rename(file.with_name(f"{file.stem[-1]}.dcm"))
    table = write_table(tmp_path / "who.csv", rows={"p1/T1": "A", "p2/T1": "B"})
    assert ids(tmp_path / "in", subjects=table) == {"p1/T1": "A", "p2/T1": "B"}
    write_table(table, rows={"T1": "A"})
    assert "its row T1 fits" in error_of(tmp_path / "in", subjects=table)


def test_an_index_beside_is_kept_to_its_folder(tmp_path):
    put(tmp_path, "one/a.npy", "two/a.npy", "three/a.npy")
    write_table(tmp_path / "one" / "index.csv", rows={"a.npy": "P1"})
    write_table(tmp_path / "index.csv", rows={"two/a.npy": "P2"})
    assert ids(tmp_path) == {"one/a": "P1", "two/a": "P2", "three/a": "a"}
    (tmp_path / "index.csv").write_text("filename,patientid\na.npy,P1\na.npy,P2\n")
    assert "index.csv: has rows of different patients for a.npy" in error_of(tmp_path)


def test_one_name_in_many_folders_is_said(tmp_path, caplog):
    put(tmp_path, *(f"p{number}/T1.npy" for number in range(5)))
    assert set(ids(tmp_path).values()) == {"T1"}
    assert "5 folders have a T1, which counts as one subject; give a table of subjects" in caplog.text
