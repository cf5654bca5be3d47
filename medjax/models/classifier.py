"""Convolutional classifiers: stages of convolutions with pooling between, then dense layers; VGG is a setting of it."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from medjax.models.blocks import ConvNormAct, activation, check_ndim
from medjax.ops.resample import max_pool
from medjax.types import Array, Context, UserError, check_choice


class Classifier(nn.Module):
    """One logit per class, `(B, K)`, for images of any size.

    `convs` says how many convolutions each stage has; `widths` their channels; between stages the grid is halved by
    `pool` "max" or "stride". The mean over the last grid goes through `dense` hidden layers with dropout; with `head`
    "grid" the last stage is pooled, too, and all its voxels go there, which ties the network to an image size. `bias`
    gives one to convolutions before a normalisation, too. `mean` and `std` of each channel, in unit range, are taken off
    first (ImageNet's, say).
    """

    ndim: int
    channels: int
    convs: Sequence[int] = (1, 1, 1, 1)
    widths: Sequence[int] = (16, 32, 64, 128)
    dense: Sequence[int] = (64,)
    pool: str = "max"
    head: str = "mean"
    norm: str = "batch"
    act: str = "relu"
    dropout: float = 0.2
    bias: bool = False
    mean: Sequence[float] = ()
    std: Sequence[float] = ()
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Array, context: Context = None, train: bool = False) -> Array:
        check_ndim(x, self.ndim)
        check_choice("config.model.head", self.head, ("mean", "grid"))
        x = standardised(x, self.mean, self.std)
        for stage, (count, width) in enumerate(zip(self.convs, self.widths, strict=True)):
            if stage and self.pool == "max":
                x = max_pool(even(x))
            for i in range(count):
                stride = 2 if stage and not i and self.pool == "stride" else 1
                x = ConvNormAct(width, 3, stride, self.norm, self.act, self.dtype, self.bias)(x, train)
        if self.head == "grid":
            x = max_pool(even(x))
            x = x.reshape(len(x), *(1,) * self.ndim, -1)
        return Head(self.channels, self.dense, self.act, self.dropout, name="head")(x, train)


class Head(nn.Module):
    """From features `(B, *space, C)` to logits `(B, K)`: mean over space, hidden layers, dropout; float32."""

    classes: int
    dense: Sequence[int] = ()
    act: str = "relu"
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        h = x.astype(jnp.float32).mean(tuple(range(1, x.ndim - 1)))
        for width in self.dense:
            h = nn.Dropout(self.dropout, deterministic=not train)(h)
            h = activation(self.act)(nn.Dense(width, kernel_init=nn.initializers.he_normal())(h))
        h = nn.Dropout(self.dropout, deterministic=not train)(h)
        return nn.Dense(self.classes, kernel_init=nn.initializers.normal(0.01))(h)


def standardised(x: Array, mean: Sequence[float], std: Sequence[float]) -> Array:
    """Images `(B, *space, C)` with the `mean` of each channel taken off, over its `std`; as they are where both are ().

    Raises UserError where there is not one of each for every channel.
    """
    if not mean and not std:
        return x
    if not len(mean) == len(std) == x.shape[-1]:
        raise UserError("config.model.mean", f"{len(mean)} means and {len(std)} deviations for {x.shape[-1]} channels; give "
                        "one of each per channel, or () for none")
    row = (1,) * (x.ndim - 1) + (-1,)
    return (x - jnp.asarray(mean, x.dtype).reshape(row)) / jnp.asarray(std, x.dtype).reshape(row)


def even(x: Array) -> Array:
    """Edge-pads the spatial axes to even sizes."""
    pads = [(0, 0), *((0, size % 2) for size in x.shape[1:-1]), (0, 0)]
    return jnp.pad(x, pads, mode="edge") if any(hi for _, hi in pads) else x
