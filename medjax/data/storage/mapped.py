"""Arrays that lie in files and are read, or mapped, when they are looked at.

A numpy memmap holds a file descriptor and a map for as long as it lives, and a data set of a hundred thousand images
would run out of both. These hold neither: a few hundred maps are open at a time, and a worker process is sent the name
of the file.
"""

import math
import os
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from medjax.types import UserError

OPEN = 256


class Stored:
    """A read-only array that lies in a file; indexing it, or `np.asarray`, reads it. To a process it is sent by name.

    `whole` reads it, and raises UserError where the file is gone or was cut off since it was found.
    """

    code: str
    shape: tuple[int, ...]

    @property
    def version(self) -> str:
        """What changes with the source that it was read from, "" where that isn't known."""
        return ""

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.code)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        return self.whole()[index]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.whole(), dtype, copy=copy)

    def whole(self) -> np.ndarray:
        raise NotImplementedError


@dataclass(frozen=True)
class Mapped(Stored):
    """An array inside a file as it is, in C order; indexing it gives a view of the map."""

    filename: str
    offset: int
    code: str
    shape: tuple[int, ...]
    version: str = ""

    def rows(self, start: int, stop: int) -> "Mapped":
        """Entries `start` to `stop` of the first axis, which lie in the file as well."""
        size = self.size // self.shape[0] * self.dtype.itemsize
        return replace(self, offset=self.offset + start * size, shape=(stop - start, *self.shape[1:]))

    def whole(self) -> np.ndarray:
        """The map, of the file that has the name now; to read past the end of one that was cut off would kill."""
        needed = self.offset + self.size * self.dtype.itemsize
        try:
            stat = os.stat(self.filename)
            if stat.st_size < needed:
                raise UserError(self.filename, f"is cut off: {stat.st_size} of {needed} bytes; copy it again (what lies in "
                                "the cache, the next run unpacks anew)")
            return _open(self, stat.st_ino)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise UserError(self.filename, f"can't be read any more ({why}); it was there when the run began") from error


def mapped(array: np.ndarray | Stored) -> Stored | None:
    """Where `array` lies if it is all of a mapped file (a new axis does no harm), else None."""
    if isinstance(array, Stored):
        return array
    whole = array
    while isinstance(whole.base, np.ndarray):
        whole = whole.base
    if not isinstance(whole, np.memmap) or whole.size != array.size or not array.flags.c_contiguous:
        return None
    return Mapped(str(whole.filename), whole.offset, array.dtype.str, array.shape)


@lru_cache(OPEN)
def _open(place: Mapped, inode: int) -> np.ndarray:
    return np.asarray(np.memmap(place.filename, place.dtype, "r", place.offset, place.shape))
