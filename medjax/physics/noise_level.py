"""How strong the noise of a measurement is, estimated from the measurement alone."""

import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

OUTER = 0.75  # of the way from the middle of k-space to its edge: beyond, there is little but noise
NORMAL_MEDIAN = 0.6745  # of the absolute value of a normal number of unit variance


def kspace_noise(y: Complex[Array, "b coils *space"]) -> Float[Array, " b"]:
    """The standard deviation of the noise of k-space in real and imaginary part each, its origin at index n // 2.

    From the median power of what was measured in its outermost part: of an image with much detail there it is an upper
    bound. NaN where nothing was measured there.
    """
    outside = jnp.zeros((1,) * y.ndim, bool)
    for axis, n in enumerate(y.shape[2:], start=2):
        far = jnp.abs(jnp.arange(n) - n // 2) >= OUTER * (n // 2)
        outside = outside | far.reshape(tuple(-1 if a == axis else 1 for a in range(y.ndim)))
    power = jnp.square(jnp.abs(y))
    counted = jnp.where(outside & (power > 0), power, jnp.nan)
    # Power of complex normal noise is exponentially distributed, with the mean 2 sigma^2.
    return jnp.sqrt(jnp.nanmedian(counted, tuple(range(1, y.ndim))) / (2 * jnp.log(2.0)))


def photons_of(p: Float[Array, "b views detectors c"]) -> Float[Array, " b"]:
    """The photons that reach an unattenuated detector element, from the noise of line integrals `p`: `exp(p) / photons`.

    The noise is what second differences between neighbouring elements show: their median absolute value, as that of an edge
    of the object is rare. Read-out noise counts as photon noise.
    """
    variance = jnp.exp(p)
    left, middle, right = p[:, :, :-2], p[:, :, 1:-1], p[:, :, 2:]
    expected = variance[:, :, :-2] + 4 * variance[:, :, 1:-1] + variance[:, :, 2:]
    found = jnp.abs(left - 2 * middle + right) / jnp.sqrt(expected)
    return jnp.square(NORMAL_MEDIAN / jnp.median(found, (1, 2, 3)))
