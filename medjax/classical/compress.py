"""Lossy compression that needs no training, of one 2-D image `(H, W, 1 or 3)` in unit range.

Each is read back at the best setting that takes at most `rate` bits for a pixel, or the worst one if none does.
"""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image as Pillow

from medjax.classical._declared import method

Image = Float[np.ndarray, "h w c"]
QUALITIES = range(1, 96)
RATIOS = np.geomspace(1000, 1, 121)  # of the sizes before and after


@method("compress")
def jpeg(image: Image, rate: float) -> Image:
    """JPEG of 8 bit."""
    return _best(image, rate, "jpeg", [{"quality": quality} for quality in QUALITIES])


@method("compress")
def jpeg2000(image: Image, rate: float) -> Image:
    """JPEG 2000 of 8 bit, with the lossy wavelet (Taubman & Marcellin, 2002)."""
    settings = [{"quality_mode": "rates", "quality_layers": [float(ratio)], "irreversible": True} for ratio in RATIOS]
    return _best(image, rate, "jpeg2000", settings)


def _best(image: Image, rate: float, codec: str, settings: Sequence[dict[str, Any]]) -> Image:
    """What is read back at the last of the `settings`, from small files to large ones, that is small enough."""
    low, high = 0, len(settings) - 1
    while low < high:
        middle = (low + high + 1) // 2
        fits = 8 * len(_encoded(image, codec, settings[middle])) <= rate * image[..., 0].size
        low, high = (middle, high) if fits else (low, middle - 1)
    with Pillow.open(io.BytesIO(_encoded(image, codec, settings[low]))) as file:
        return (np.asarray(file, np.float32) / 255).reshape(image.shape)


def _encoded(image: Image, codec: str, settings: dict[str, Any]) -> bytes:
    pixels = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
    file = io.BytesIO()
    Pillow.fromarray(pixels if pixels.shape[-1] == 3 else pixels[..., 0]).save(file, codec, **settings)
    return file.getvalue()
