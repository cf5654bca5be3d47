"""Convolutional classifiers: stages of convolutions with pooling between, then dense layers; VGG is a setting of it."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from medjax.models.blocks import ConvNormAct, activation, check_ndim
from medjax.ops.resample import max_pool
from medjax.types import Array, Context, check_choice


class Classifier(nn.Module):
    """One logit per class, `(B, K)`, for images of any size.

    `convs` says how many convolutions each stage has; `widths` their channels; between stages the grid is halved by
    `pool` "max" or "stride". The mean over the last grid goes through `dense` hidden layers with dropout; with `head`
    "grid" the last stage is pooled, too, and all its voxels go there, which ties the network to an image size.
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
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Array, context: Context = None, train: bool = False) -> Array:
        check_ndim(x, self.ndim)
        check_choice("config.model.head", self.head, ("mean", "grid"))
        for stage, (count, width) in enumerate(zip(self.convs, self.widths, strict=True)):
            if stage and self.pool == "max":
                x = max_pool(even(x))
            for i in range(count):
                stride = 2 if stage and not i and self.pool == "stride" else 1
                x = ConvNormAct(width, stride=stride, norm=self.norm, act=self.act, dtype=self.dtype)(x, train)
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


def even(x: Array) -> Array:
    """Edge-pads the spatial axes to even sizes."""
    pads = [(0, 0), *((0, size % 2) for size in x.shape[1:-1]), (0, 0)]
    return jnp.pad(x, pads, mode="edge") if any(hi for _, hi in pads) else x
