"""Stored values: which dtypes travel, what is no number, and physical units back into a file's dtype."""

from pathlib import Path

import numpy as np

from medjax.types import UserError

DEFLATE = 1032
"""The bytes that deflate (gzip, zlib, PNG, HDF5) packs into one at most."""
EXACT_IN_FLOAT64 = 1 << 53
ROUNDING = 8
"""By how much the channels of grey pixels may differ for the rounding of codecs."""
COLOURED_SHARE = 0.05
"""The share of its pixels that a grey image may have in colour."""


def one_line(error: BaseException) -> str:
    """What another library says went wrong, on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def native(path: Path, stored: np.ndarray) -> np.ndarray:
    """`stored` in this machine's byte order and a dtype that devices take: int8..int32, uint8..uint32, float32.

    Raises UserError for complex numbers, for what is no number, and for numbers that 32 bits can't hold.
    """
    if stored.dtype.kind == "c":
        raise UserError(path, "holds complex numbers; give the magnitude, or k-space to a task that reads it")
    if stored.dtype.kind not in "biuf":
        raise UserError(path, f"holds {stored.dtype} data; give numbers")
    if stored.dtype.kind == "b":
        return stored.astype(np.uint8)
    if stored.dtype.kind in "iu" and stored.dtype.itemsize == 8:
        return _in_32_bits(path, stored)
    if stored.dtype.kind == "f":
        with np.errstate(over="ignore", invalid="ignore"):
            single = stored.astype(np.float32, copy=False)
        if stored.dtype.itemsize > 4 and np.isinf(single).any() and not np.isinf(stored).any():
            raise UserError(path, f"holds values up to {np.abs(stored).max():.3g}, beyond float32; rescale them")
        return single
    return stored.astype(stored.dtype.newbyteorder("="), copy=False)


def _in_32_bits(path: Path, stored: np.ndarray) -> np.ndarray:
    """64-bit integers as int32, uint32 or float32, whichever holds them exactly."""
    if not stored.size:
        return stored.astype(np.int32)
    low, high = int(stored.min()), int(stored.max())
    for dtype in (np.int32, np.uint32):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return stored.astype(dtype)
    single = stored.astype(np.float32)
    if not np.array_equal(single.astype(np.float64), stored.astype(np.float64)) or max(-low, high) > EXACT_IN_FLOAT64:
        raise UserError(path, f"holds whole numbers from {low} to {high}, which 32 bits can't hold; rescale them")
    return single


def possible(path: Path, claimed: int, stored: int, ratio: int = 1) -> None:
    """Raises UserError where `claimed` bytes can't be in `stored` bytes of a file, packed `ratio` to 1 at most.

    Readers ask it before they take memory, so that a damaged or malicious header costs nothing.
    """
    if claimed > stored * ratio:
        packed = "" if ratio == 1 else f", even packed {ratio} to 1"
        raise UserError(path, f"damaged: its header claims {claimed} bytes, {stored} bytes can't hold them{packed}")


def finite(path: Path, stored: np.ndarray, slope: float = 1.0, intercept: float = 0.0) -> None:
    """Raises UserError where values are NaN or infinite, with their count, or `slope` and `intercept` make them so."""
    if stored.dtype.kind == "f":
        bad = stored.size - int(np.count_nonzero(np.isfinite(stored)))
        if bad:
            raise UserError(path, f"{bad} of {stored.size} values are NaN or infinite; fill them before training")
    if (slope, intercept) != (1.0, 0.0):
        reach = abs(slope) * max(abs(float(stored.min())), abs(float(stored.max()))) + abs(intercept)
        if not reach <= float(np.finfo(np.float32).max) or slope == 0:
            raise UserError(path, f"its slope {slope:g} and intercept {intercept:g} leave one value, or go beyond float32")


def quantized(image: np.ndarray, slope: float, intercept: float, dtype: np.dtype) -> np.ndarray:
    """Physical units as stored values of `dtype`: integers are rounded; what the dtype can't hold is clipped."""
    if np.ndim(image) < 3:
        return _quantized(image, slope, intercept, dtype)
    stored = np.empty(image.shape, dtype)
    for index, part in enumerate(image):  # in float64, a whole volume would take four times its size
        stored[index] = _quantized(part, slope, intercept, dtype)
    return stored


def _quantized(image: np.ndarray, slope: float, intercept: float, dtype: np.dtype) -> np.ndarray:
    stored = (np.asarray(image, np.float64) - intercept) / slope
    if dtype.kind == "b":
        return stored >= 0.5
    limits = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
    lowest, highest = float(limits.min), float(limits.max)
    if dtype.kind in "iu":
        stored = np.rint(stored)
        if dtype.itemsize == 8:  # the largest 64-bit integer rounds up in float64, to one that is too large
            highest = np.nextafter(highest, 0)
    return np.clip(stored, lowest, highest).astype(dtype)


def grey(colour: np.ndarray) -> np.ndarray:
    """`(..., C)` with one channel where it is a grey image stored in colour, else the three colours.

    Grey is what has equal channels, but for `COLOURED_SHARE` of the pixels: coloured marks on a radiograph, JPEG's rounding.
    """
    colour = colour[..., :3]
    if colour.shape[-1] < 3:
        return colour[..., :1]
    red, green, blue = (colour[..., i] for i in range(3))
    if np.array_equal(red, green) and np.array_equal(green, blue):
        return np.ascontiguousarray(colour[..., :1])
    return luminance(colour) if np.mean(coloured(colour)) <= COLOURED_SHARE else np.ascontiguousarray(colour)


def coloured(colour: np.ndarray) -> np.ndarray:
    """Where the channels of `(..., C)` (red, green, blue) differ by more than codecs round, `(...)` bool."""
    red, green, blue = (colour[..., i] for i in range(3))
    return np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue) > ROUNDING


def luminance(colour: np.ndarray) -> np.ndarray:
    """`(..., 3)` as `(..., 1)` of the same dtype, ITU-R BT.601."""
    light = colour @ np.array([[0.299], [0.587], [0.114]])
    return (np.rint(light) if colour.dtype.kind in "iu" else light).astype(colour.dtype)
