"""Fusion of several contrasts of one subject: early, late, or by attention; any of them may be missing."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from medjax.models.blocks import Conv, ConvNormAct, check_ndim, check_same_grid
from medjax.models.unet import UNet
from medjax.types import Array, Context, UserError


class Fusion(nn.Module):
    """One image from `modalities` contrasts, the channels of the input. A contrast that is 0 everywhere is missing.

    `fusion` is "early" (one network sees all channels), "late" (a network for each, their outputs averaged), or
    "attention" (an encoder for each, weighed voxel by voxel, then one network). Late and attention give a missing contrast
    no weight; early has to learn it. The networks are U-Nets of `width` and `depth`.
    """

    ndim: int
    channels: int
    scale: Sequence[int]
    modalities: int = 3
    fusion: str = "attention"
    width: int = 16
    depth: int = 3
    norm: str = "group"
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Array, context: Context = None, train: bool = False) -> Array:
        check_ndim(x, self.ndim)
        check_same_grid("fusion", self.scale)
        if x.shape[-1] != self.modalities:
            raise UserError("config.model.modalities", f"the model fuses {self.modalities} contrasts and the images have "
                            f"{x.shape[-1]}; make them equal")
        if self.fusion == "early":
            return self._unet()(x, train=train)
        there = (x != 0).any(tuple(range(1, x.ndim - 1)), keepdims=True)
        if self.fusion == "late":
            outputs = jnp.stack([self._unet()(x[..., m:m + 1], train=train) for m in range(self.modalities)], -1)
            weights = there[..., None, :] / jnp.maximum(there.sum(-1), 1)[..., None, None]
            return (outputs * weights).sum(-1)
        if self.fusion == "attention":
            return self._unet()(self._attended(x, there, train), train=train)
        raise UserError("config.model.fusion", f"no {self.fusion!r}; there is early, late, attention")

    def _unet(self) -> UNet:
        return UNet(self.ndim, self.channels, self.scale, self.width, self.depth, self.norm, residual=False,
                    dtype=self.dtype)

    def _attended(self, x: Array, there: Array, train: bool) -> Array:
        """The contrasts' features, weighed by a softmax over those that are there."""
        features: list[Array] = []
        each: list[Array] = []
        for m in range(self.modalities):
            h = ConvNormAct(self.width, norm=self.norm, dtype=self.dtype)(x[..., m:m + 1], train)
            h = ConvNormAct(self.width, norm=self.norm, dtype=self.dtype)(h, train)
            features.append(h)
            each.append(Conv(1, kernel=1, dtype=self.dtype)(h))
        scores = jnp.where(there, jnp.concatenate(each, -1).astype(jnp.float32), -1e9)
        weights = nn.softmax(scores).astype(features[0].dtype)
        weighed = [weights[..., m:m + 1] * h for m, h in enumerate(features)]
        return sum(weighed[1:], weighed[0])
