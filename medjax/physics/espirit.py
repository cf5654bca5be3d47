"""Coil sensitivities from the fully sampled centre of k-space: ESPIRiT (Uecker 2014)."""

import functools
import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Complex, Float, Real

from medjax.types import UserError

Scalar = float | Real[Array, ""]


@functools.partial(jax.jit, static_argnames=("calibration", "kernel", "iterations"))
def espirit(kspace: Complex[Array, "coils *space"], calibration: int = 24, kernel: int = 6, threshold: Scalar = 0.02,
            crop: Scalar = 0.95, iterations: int = 100) -> Complex[Array, "coils *space"]:
    """Maps `(coils, *space)` whose squares sum to 1, and to 0 where the eigenvalue stays under `crop` (no object).

    `calibration` is the width of the centre that is used, `kernel` that of the k-space kernels, of which those count whose
    singular value is above `threshold` of the largest. The phase is that of the first coil set to 0.
    """
    _, *space = kspace.shape
    if min(space) < calibration or calibration < 2 * kernel:
        raise UserError("mri.calibration", f"{calibration} in {tuple(space)} with kernels of {kernel}; it must fit into "
                        "k-space and hold two kernels")
    kernels = _kernels(_centre(kspace, calibration), kernel, threshold)
    gram = _gram(kernels, kernel, space)
    maps, eigenvalue = _largest_eigenvector(gram, iterations)
    maps = maps * jnp.conj(maps[:1] / jnp.maximum(jnp.abs(maps[:1]), 1e-12))
    return jnp.where(eigenvalue > crop, maps, 0)


def _centre(kspace: Complex[Array, "coils *space"], width: int) -> Complex[Array, "coils *centre"]:
    start = [n // 2 - width // 2 for n in kspace.shape[1:]]
    return kspace[(slice(None), *(slice(s, s + width) for s in start))]


def _kernels(centre: Complex[Array, "coils *centre"], kernel: int, threshold: Scalar) -> Complex[Array, "m coils *kernel"]:
    """Orthonormal kernels that span the rows of the calibration matrix, `(m, coils, *kernel)`; those left out are 0."""
    ndim, width = centre.ndim - 1, centre.shape[1] - kernel + 1
    offsets = itertools.product(range(kernel), repeat=ndim)
    shifted = [centre[(slice(None), *(slice(o, o + width) for o in offset))] for offset in offsets]
    rows = jnp.stack(shifted, 1).reshape(len(centre) * kernel**ndim, -1).T
    _, values, vectors = jnp.linalg.svd(rows, full_matrices=False)
    kept = jnp.where((values > threshold * values[0])[:, None], vectors, 0)
    return kept.reshape(-1, len(centre), *[kernel] * ndim)


def _gram(kernels: Complex[Array, "m coils *k"], kernel: int, space: Sequence[int]) -> Complex[Array, "coils coils *space"]:
    """At every pixel the `(coils, coils)` matrix of the kernels' images: the transform of the kernels' correlations."""
    ndim = kernels.ndim - 2
    axes, size = tuple(range(2, 2 + ndim)), 2 * kernel
    spectra = jnp.fft.fftn(kernels, s=(size,) * ndim, axes=axes)
    powers = jnp.einsum("mc...,md...->cd...", spectra, jnp.conj(spectra), precision="highest")
    lags = jnp.fft.fftshift(jnp.fft.ifftn(powers, axes=axes), axes=axes)
    pads = [(n // 2 - kernel, n - size - (n // 2 - kernel)) for n in space]
    wide = jnp.fft.ifftshift(jnp.pad(lags, ((0, 0), (0, 0), *pads)), axes=axes)
    images = jnp.fft.fftshift(jnp.fft.ifftn(wide, axes=axes), axes=axes)
    return images * (np.prod(space) / kernel**ndim)


def _largest_eigenvector(matrix: Complex[Array, "c c *space"],
                         iterations: int) -> tuple[Complex[Array, "c *space"], Float[Array, "1 *space"]]:
    """Of the Hermitian matrices `(c, c, *space)` by power iteration: vectors `(c, *space)` of unit length, and values."""

    def step(vector: Array, _: None) -> tuple[Array, Array]:
        new = jnp.einsum("cd...,d...->c...", matrix, vector, precision="highest")
        value = jnp.linalg.norm(new, axis=0, keepdims=True)
        return new / jnp.maximum(value, 1e-12), value

    vectors, values = lax.scan(step, jnp.ones(matrix.shape[1:], matrix.dtype), length=iterations)
    return vectors, values[-1]
