"""Interpolation to a finer grid by whole factors, of one image `(*space, C)`, 2-D or 3-D: super-resolution baselines.

Grids are aligned by their outer edges, so a coarse pixel lies in the middle of its block of fine ones.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from PIL import Image as Pillow
from scipy import ndimage

from medjax.classical._declared import method
from medjax.types import UserError

Image = Float[np.ndarray, "*space c"]
Fine = Float[np.ndarray, "*fine c"]


@method("interpolate")
def bicubic(image: Image, factor: int | Sequence[int], strength: float = 1.0) -> Fine:
    """Cubic convolution (Keys 1981, a = -0.5)."""
    return _resize(image, factor, Pillow.Resampling.BICUBIC)


@method("interpolate")
def lanczos(image: Image, factor: int | Sequence[int], strength: float = 1.0) -> Fine:
    """Windowed sinc with three lobes (Lanczos; Duchon 1979)."""
    return _resize(image, factor, Pillow.Resampling.LANCZOS)


@method("interpolate")
def spline(image: Image, factor: int | Sequence[int], strength: float = 1.0) -> Fine:
    """Cubic B-spline that passes through the pixels (Unser 1999)."""
    zoom = (*_factors(image, factor), 1)
    return ndimage.zoom(image, zoom, order=3, mode="grid-mirror", grid_mode=True).astype(image.dtype)


def _resize(image: Image, factor: int | Sequence[int], method: Pillow.Resampling) -> Fine:
    """Separable: Pillow resamples two axes at a time, in float32."""
    made = image
    for axis, f in enumerate(_factors(image, factor)):
        if f > 1:
            rows = np.moveaxis(made, axis, -1)
            plane = Pillow.fromarray(np.ascontiguousarray(rows.reshape(-1, rows.shape[-1]), np.float32))
            plane = plane.resize((rows.shape[-1] * f, plane.height), method)
            made = np.moveaxis(np.asarray(plane).reshape(*rows.shape[:-1], -1), -1, axis).astype(image.dtype)
    return made


def _factors(image: Image, factor: int | Sequence[int]) -> tuple[int, ...]:
    factors = (factor,) * (image.ndim - 1) if isinstance(factor, int) else tuple(factor)
    if len(factors) != image.ndim - 1:
        raise UserError("factor", f"{factors} for {image.ndim - 1} spatial axes; give one factor per axis")
    return factors
