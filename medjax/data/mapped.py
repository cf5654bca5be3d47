"""Arrays that lie in files: where, and how to open them again in another process without copying them."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Mapped:
    """A whole array inside a file, in C order."""

    filename: str
    offset: int
    dtype: str
    shape: tuple[int, ...]

    def open(self) -> np.ndarray:
        """The array, mapped read-only."""
        return np.memmap(self.filename, np.dtype(self.dtype), "r", self.offset, tuple(self.shape))


def mapped(array: np.ndarray) -> Mapped | None:
    """Where `array` lies if it is all of a mapped file (a new axis does no harm), else None."""
    whole = array
    while isinstance(whole.base, np.memmap):
        whole = whole.base
    if not isinstance(whole, np.memmap) or whole.size != array.size or not array.flags.c_contiguous:
        return None
    return Mapped(str(whole.filename), whole.offset, array.dtype.str, array.shape)


class Portable:
    """An array that is sent to another process as the place where it is mapped, if it is."""

    def __init__(self, array: np.ndarray):
        self.array = array

    def __getstate__(self) -> Mapped | np.ndarray:
        return mapped(self.array) or self.array

    def __setstate__(self, state: Mapped | np.ndarray) -> None:
        self.array = state.open() if isinstance(state, Mapped) else state
