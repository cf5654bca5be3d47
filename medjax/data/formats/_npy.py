"""`.npy` files as they lie, mapped; nothing in them is run."""

import tokenize
from pathlib import Path

import numpy as np

from medjax.data.values import one_line
from medjax.types import UserError

DAMAGE = (OSError, ValueError, EOFError, SyntaxError, TypeError, KeyError, OverflowError, MemoryError, RecursionError,
          tokenize.TokenError)


def load(path: Path) -> np.ndarray:
    """The array, mapped from the file. Raises UserError for a damaged file, or one of Python objects."""
    try:
        with np.errstate(all="ignore"):  # sizes whose product is too large for numpy
            return np.lib.format.open_memmap(path, mode="r")
    except DAMAGE as error:
        raise UserError(path, f"damaged or no .npy array: {one_line(error)}") from error


def dtype_of(path: Path) -> np.dtype | None:
    """The dtype that a file's header names, None where it can't be read."""
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            return read(file)[2]
    except DAMAGE:
        return None
