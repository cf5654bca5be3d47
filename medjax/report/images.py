"""Images inside a page: values in 4096 steps as compressed text, which `images.js` reads and draws."""

import base64
import zlib

import numpy as np

LEVELS = 4095  # of an image's values over their range: 12 bits, as scanners store them
CT_WINDOWS = {"lung": (-600, 1500), "soft tissue": (40, 400), "bone": (400, 1800)}
"""Level and width in HU that a reader of CT can choose."""


def pack(image: np.ndarray, span: tuple[float, float], anatomical: bool) -> tuple[str, tuple[int, ...]]:
    """An image `(H, W, C)` or `(D, H, W, C)` as text, and its shape `(D, H, W, C)`: 12-bit steps over `span`, each less the
    one before it modulo 2^16, the high bytes before the low ones; zlib, base64.

    What lies beyond `span` is cut off. What `anatomical` means is said at `medjax.report.pictures.Panel`.
    """
    low, high = span
    values = np.asarray(image, np.float64)
    values = values[None] if values.ndim == 3 else values
    if anatomical:
        values = values[:, ::-1, ::-1]
    unit = np.clip(np.nan_to_num((values - low) / (high - low)), 0, 1)
    levels = (unit * LEVELS).round().astype(np.uint16).ravel()
    steps = np.diff(levels, prepend=np.uint16(0))
    split = np.concatenate([(steps >> 8).astype(np.uint8), (steps & 255).astype(np.uint8)])
    return base64.b64encode(zlib.compress(split.tobytes(), 6)).decode(), values.shape
