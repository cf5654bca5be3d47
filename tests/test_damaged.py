"""Damaged variants of every format: each is read, or refused in one line. benchmarks/fuzz.py makes as many as one likes."""

import pytest

from benchmarks.fuzz_files import draw, variants
from medjax.data import io
from medjax.types import UserError

EACH = {"image": 8, "kspace": 8, "sinogram": 3}  # variants of a file; back-projection takes a moment
SLOW = (".h5",)  # HDF5 has a process of its own for each: tests.test_kspace_formats


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    draw(folder)
    return folder


def tried(path, kind: str) -> str:
    """What comes of reading a file; a warning is an error here."""
    try:
        io.read(path, kind)
    except UserError as error:
        return "refused" if "\n" not in str(error) else repr(error)
    return "read"


@pytest.mark.parametrize("kind", ["image", "kspace", "sinogram"])
def test_damaged_files_are_read_or_refused_in_one_line(drawn, tmp_path, kind):
    outcomes = []
    for study in io.discover(drawn, kind=kind):
        assert tried(study.paths[0], kind) == "read", study.id
        if study.suffix in SLOW:
            continue
        for path in study.paths:
            for other in study.paths:
                (tmp_path / other.name).write_bytes(other.read_bytes())
            for data in variants(path, EACH[kind], seed=7):
                (tmp_path / path.name).write_bytes(data)
                outcomes.append(tried(tmp_path / study.paths[0].name, kind))
    assert set(outcomes) == {"read", "refused"}
