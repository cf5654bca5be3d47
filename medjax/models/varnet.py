"""Variational networks (Hammernik et al., 2018), end to end with the coil sensitivities (Sriram et al., 2020)."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from medjax.models.blocks import check_ndim, check_same_grid
from medjax.models.consistency import measurement
from medjax.models.unet import FASTMRI, UNet
from medjax.physics.mri import to_channels, to_complex
from medjax.physics.sampling import ComplexChannels
from medjax.types import Array, Context, Operator, UserError


class VarNet(nn.Module):
    """`iterations` of a gradient step towards the measurement and a U-Net (`width`, `depth`), each with its own weights.

    With `sensitivities`, a U-Net of `sensitivity_width` makes the coil sensitivities from the coil images that the
    measurement has, `(B, coils, *space)`, complex; otherwise the operator's own are used. Each iteration is
    computed again in the backward pass, for the memory of one.

    With `published` it is the network of Sriram et al.: it iterates the k-space of each coil, which need not be that of one
    image, and its U-Nets are fastMRI's, on standardised channels. The image is the coils' combined by their sensitivities,
    complex; the original's is the root of their summed squares.
    """

    ndim: int
    channels: int
    scale: Sequence[int]
    iterations: int = 6
    width: int = 16
    depth: int = 3
    sensitivities: bool = False
    sensitivity_width: int = 8
    norm: str = "group"
    published: bool = False
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Array, context: Context = None, train: bool = False) -> Array:
        check_ndim(x, self.ndim)
        check_same_grid("varnet", self.scale)
        found = measurement("varnet", context)
        A, y = found.operator, found.y
        if self.sensitivities:
            A = self._learned(A, found.coils, train)
            x = A.init(y)
        if self.published:
            return self._kspace(A, y, train)
        layer = nn.remat(Cascade, static_argnums=(4,))
        network = partial(UNet, self.ndim, self.channels, self.scale, self.width, self.depth, self.norm, residual=False,
                          out_scale=1e-4, dtype=self.dtype)  # it starts as gradient descent
        for i in range(self.iterations):
            x = layer(network, name=f"cascade{i}")(x, A, y, train)
        return x

    def _learned(self, A: Operator, coils: Array | None, train: bool) -> Operator:
        if coils is None or not isinstance(A, ComplexChannels):
            raise UserError("config.model.sensitivities", "there are no coils in this task; set it to False")
        planes = to_channels(coils.reshape(-1, *coils.shape[2:], 1))
        if self.published:
            maps = NormUNet(self.ndim, self.sensitivity_width, self.depth, self.dtype)(planes, train)
        else:
            network = UNet(self.ndim, 2, self.scale, self.sensitivity_width, self.depth, self.norm, dtype=self.dtype)
            size = jnp.sqrt(jnp.square(jnp.abs(coils)).sum(1, keepdims=True).max(tuple(range(1, coils.ndim)), keepdims=True))
            maps = network(planes / jnp.repeat(size.reshape(-1, *(1,) * (self.ndim + 1)), coils.shape[1], 0), None, train)
        maps = to_complex(maps).reshape(coils.shape)
        return A.with_maps(maps / jnp.sqrt(jnp.square(jnp.abs(maps)).sum(1, keepdims=True) + 1e-6))

    def _kspace(self, A: Operator, y: Array, train: bool) -> Array:
        """The image of the k-space `(B, coils, *space)` that the iterations make of the measured one."""
        if not isinstance(A, ComplexChannels):
            raise UserError("config.model.published", "there are no coils in this task; set it to False")
        layer = nn.remat(KSpaceCascade, static_argnums=(4,))
        network = partial(NormUNet, self.ndim, self.width, self.depth, self.dtype)
        kspace = y
        for i in range(self.iterations):
            kspace = layer(network, name=f"cascade{i}")(kspace, A, y, train)
        return _everywhere(A).adjoint(kspace)


class Cascade(nn.Module):
    """One gradient step and its correction."""

    network: Callable[[], nn.Module]

    @nn.compact
    def __call__(self, x: Array, A: Operator, y: Array, train: bool) -> Array:
        length = self.param("length", nn.initializers.ones, ())
        return x - length * A.adjoint(A(x) - y) + self.network()(x, None, train)


class KSpaceCascade(nn.Module):
    """A step of the coils' k-space towards the measured samples, and the correction of the image that they make."""

    network: Callable[[], nn.Module]

    @nn.compact
    def __call__(self, kspace: Array, A: ComplexChannels, y: Array, train: bool) -> Array:
        length = self.param("length", nn.initializers.ones, ())
        coils = _everywhere(A)
        correction = self.network()(coils.adjoint(kspace), train)
        return kspace - length * A.operator.mask * (kspace - y) - coils(correction)


class NormUNet(nn.Module):
    """fastMRI's U-Net on two channels that have mean 0 and standard deviation 1 in each image; both are put back."""

    ndim: int
    width: int
    depth: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        axes = tuple(range(1, x.ndim - 1))
        mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True, ddof=1)
        std = jnp.sqrt(var + 1e-12)  # a coil may be silent
        network = UNet(self.ndim, 2, (1,) * self.ndim, self.width, self.depth, **FASTMRI, dtype=self.dtype)
        return network((x - mean) / std, None, train) * std + mean


def _everywhere(A: ComplexChannels) -> ComplexChannels:
    """The operator as if all of k-space were sampled."""
    return ComplexChannels(replace(A.operator, mask=jnp.ones((1, 1, *A.operator.mask.shape[2:]))))
