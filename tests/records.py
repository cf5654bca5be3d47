"""Records whose voxels say where they are."""

import numpy as np

from medjax.types import Record, Region


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
