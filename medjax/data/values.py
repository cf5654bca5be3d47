"""Stored values: which dtypes travel, what is no number, and physical units back into a file's dtype."""

from pathlib import Path

import numpy as np

from medjax.types import UserError


def one_line(error: BaseException) -> str:
    """What another library says went wrong, on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def native(path: Path, stored: np.ndarray) -> np.ndarray:
    """`stored` in this machine's byte order and a dtype that devices take: int8..int32, uint8..uint32, float32.

    Raises UserError for complex numbers and for what is no number.
    """
    if stored.dtype.kind == "c":
        raise UserError(path, "holds complex numbers; give the magnitude, or k-space to a task that reads it")
    if stored.dtype.kind not in "biuf":
        raise UserError(path, f"holds {stored.dtype} data; give numbers")
    if stored.dtype.kind == "b":
        return stored.astype(np.uint8)
    if stored.dtype.kind in "iu" and stored.dtype.itemsize == 8:
        low, high = stored.min(), stored.max()
        fits = low >= np.iinfo(np.int32).min and high <= np.iinfo(np.int32).max
        return stored.astype(np.int32 if fits else np.float32)
    if stored.dtype.kind == "f":
        return stored.astype(np.float32, copy=False)
    return stored.astype(stored.dtype.newbyteorder("="), copy=False)


def finite(path: Path, stored: np.ndarray) -> None:
    """Raises UserError where values are NaN or infinite, with their count."""
    if stored.dtype.kind == "f":
        bad = stored.size - int(np.count_nonzero(np.isfinite(stored)))
        if bad:
            raise UserError(path, f"{bad} of {stored.size} values are NaN or infinite; fill them before training")


def quantized(image: np.ndarray, slope: float, intercept: float, dtype: np.dtype) -> np.ndarray:
    """Physical units as stored values of `dtype`: integers are rounded, and clipped to what the dtype holds."""
    dtype = np.dtype(np.uint8) if dtype.kind == "V" else dtype
    stored = (np.asarray(image, np.float64) - intercept) / slope
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        stored = np.clip(np.rint(stored), limits.min, limits.max)
    return stored.astype(dtype)


def grey(colour: np.ndarray, tolerance: int = 8, share: float = 0.05) -> np.ndarray:
    """`(..., C)` with one channel where it is a grey image stored in colour, else the three colours.

    Grey is what has equal channels, but for `share` of the pixels: coloured marks on a radiograph, JPEG's rounding.
    """
    colour = colour[..., :3]
    if colour.shape[-1] < 3:
        return colour[..., :1]
    red, green, blue = (colour[..., i] for i in range(3))
    if np.array_equal(red, green) and np.array_equal(green, blue):
        return np.ascontiguousarray(colour[..., :1])
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    return luminance(colour) if np.mean(spread > tolerance) <= share else np.ascontiguousarray(colour)


def luminance(colour: np.ndarray) -> np.ndarray:
    """`(..., 3)` as `(..., 1)` of the same dtype, ITU-R BT.601."""
    light = colour @ np.array([[0.299], [0.587], [0.114]])
    return (np.rint(light) if colour.dtype.kind in "iu" else light).astype(colour.dtype)
