"""What a server unpacks: archives within bounds and none that harm; and its private folder, which goes however it ends."""

import gzip
import io
import os
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from medjax.serve import scratch
from medjax.serve.limits import MIB, Limits, RefusedError
from medjax.serve.scratch import LOCK, PREFIX, private_folder, remove_stale
from medjax.serve.upload import DICOM, NIFTI, NIFTI_GZ, ZIP, kind_of, prepared
from medjax.types import UserError
from tests.commands import ROOT
from tests.dicom_files import image
from tests.serving import until

LIMITS = Limits(unpacked=3 * MIB, unsuspected=MIB, ratio=10, files=20)


def dicom_bytes(value: int = 1) -> bytes:
    made = io.BytesIO()
    image(np.full((4, 5), value, np.uint16)).save_as(made, enforce_file_format=True)
    return made.getvalue()


def zipped(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, contents in files.items():
            archive.writestr(name, contents)
    return path


def names_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_the_dicom_files_of_a_zip_are_unpacked_with_their_names(tmp_path):
    files = {"ä ö/1.dcm": dicom_bytes(1), "ä ö/2": dicom_bytes(2), "DICOMDIR": dicom_bytes(), "viewer/run.exe": b"MZ" * 99,
             "__MACOSX/ä ö/._1.dcm": b"\0\5\x16\7" * 9, "empty.dcm": b"", "folder/": b""}
    folder = prepared(zipped(tmp_path / "upload.zip", files), ZIP, LIMITS)
    assert names_below(folder) == ["DICOMDIR", "__MACOSX/ä ö/._1.dcm", "ä ö/1.dcm", "ä ö/2"]
    assert (folder / "ä ö" / "2").read_bytes() == files["ä ö/2"]
    assert names_below(tmp_path) == [f"series/{name}" for name in names_below(folder)]


@pytest.mark.parametrize("name", ["../a.dcm", "/a.dcm", "x/../../a.dcm", "..\\a.dcm", "C:/a.dcm", "a\nb.dcm", "x//a.dcm",
                                  "./a.dcm", "a" * 256 + ".dcm", "/".join("abcdefghijklmnopqrst")])
def test_names_that_lead_elsewhere_are_refused(tmp_path, name):
    inside = tmp_path / "job" / "in"
    inside.mkdir(parents=True)
    path = zipped(inside / "upload.zip", {"good.dcm": dicom_bytes(), name: dicom_bytes()})
    with pytest.raises(UserError, match="names that lead out of their folder"):
        prepared(path, ZIP, LIMITS)
    assert names_below(tmp_path) == ["job/in/upload.zip"]


def test_a_link_in_a_zip_leads_nowhere(tmp_path):
    with zipfile.ZipFile(tmp_path / "upload.zip", "w") as archive:
        link = zipfile.ZipInfo("out")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc")
        archive.writestr("1.dcm", dicom_bytes())
    folder = prepared(tmp_path / "upload.zip", ZIP, LIMITS)
    assert names_below(folder) == ["1.dcm"]


@pytest.mark.parametrize(("files", "says"), [
    ({"a.dcm": bytes(2 * MIB)}, "unpacks to more than 1 MiB"),  # 1000 to 1
    ({f"{i}.dcm": os.urandom(MIB) for i in range(4)}, "unpacks to more than 3 MiB"),
    ({f"{i}.dcm": b"1" for i in range(21)}, "holds 21 files; the server takes 20"),
    ({"a.dcm": dicom_bytes(), "b.zip": b"PK\3\4" + bytes(99)}, "holds another archive"),
    ({"a.dcm": gzip.compress(dicom_bytes())}, "holds another archive"),
    ({"a.txt": b"hello"}, "holds no DICOM file"), ({}, "holds no DICOM file"),
    ({"a": dicom_bytes(), "a/b.dcm": dicom_bytes()}, "one name for a file and a folder")])
def test_what_is_too_much_or_none_is_refused(tmp_path, files, says):
    with pytest.raises(UserError, match=says) as caught:
        prepared(zipped(tmp_path / "upload.zip", files), ZIP, LIMITS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_take_much_memory_are_refused(tmp_path, method):
    with pytest.raises(UserError, match="another method than deflate"):
        prepared(zipped(tmp_path / "upload.zip", {"a.dcm": dicom_bytes()}, method), ZIP, LIMITS)


def test_two_files_of_one_name_are_refused(tmp_path):
    path = zipped(tmp_path / "upload.zip", {"a.dcm": b"1", "b.dcm": b"2"})
    path.write_bytes(path.read_bytes().replace(b"b.dcm", b"a.dcm"))
    with pytest.raises(UserError, match="two files of one name"):
        prepared(path, ZIP, LIMITS)


def patched(path: Path, marker: bytes, at: int, value: bytes) -> Path:
    """The file with other bytes behind each `marker`."""
    data, start = bytearray(path.read_bytes()), 0
    while (start := data.find(marker, start)) >= 0:
        data[start + at:start + at + len(value)] = value
        start += 1
    path.write_bytes(data)
    return path


def test_a_directory_that_lies_about_sizes_is_found_out(tmp_path):
    """More comes out than it says: reading stops there, and the checksum is wrong."""
    path = zipped(tmp_path / "upload.zip", {"a.dcm": dicom_bytes() + bytes(5 * MIB)})
    for marker, at in ((b"PK\1\2", 24), (b"PK\3\4", 22)):
        patched(path, marker, at, struct.pack("<I", 700))
    with pytest.raises(UserError, match="is damaged: Bad CRC"):
        prepared(path, ZIP, LIMITS)
    assert sum(file.stat().st_size for file in tmp_path.rglob("*.dcm")) < 701


def test_a_password_is_said(tmp_path):
    path = zipped(tmp_path / "upload.zip", {"a.dcm": dicom_bytes()})
    patched(patched(path, b"PK\1\2", 8, b"\1"), b"PK\3\4", 6, b"\1")
    with pytest.raises(UserError, match="encrypted"):
        prepared(path, ZIP, LIMITS)


def test_a_directory_is_not_read_if_it_is_too_large(tmp_path):
    """100 000 names of nothing, of which each would be an object."""
    entry = b"PK\1\2" + bytes(42)
    entries = entry * 100_000
    end = b"PK\5\6" + struct.pack("<4H2IH", 0, 0, 65535, 65535, len(entries), 0, 0)
    (tmp_path / "upload.zip").write_bytes(entries + end)
    with pytest.raises(UserError, match="its directory is larger"):
        prepared(tmp_path / "upload.zip", ZIP, LIMITS)


@pytest.mark.parametrize("damage", [lambda data: data[:len(data) // 2], lambda data: data[:-30] + bytes(30),
                                    lambda data: data[:40] + b"\xff" * 40 + data[80:], lambda data: b"PK\3\4"], ids=range(4))
def test_damaged_archives_are_one_line(tmp_path, damage):
    path = zipped(tmp_path / "upload.zip", {"a.dcm": dicom_bytes()})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=r"upload\.zip: is damaged") as caught:
        prepared(path, ZIP, LIMITS)
    assert "\n" not in str(caught.value)


def test_gzip_that_would_fill_the_memory_is_refused(tmp_path):
    path = tmp_path / "upload.nii.gz"
    for contents, fits in ((bytes(MIB), True), (bytes(2 * MIB), False), (os.urandom(2 * MIB), True),
                           (os.urandom(3 * MIB + 1), False)):
        path.write_bytes(gzip.compress(contents, 1))
        if fits:
            assert prepared(path, NIFTI_GZ, LIMITS) == path
        else:
            with pytest.raises(UserError, match="unpacks to more than"):
                prepared(path, NIFTI_GZ, LIMITS)


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: data[:60] + b"??" + data[62:],
                                    lambda data: data[:-6] + b"??" + data[-4:]], ids=range(3))
def test_gzip_with_a_wrong_checksum_or_end_is_refused(tmp_path, damage):
    path = tmp_path / "upload.nii.gz"
    path.write_bytes(damage(gzip.compress(os.urandom(1000))))
    with pytest.raises(UserError, match=r"is damaged: .*; copy it again"):
        prepared(path, NIFTI_GZ, LIMITS)


def test_kinds_are_told_by_contents():
    nifti = bytes(344)
    assert kind_of(nifti + b"n+1\0") == NIFTI
    assert kind_of(b"\x1c\2\0\0n+2\0") == NIFTI
    assert kind_of(b"\x1f\x8b\x08") == NIFTI_GZ
    assert kind_of(dicom_bytes()[:352]) == DICOM
    assert kind_of(b"PK\3\4") == kind_of(b"PK\5\6") == ZIP
    for head in (b"", b"\x89PNG\r\n", b"PK\7\7", bytes(352)):
        with pytest.raises(RefusedError, match="of no known kind"):
            kind_of(head)


# The private folder


HOLD = """
import sys, time
from pathlib import Path
from medjax.serve.scratch import private_folder
with private_folder(Path(sys.argv[1]), 0) as folder:
    (folder / "patient").write_text("DOE")
    print(folder, flush=True)
    time.sleep(60)
"""


def held(base: Path) -> tuple[subprocess.Popen, Path]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(base)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    return process, Path(process.stdout.readline().strip())


def test_the_folder_goes_at_the_end_and_when_its_process_is_killed(tmp_path):
    with private_folder(tmp_path, 0) as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "patient").write_text("DOE")
    assert list(tmp_path.iterdir()) == []
    process, folder = held(tmp_path)
    remove_stale(tmp_path)
    assert (folder / "patient").exists()
    process.kill()
    process.wait()
    process.stdout.close()
    until(lambda: not folder.exists(), 5)


def test_what_was_killed_with_its_guard_goes_at_the_next_start(tmp_path):
    left, young, other = (tmp_path / f"{PREFIX}{name}" for name in ("left", "young", "other"))
    for folder in (left, young):
        folder.mkdir()
        (folder / "patient").write_text("DOE")
    (left / LOCK).touch()
    other.symlink_to(ROOT)
    with private_folder(tmp_path, 0):
        assert not left.exists()
        assert young.exists()
        os.utime(young, (time.time() - 2 * scratch.YOUNG,) * 2)
        remove_stale(tmp_path)
        assert not young.exists()
    assert (ROOT / "README.md").exists()


def test_too_little_room_is_said_before_anything_is_made(tmp_path):
    with pytest.raises(UserError, match="MiB free, and the limits need"), private_folder(tmp_path, 1 << 60):
        pass
    with pytest.raises(UserError, match="is no folder"), private_folder(tmp_path / "none", 0):
        pass
    assert list(tmp_path.iterdir()) == []
