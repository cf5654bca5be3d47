"""Contrast enhancement that needs no training, of one image `(*space, C)` in unit range, 2-D or 3-D, grey or colour.

Colour images are changed in brightness and keep their hue: all channels are scaled alike.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy import ndimage
from skimage import exposure

Image = Float[np.ndarray, "*space c"]
REC601 = (0.299, 0.587, 0.114)


def histogram_equalisation(image: Image) -> Image:
    """Grey values so spread that each is as frequent as any other (Hummel, 1977)."""
    return _on_brightness(image, exposure.equalize_hist)


def clahe(image: Image, clip: float = 0.01) -> Image:
    """Contrast-limited adaptive histogram equalisation (Zuiderveld, 1994) over tiles of an eighth of each axis."""
    return _on_brightness(image, lambda grey: exposure.equalize_adapthist(grey, clip_limit=clip))


def multiscale_retinex(image: Image, sizes: tuple[float, ...] = (0.03, 0.1, 0.3)) -> Image:
    """The logarithm's difference from its surroundings, averaged over three `sizes` of them (Jobson et al., 1997).

    The sizes are parts of the longest axis. The result is stretched from its 1st to its 99th percentile.
    """
    def retinex(grey: np.ndarray) -> np.ndarray:
        light = np.log(grey + 0.01)
        around = [np.log(ndimage.gaussian_filter(grey, size * max(grey.shape)) + 0.01) for size in sizes]
        detail = light - np.mean(around, axis=0)
        low, high = np.percentile(detail, (1, 99))
        return (detail - low) / max(high - low, 1e-6)

    return _on_brightness(image, retinex)


def _on_brightness(image: Image, change: Callable[[np.ndarray], np.ndarray]) -> Image:
    image = np.clip(np.asarray(image, np.float64), 0, 1)
    brightness = image @ np.array(REC601) if image.shape[-1] == 3 else image.mean(-1)
    if brightness.min() == brightness.max():
        return image.astype(np.float32)
    gain = np.clip(change(brightness), 0, 1)[..., None] / np.maximum(brightness, 1e-3)[..., None]
    return np.clip(image * gain, 0, 1).astype(np.float32)
