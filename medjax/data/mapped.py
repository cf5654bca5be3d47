"""Arrays that lie in files and are mapped when they are looked at.

A numpy memmap holds a file descriptor and a map for as long as it lives, and a data set of a hundred thousand images
would run out of both. These hold neither: a few hundred maps are open at a time, and a worker process is sent the name
of the file.
"""

import os
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from medjax.types import UserError

OPEN = 256


@dataclass(frozen=True)
class Mapped:
    """A read-only array inside a file, in C order; indexing it gives a view of the map, `np.asarray` the whole.

    Both raise UserError where the file is gone or was cut off since it was found.
    """

    filename: str
    offset: int
    code: str
    shape: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.code)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        self._check()
        return _open(self)[index]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        self._check()
        return np.array(_open(self), dtype, copy=copy)

    def _check(self) -> None:
        """Raises UserError where the file is gone or too short: to read past the end of one that is mapped kills."""
        try:
            there = os.stat(self.filename).st_size
        except OSError as error:
            raise UserError(self.filename, f"can't be read any more ({error.strerror}); it was there when the run "
                            "began") from None
        needed = self.offset + self.size * self.dtype.itemsize
        if there < needed:
            raise UserError(self.filename, f"is cut off: {there} of {needed} bytes; copy it again (the next run unpacks "
                            "anew what lies in the cache)")


def mapped(array: np.ndarray | Mapped) -> Mapped | None:
    """Where `array` lies if it is all of a mapped file (a new axis does no harm), else None."""
    if isinstance(array, Mapped):
        return array
    whole = array
    while isinstance(whole.base, np.memmap):
        whole = whole.base
    if not isinstance(whole, np.memmap) or whole.size != array.size or not array.flags.c_contiguous:
        return None
    return Mapped(str(whole.filename), whole.offset, array.dtype.str, array.shape)


@lru_cache(OPEN)
def _open(place: Mapped) -> np.ndarray:
    return np.asarray(np.memmap(place.filename, place.dtype, "r", place.offset, place.shape))
