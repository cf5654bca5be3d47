"""Records whose voxels say where they are, and records of files."""

from pathlib import Path

import numpy as np
import pytest

from medjax.data import io
from medjax.types import Record, Region, UserError


def numbered(shape: tuple[int, ...], name: str = "a", offset: int = 0, **given) -> Record:
    """A record in which every voxel's value says where it is."""
    size = int(np.prod(shape))
    image = np.arange(offset, offset + size, dtype=np.int32).reshape(*shape, 1)
    return Record(image, name, given.pop("subject", name), **given)


def regions_of(*records: Record) -> list[Region]:
    return [Region.whole(record) for record in records]


def equal(a: dict, b: dict) -> bool:
    """Whether two batches are the same, number by number; a voxel size that is unknown is NaN in both."""
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key], equal_nan=np.asarray(a[key]).dtype.kind == "f")
                                        for key in a)


def only(path: Path, kind: str = "image") -> Record:
    """The one record of a file or folder."""
    (record,) = io.read(path, kind=kind)
    return record


def study(path: Path) -> io.Study:
    """The one study of a file or folder."""
    (found,) = io.discover(path)
    return found


def units(record: Record) -> np.ndarray:
    """The values of a record in units, float64."""
    return record.image.astype(np.float64) * record.slope + record.intercept


def error_of(path: Path) -> str:
    """What is said of a file that can't be read: one line."""
    with pytest.raises(UserError) as caught:
        io.read(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)
