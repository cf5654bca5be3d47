"""Contrast enhancement that needs no training, of one image `(*space, C)` in unit range, 2-D or 3-D, grey or colour.

Colour images are changed in brightness and keep their hue: all channels are scaled alike.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy import ndimage
from skimage import exposure

from medjax.classical._declared import grid, method

Image = Float[np.ndarray, "*space c"]
REC601 = (0.299, 0.587, 0.114)


@method("contrast")
def histogram(image: Image, strength: float = 1.0) -> Image:
    """Grey values so spread that each is as frequent as any other (Hummel, 1977)."""
    return _on_brightness(image, exposure.equalize_hist)


@method("contrast", grid(0.001, 0.1, 5))
def clahe(image: Image, strength: float = 0.01) -> Image:
    """Contrast-limited adaptive histogram equalisation (Zuiderveld, 1994) over tiles of an eighth of each axis.

    `strength` is the clip limit.
    """
    return _on_brightness(image, lambda grey: exposure.equalize_adapthist(grey, clip_limit=strength))


@method("contrast")
def retinex(image: Image, strength: float = 1.0, sizes: tuple[float, ...] = (0.03, 0.1, 0.3)) -> Image:
    """Multi-scale retinex: the difference of the logarithm from its means over three `sizes` (Jobson et al., 1997).

    The sizes are fractions of the longest axis. The result is stretched from its 1st to its 99th percentile.
    """
    def detail_of(grey: np.ndarray) -> np.ndarray:
        light = np.log(grey + 0.01)
        around = [np.log(ndimage.gaussian_filter(grey, size * max(grey.shape)) + 0.01) for size in sizes]
        detail = light - np.mean(around, axis=0)
        low, high = np.percentile(detail, (1, 99))
        return (detail - low) / max(high - low, 1e-6)

    return _on_brightness(image, detail_of)


@method("contrast", (0.4, 0.5, 0.6, 0.7, 0.8, 1.0))
def stretch(image: Image, strength: float = 0.5) -> Image:
    """The range up to the 99.9th percentile stretched to 0 … 1, then the power `strength` of it (gamma correction)."""
    top = max(float(np.percentile(image, 99.9)), 1e-6)
    return np.power(np.clip(image / top, 0, 1), strength).astype(np.float32)


@method("contrast", (0.3, 0.4, 0.5, 0.55, 0.6, 0.64, 0.68, 0.72, 0.76, 0.8, 0.9))
def levels(image: Image, strength: float = 0.64) -> Image:
    """As `stretch`, with the power for each image that puts its 95th percentile at `strength`: dark ones are lifted more."""
    top, bright = np.maximum(np.percentile(image, (99.9, 95)), 1e-6)
    power = np.log(strength) / np.log(min(bright / top, 0.999))
    return stretch(image, float(np.clip(power, 0.2, 3)))


def _on_brightness(image: Image, change: Callable[[np.ndarray], np.ndarray]) -> Image:
    image = np.clip(np.asarray(image, np.float64), 0, 1)
    brightness = image @ np.array(REC601) if image.shape[-1] == 3 else image.mean(-1)
    if brightness.min() == brightness.max():
        return image.astype(np.float32)
    gain = np.clip(change(brightness), 0, 1)[..., None] / np.maximum(brightness, 1e-3)[..., None]
    return np.clip(image * gain, 0, 1).astype(np.float32)
