"""Files that appear whole or not at all."""

import os
from pathlib import Path

import pytest

from medjax.files import atomic, write_atomically


def test_a_file_appears_whole_with_its_name_and_the_usual_permissions(tmp_path):
    target = tmp_path / "scan.nii.gz"
    with atomic(target) as unfinished:
        assert unfinished.parent == tmp_path
        assert unfinished.name.startswith(".")
        assert unfinished.name.endswith(".nii.gz")
        unfinished.write_bytes(b"new")
        assert not target.exists()
    assert target.read_bytes() == b"new"
    (tmp_path / "usual").touch()
    assert target.stat().st_mode == (tmp_path / "usual").stat().st_mode
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scan.nii.gz", "usual"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_failure_leaves_what_was_there(tmp_path, error):
    target = tmp_path / "a.png"
    target.write_bytes(b"old")

    def fail():
        with atomic(target) as unfinished:
            unfinished.write_bytes(b"half")
            raise error

    with pytest.raises(error):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert target.read_bytes() == b"old"


def test_no_name_of_a_user_is_taken(tmp_path):
    """Another file may have any name, and two may be written under one name at a time."""
    mine = tmp_path / "a.json.partial"
    mine.write_text("mine")
    with atomic(tmp_path / "a.json") as first, atomic(tmp_path / "a.json") as second:
        assert first != second
        first.write_text("1")
        second.write_text("2")
    write_atomically(tmp_path / "b.json", "é")
    assert mine.read_text() == "mine"
    assert (tmp_path / "a.json").read_text() == "1"
    assert (tmp_path / "b.json").read_bytes() == "é".encode()


def test_the_longest_name_can_be_written(tmp_path):
    longest = "a." + "x" * (os.pathconf(tmp_path, "PC_NAME_MAX") - 2)
    write_atomically(tmp_path / longest, "x")
    assert Path(tmp_path, longest).read_text() == "x"
