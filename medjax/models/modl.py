"""MoDL (Aggarwal et al., 2019): a network that removes artefacts, in turn with a return to the measurement."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from medjax.models.blocks import WITHOUT_BIAS, Conv, ConvNormAct, Norm, check_ndim, check_same_grid
from medjax.models.consistency import consistent, measurement
from medjax.models.unet import UNet
from medjax.types import Array, Context


class MoDL(nn.Module):
    """`iterations` of a U-Net (`width`, `depth`), then the minimum of `|A x - y|^2 + weight |x - network(x)|^2`.

    `weight` is where the learned one starts, for operators of norm 1; `cg_iterations` find the minimum. With `shared`,
    all iterations have the same weights. Each is computed again in the backward pass, for the memory of one.

    `layers` > 0 puts as many convolutions of `width` in the place of the U-Net, the original's network: 5 of 64 with
    `norm="batch"`, 10 iterations and 10 of conjugate gradients.
    """

    ndim: int
    channels: int
    scale: Sequence[int]
    iterations: int = 4
    cg_iterations: int = 6
    shared: bool = True
    weight: float = 0.05
    width: int = 16
    depth: int = 3
    norm: str = "group"
    layers: int = 0
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Array, context: Context = None, train: bool = False) -> Array:
        check_ndim(x, self.ndim)
        check_same_grid("modl", self.scale)
        found = measurement("modl", context)
        A, y = found.operator, found.y
        layer = nn.remat(Iteration, static_argnums=(4,))
        network: Callable[[], nn.Module] = partial(UNet, self.ndim, self.channels, self.scale, self.width, self.depth,
                                                   self.norm, dtype=self.dtype)
        if self.layers:
            network = partial(Denoiser, self.channels, self.width, self.layers, self.norm, self.dtype)
        made = [layer(network, self.weight, self.cg_iterations, name=f"iteration{i}")
                for i in range(1 if self.shared else self.iterations)]
        for i in range(self.iterations):
            x = made[i % len(made)](x, A, y, train)
        return x


class Iteration(nn.Module):
    """One pass of the network and the return to the measurement."""

    network: Callable[[], nn.Module]
    weight: float
    cg_iterations: int

    @nn.compact
    def __call__(self, x: Array, A: Any, y: Array, train: bool) -> Array:
        weight = jnp.exp(self.param("log_weight", nn.initializers.constant(math.log(self.weight)), ()))
        return consistent(A, y, self.network()(x, None, train), weight, self.cg_iterations)


class Denoiser(nn.Module):
    """What `layers` convolutions with normalisation make of an image is added to it."""

    channels: int
    width: int
    layers: int
    norm: str
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, context: Context = None, train: bool = False) -> Array:
        h = x
        for _ in range(self.layers - 1):
            h = ConvNormAct(self.width, norm=self.norm, dtype=self.dtype)(h, train)
        start = 0.0 if self.norm == "none" else 2.0  # without a normalisation training starts at the input
        h = Conv(self.channels, bias=self.norm in WITHOUT_BIAS, scale=start, dtype=self.dtype)(h)
        return x + Norm(self.norm, self.dtype)(h, train).astype(x.dtype)
