"""Multi-coil Cartesian MRI: coil sensitivities, centred orthonormal FFT, sampling mask (Pruessmann et al., 1999)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, Key

from medjax.types import pytree

Image = Complex[Array, "b *space 1"]
Measured = Complex[Array, "b coils *space"]


@pytree
class Sense:
    """`maps` `(B or 1, coils, *space)`, `mask` `(B or 1, 1, *space)`; the norm is 1 where the maps' squares sum to 1."""

    maps: Complex[Array, "b coils *space"]
    mask: Float[Array, "b 1 *space"]

    def __call__(self, x: Image) -> Measured:
        """K-space of every coil, `(B, coils, *space)`, DC in the middle, 0 where nothing is sampled."""
        return self.mask * to_kspace(self.maps * jnp.moveaxis(x, -1, 1))

    def adjoint(self, y: Measured) -> Image:
        """The exact conjugate transpose: coil images combined by their sensitivities."""
        combined = (jnp.conj(self.maps) * to_image(self.mask * y)).sum(1)
        return combined[..., None]

    def init(self, y: Measured) -> Image:
        """The zero-filled image."""
        return self.adjoint(y)


def to_kspace(images: Complex[Array, "b coils *space"]) -> Measured:
    """Centred orthonormal FFT over all axes but the first two."""
    axes = tuple(range(2, images.ndim))
    return jnp.fft.fftshift(jnp.fft.fftn(jnp.fft.ifftshift(images, axes), axes=axes, norm="ortho"), axes)


def to_image(kspace: Measured) -> Complex[Array, "b coils *space"]:
    """The inverse of `to_kspace`."""
    axes = tuple(range(2, kspace.ndim))
    return jnp.fft.fftshift(jnp.fft.ifftn(jnp.fft.ifftshift(kspace, axes), axes=axes, norm="ortho"), axes)


def coil_ring(coils: int, shape: tuple[int, ...], distance: float = 1.2) -> Complex[Array, "1 coils *space"]:
    """Sensitivities of loops on a ring around the last two axes, in half-widths from the middle; squares sum to 1."""
    y, x = jnp.meshgrid(*(jnp.linspace(-1, 1, n) for n in shape[-2:]), indexing="ij")
    angle = 2 * jnp.pi * jnp.arange(coils)[:, None, None] / coils
    dy, dx = y[None] - distance * jnp.sin(angle), x[None] - distance * jnp.cos(angle)
    maps = jnp.exp(1j * jnp.arctan2(dx, -dy)) / (jnp.square(dx) + jnp.square(dy))
    maps = maps / jnp.sqrt(jnp.square(jnp.abs(maps)).sum(0, keepdims=True))
    return jnp.broadcast_to(maps.reshape(1, coils, *(1,) * (len(shape) - 2), *shape[-2:]), (1, coils, *shape))


def centre_images(kspace: Measured, size: tuple[int, ...]) -> Complex[Array, "b coils *space"]:
    """Coil images from the middle `size` of k-space, smoothly cut."""
    for axis, (n, keep) in enumerate(zip(kspace.shape[2:], size, strict=True), start=2):
        far = jnp.abs(jnp.arange(n) - n // 2) / (keep / 2)
        taper = jnp.where(far < 1, 0.5 + 0.5 * jnp.cos(jnp.pi * far), 0)
        kspace = kspace * taper.reshape(tuple(-1 if a == axis else 1 for a in range(kspace.ndim)))
    return to_image(kspace)


def relative_maps(coil_images: Complex[Array, "b coils *space"], floor: float = 0.03) -> Complex[Array, "b coils *space"]:
    """Sensitivities relative to the coils' summed squares (Roemer et al., 1990), with the phase of the first coil taken off.

    Where there is less than `floor` of the brightest signal they fade to 0.
    """
    size = jnp.sqrt(jnp.square(jnp.abs(coil_images)).sum(1, keepdims=True))
    least = floor * size.max(tuple(range(1, size.ndim)), keepdims=True)
    first = coil_images[:, :1]
    phase = jnp.conj(first) / jnp.maximum(jnp.abs(first), 1e-12)
    return coil_images * phase / jnp.maximum(size, least)


def line_mask(key: Key[Array, ""], shape: tuple[int, ...], acceleration: float, centre: float,
              kind: str) -> Float[Array, "1 *space"]:
    """Which lines (along all axes but the last) are sampled: the middle part `centre`, and as many more as the acceleration
    leaves, "random" or "equispaced" from a random start; or "points" at random in the last two axes."""
    n = shape[-1]
    middle = jnp.abs(jnp.arange(n) - n // 2) < centre * n / 2
    if kind == "points":
        rows = shape[-2]
        middle = middle[None] & (jnp.abs(jnp.arange(rows) - rows // 2) < centre * rows / 2)[:, None]
    rest = jnp.clip((1 / acceleration - middle.mean()) / (1 - middle.mean()), 0.01, 1)
    if kind == "equispaced":
        start = jax.random.uniform(key)
        more = jnp.floor((jnp.arange(n) + start / rest) * rest) > jnp.floor((jnp.arange(n) - 1 + start / rest) * rest)
    else:
        more = jax.random.uniform(key, middle.shape) < rest
    sampled = (middle | more).astype(jnp.float32)
    return jnp.broadcast_to(sampled.reshape(*(1,) * (len(shape) - sampled.ndim), *sampled.shape), shape)[None]
