"""Blur, decimation and missing pixels: operators on images `(B, H, W, C)` or `(B, D, H, W, C)`, with exact adjoints."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Inexact, PRNGKeyArray, Real

from medjax.ops.conv import conv
from medjax.ops.separable import correlate_axis, gaussian_taps, pad_axis
from medjax.types import UserError, pytree, static

Scalar = float | Real[Array, ""]
Image = Inexact[Array, "b *space c"]
Coarse = Inexact[Array, "b *coarse c"]

_LITTLE = 1e-2  # of the known pixels' weight, beside which a wider mean counts
_PAD_MODES = {"zero": "constant", "edge": "edge", "reflect": "symmetric", "wrap": "wrap"}


@pytree
class Blur:
    """Convolution by a point spread function; a separable one is kept as one kernel per axis.

    `kernels` are applied one after the other, each with one axis per spatial axis (odd sizes; a 1-D kernel along the
    first axis has shape `(k, 1)`). Outside the image lies what `boundary` says: "reflect" (edge pixel repeated),
    "edge", "wrap" or "zero". Make one with `Blur.gaussian`, `Blur.motion` or `Blur.kernel`.
    """

    kernels: tuple[Float[Array, "..."], ...]
    boundary: str = static(default="reflect")

    def __post_init__(self) -> None:
        if self.boundary not in _PAD_MODES:
            raise UserError("blur.boundary", f"no {self.boundary!r}; there is {', '.join(_PAD_MODES)}")

    @classmethod
    def gaussian(cls, sigma: Scalar, ndim: int = 2, *, radius: int | None = None, boundary: str = "reflect") -> "Blur":
        """A Gaussian of standard deviation `sigma` pixels; a traced `sigma` needs the `radius` of the support."""
        radius = max(1, math.ceil(4 * sigma)) if radius is None else radius
        taps = gaussian_taps(sigma, radius)
        shapes = [tuple(-1 if a == axis else 1 for a in range(ndim)) for axis in range(ndim)]
        return cls(tuple(taps.reshape(shape) for shape in shapes), boundary)

    @classmethod
    def motion(cls, length: Scalar, angle: Scalar, *, radius: int | None = None, boundary: str = "reflect") -> "Blur":
        """Even motion over `length` pixels at `angle` radians from the x (last) axis towards y, in 2-D.

        The path is spread over its pixels with bilinear weights; a traced `length` needs the `radius` of the support.
        """
        radius = math.ceil(length / 2) + 1 if radius is None else radius
        along = (jnp.arange(_MOTION_POINTS) + 0.5) / _MOTION_POINTS - 0.5
        grid = jnp.arange(-radius, radius + 1)[:, None]
        rows, columns = (jnp.maximum(0, 1 - jnp.abs(grid - (along * length * part)[None]))
                         for part in (jnp.sin(angle), jnp.cos(angle)))
        kernel = jnp.einsum("rp,cp->rc", rows, columns, precision="highest")
        return cls((kernel / kernel.sum(),), boundary)

    @classmethod
    def kernel(cls, kernel: Float[Array, "..."], *, boundary: str = "reflect") -> "Blur":
        """A given point spread function with one axis per spatial axis, odd sizes, centred; it is used as it is."""
        if any(n % 2 == 0 for n in kernel.shape):
            raise UserError("blur.kernel", f"sizes {kernel.shape} have no centre; give odd sizes")
        return cls((jnp.asarray(kernel),), boundary)

    def __call__(self, x: Image) -> Image:
        """The blurred image, of the same shape."""
        for kernel in self.kernels:
            x = _convolve(x, kernel, _PAD_MODES[self.boundary])
        return x

    def adjoint(self, y: Image) -> Image:
        """The exact transpose."""
        return jax.linear_transpose(self, y)(y)[0]

    def init(self, y: Image) -> Image:
        """The blurred image itself."""
        return y


@pytree
class Decimate:
    """A coarser grid: each coarse pixel is the average of the fine image under a PSF centred on it.

    `factor` fine pixels go to a coarse one, per spatial axis; image sizes are multiples of it. `psf` is "box" (block
    averages, a detector element) or "gaussian" (slice profile or optics of `fwhm` coarse pixels, up to 1.2, traceable).
    A coarse pixel lies in the middle of its block, so no half-pixel shift creeps in.
    """

    factor: tuple[int, ...] = static()
    psf: str = static(default="gaussian")
    fwhm: Scalar = 1.0

    def __post_init__(self) -> None:
        if self.psf not in ("box", "gaussian"):
            raise UserError("decimate.psf", f"no {self.psf!r}; there is box, gaussian")

    def __call__(self, x: Image) -> Coarse:
        """The coarse image `(B, *space / factor, C)`."""
        for axis, factor in self._axes(x, divide=True):
            taps = self._taps(factor)
            reach = (taps.shape[0] - factor) // 2
            x = correlate_axis(pad_axis(x, reach, reach, axis, "symmetric"), taps, axis, stride=factor)
        return x

    def adjoint(self, y: Coarse) -> Image:
        """The exact transpose: the fine image that each coarse pixel looked at."""
        return jax.linear_transpose(self, self._fine(y))(y)[0]

    def init(self, y: Coarse) -> Image:
        """The coarse image on the fine grid, by cubic interpolation (Keys 1981)."""
        for axis, factor in self._axes(y):
            y = _interpolate(y, factor, axis)
        return y

    def _fine(self, y: Image) -> jax.ShapeDtypeStruct:
        space = [n * f for n, f in zip(y.shape[1:-1], self.factor, strict=True)]
        return jax.ShapeDtypeStruct((y.shape[0], *space, y.shape[-1]), y.dtype)

    def _axes(self, x: Image, divide: bool = False) -> list[tuple[int, int]]:
        if len(self.factor) != x.ndim - 2:
            raise UserError("decimate.factor", f"{self.factor} for {x.ndim - 2} spatial axes; give one factor per axis")
        for size, factor in zip(x.shape[1:-1], self.factor, strict=True):
            if divide and size % factor:
                raise UserError("decimate.factor", f"{factor} does not divide the size {size}; crop or pad the image")
        return [(axis, factor) for axis, factor in enumerate(self.factor, start=1) if factor > 1]

    def _taps(self, factor: int) -> Float[Array, " k"]:
        if self.psf == "box":
            return jnp.full((factor,), 1 / factor)
        reach = math.ceil(1.2 * factor)
        t = jnp.arange(-reach, factor + reach) - (factor - 1) / 2
        weights = jnp.exp(-4 * math.log(2) * jnp.square(t / (factor * self.fwhm)))
        return weights / weights.sum()


@pytree
class Mask:
    """Keeps the pixels where `mask` (broadcastable to the image) is true, for inpainting."""

    mask: Bool[Array, "..."] | Real[Array, "..."]

    def __call__(self, x: Image) -> Image:
        """The image with the missing pixels at 0."""
        return x * self.mask.astype(x.dtype)

    def adjoint(self, y: Image) -> Image:
        """The same mask: the operator is its own transpose."""
        return self(y)

    def init(self, y: Image) -> Image:
        """Missing pixels from the known ones around them: Gaussian means, a wide one where the narrow finds little.

        Normalised convolution (Knutsson and Westin, CVPR 1993), from the mean of the whole image down to the neighbours'.
        """
        axes = tuple(range(1, y.ndim - 1))
        mask = jnp.broadcast_to(self.mask, y.shape).astype(y.dtype)
        known, weight = mask * y, mask
        fill = known.sum(axes, keepdims=True) / jnp.maximum(weight.sum(axes, keepdims=True), 1)
        for sigma in (6.0, 1.0):
            blur = Blur.gaussian(sigma, len(axes), radius=int(2 * sigma), boundary="zero")
            fill = (blur(known) + _LITTLE * fill) / (blur(weight) + _LITTLE)
        return known + (1 - mask) * fill


def random_pixels(key: PRNGKeyArray, shape: tuple[int, ...], keep: Scalar) -> Bool[Array, "*space 1"]:
    """A mask `(*shape, 1)` in which each pixel is known with probability `keep`."""
    return jax.random.uniform(key, (*shape, 1)) < keep


def random_boxes(key: PRNGKeyArray, shape: tuple[int, ...], count: int, size: int) -> Bool[Array, "*space 1"]:
    """A mask `(*shape, 1)` with `count` missing boxes of `size` pixels a side, anywhere inside, overlaps allowed."""
    if size > min(shape):
        raise UserError("inpaint.size", f"boxes of {size} do not fit into {shape}; make them smaller")
    last = jnp.asarray(shape) - size
    corners = jax.random.randint(key, (count, len(shape)), 0, last[None] + 1)
    missing = jnp.ones((count, *shape), bool)
    for axis, n in enumerate(shape):
        shift = jnp.arange(n)[None] - corners[:, axis, None]
        inside = (shift >= 0) & (shift < size)
        missing &= inside.reshape(count, *(n if a == axis else 1 for a in range(len(shape))))
    return ~missing.any(0)[..., None]


_MOTION_POINTS = 512


def _convolve(x: Image, kernel: Float[Array, "..."], mode: str) -> Image:
    """Convolution by one kernel: one axis by shifted slices, more by the convolution of one channel at a time."""
    if kernel.ndim != x.ndim - 2:
        raise UserError("blur.kernel", f"{kernel.ndim} axes for {x.ndim - 2} spatial axes; give one kernel axis each")
    kernel = jnp.flip(kernel).astype(x.dtype)
    long = [axis for axis, n in enumerate(kernel.shape, start=1) if n > 1]
    for axis in long:
        radius = kernel.shape[axis - 1] // 2
        x = pad_axis(x, radius, radius, axis, mode)
    if len(long) <= 1:
        return correlate_axis(x, kernel.ravel(), long[0]) if long else x * kernel.ravel()[0]
    channels_first = jnp.moveaxis(x, -1, 1)
    planes = channels_first.reshape(-1, *x.shape[1:-1], 1)
    planes = conv(planes, kernel[..., None, None], padding="VALID", precision="highest")
    return jnp.moveaxis(planes.reshape(*channels_first.shape[:2], *planes.shape[1:-1]), 1, -1)


def _interpolate(x: Image, factor: int, axis: int) -> Inexact[Array, "b *fine c"]:
    """Cubic convolution on a grid `factor` times finer, the pixel blocks aligned."""
    phases = []
    wide = pad_axis(x, 2, 2, axis, "symmetric")
    for phase in range(factor):
        offset = (phase + 0.5) / factor - 0.5
        taps = jnp.asarray([_keys(k - offset) for k in range(-2, 3)])
        phases.append(correlate_axis(wide, taps, axis))
    return jnp.stack(phases, axis + 1).reshape(*x.shape[:axis], x.shape[axis] * factor, *x.shape[axis + 1:])


def _keys(t: float, a: float = -0.5) -> float:
    t = abs(t)
    if t < 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * (t**3 - 5 * t**2 + 8 * t - 4) if t < 2 else 0.0
