"""Lossy compression that needs no training, of one 2-D image `(H, W, 1 or 3)` in unit range."""

import io

import numpy as np
from jaxtyping import Float
from PIL import Image as Pillow

from medjax.classical._declared import method

Image = Float[np.ndarray, "h w c"]
QUALITIES = (1, 95)


@method("compress")
def jpeg(image: Image, rate: float) -> Image:
    """JPEG of 8 bit, read back, at the best quality that takes at most `rate` bits for a pixel (the worst if none does)."""
    low, high = QUALITIES
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if 8 * len(_encoded(image, middle)) <= rate * image[..., 0].size else (low, middle - 1)
    with Pillow.open(io.BytesIO(_encoded(image, low))) as file:
        return (np.asarray(file, np.float32) / 255).reshape(image.shape)


def _encoded(image: Image, quality: int) -> bytes:
    pixels = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
    file = io.BytesIO()
    Pillow.fromarray(pixels if pixels.shape[-1] == 3 else pixels[..., 0]).save(file, "jpeg", quality=quality)
    return file.getvalue()
