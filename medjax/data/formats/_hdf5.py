"""HDF5 files, opened so that nothing outside them is read and no more memory is taken than they can fill."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from medjax.data.values import DEFLATE, one_line, possible
from medjax.types import UserError

DAMAGE = (OSError, ValueError, TypeError, KeyError, RuntimeError, OverflowError, MemoryError, AttributeError)


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """The file, for reading. What HDF5 says is wrong, here or inside of the `with`, becomes a UserError."""
    try:
        with h5py.File(path, "r") as file:
            yield file
    except DAMAGE as error:
        raise UserError(path, f"damaged, or no HDF5 file: {one_line(error)}") from error


def holds(path: Path, name: str) -> bool:
    """Whether the file has a data set or group `name`; False for what can't be opened."""
    try:
        with h5py.File(path, "r") as file:
            return name in file
    except DAMAGE:
        return False


def dataset(path: Path, group: h5py.Group, name: str) -> h5py.Dataset:
    """A data set that lies in the file itself. Raises UserError where it doesn't, or claims what the file can't hold."""
    if not isinstance(group.get(name, getlink=True), h5py.HardLink) or not isinstance(group[name], h5py.Dataset):
        raise UserError(path, f"has no data set {name}, only {', '.join(group) or 'nothing'} (links to others don't count)")
    found = group[name]
    if found.is_virtual or found.external:
        raise UserError(path, f"has the values of {name} in other files; give one that holds them")
    claimed = math.prod(found.shape) * found.dtype.itemsize
    possible(path, claimed, found.id.get_storage_size(), DEFLATE if found.id.get_create_plist().get_nfilters() else 1)
    possible(path, found.id.get_storage_size(), path.stat().st_size)
    return found


def text(value: Any) -> bytes:
    """A string data set's or attribute's value, whatever way it is stored."""
    value = value.ravel()[0] if hasattr(value, "ravel") and getattr(value, "ndim", 0) else value
    return value if isinstance(value, bytes) else str(value).encode()
