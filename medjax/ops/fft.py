"""Fourier transforms over the last axes, orthonormal and centred: the origin lies at index `n // 2` on both sides.

XLA gathers a sharded batch on one device for an FFT; here the batch stays where it is, and gradients flow.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Complex, Inexact

from medjax.ops import linear

Partition: TypeAlias = tuple[Mesh, Callable[[Array], Array], NamedSharding, tuple[NamedSharding]]


def fft(x: Inexact[Array, "*s"], ndim: int) -> Complex[Array, "*s"]:
    """Image to k-space over the last `ndim` axes."""
    return _centred(x, ndim, inverse=False)


def ifft(x: Inexact[Array, "*s"], ndim: int) -> Complex[Array, "*s"]:
    """K-space to image over the last `ndim` axes: the inverse and the adjoint of `fft`."""
    return _centred(x, ndim, inverse=True)


def _centred(x: Inexact[Array, "*s"], ndim: int, inverse: bool) -> Complex[Array, "*s"]:
    """Moving the origin by `m` is a phase of `m` turns over the axis: for even sizes a change of signs."""
    x = x.astype(jnp.promote_types(x.dtype, jnp.complex64))
    space = x.shape[-ndim:]
    flat = _phased(x, ndim, inverse).reshape(-1, *space)
    out = linear.apply(_Fourier(ndim, inverse), flat).reshape(x.shape)
    scale = np.sqrt(np.prod(space)) if inverse else 1 / np.sqrt(np.prod(space))
    return _phased(out, ndim, inverse, back=True) * scale.astype(x.real.dtype)


def _phased(x: Complex[Array, "*s"], ndim: int, inverse: bool, back: bool = False) -> Complex[Array, "*s"]:
    for axis in range(ndim):
        n = x.shape[axis - ndim]
        middle = n // 2
        turns = middle * (np.arange(n) - (middle if back else 0)) / n
        phase = np.exp((-2j if inverse else 2j) * np.pi * turns)
        factor = phase.real.round().astype(x.real.dtype) if n % 2 == 0 else phase.astype(x.dtype)
        x = x * factor.reshape(*(-1 if a == x.ndim - ndim + axis else 1 for a in range(x.ndim)))
    return x


@dataclass(frozen=True)
class _Fourier:
    """The plain discrete Fourier transform of `(n, *space)`: a symmetric matrix."""

    ndim: int
    inverse: bool
    columns = 0

    def forward(self, x: Complex[Array, "n *space"]) -> Complex[Array, "n *space"]:
        return _partitioned(self.ndim, self.inverse)(x)

    transpose = forward


@functools.cache
def _partitioned(ndim: int, inverse: bool) -> Callable[[Array], Array]:
    """The transform with the batch left where it is, and whole axes of space on every device."""
    kind = lax.FftType.IFFT if inverse else lax.FftType.FFT

    def transform(x: Array) -> Array:
        return lax.fft(x, kind, x.shape[-ndim:])

    def partition(mesh: Mesh, arguments: Sequence[jax.ShapeDtypeStruct], result: jax.ShapeDtypeStruct) -> Partition:
        batch = NamedSharding(arguments[0].sharding.mesh, PartitionSpec(*arguments[0].sharding.spec[:1]))
        return mesh, transform, batch, (batch,)

    axes = " ".join("ijk"[:ndim])
    split = custom_partitioning(transform)
    split.def_partition(partition, sharding_rule=f"b {axes} -> b {axes}", need_replication_factors=tuple(axes.split()))
    return split
