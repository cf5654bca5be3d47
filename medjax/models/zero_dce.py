"""Zero-DCE (Guo et al., 2020): a network that draws brightness curves for every voxel, learned without a reference."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from medjax.models.blocks import Conv, check_ndim, check_same_grid
from medjax.types import Array, Context


class ZeroDCE(nn.Module):
    """`curves` times x becomes x + a x (1 - x), each with its own map `a` in -1 … 1: monotonous, and 0 and 1 stay.

    It leaves the loss "smoothness" of the maps (total variation) in its variables: `config.objective.loss=
    "spatial + 10*exposure + 5*colour + 200*smoothness"`. Learned from pairs it is a light network for l1 and the like.
    """

    ndim: int
    channels: int
    scale: Sequence[int]
    width: int = 16
    depth: int = 3
    curves: int = 8
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Array, context: Context = None, train: bool = False) -> Array:
        check_ndim(x, self.ndim)
        check_same_grid("zero_dce", self.scale)
        h, shortcuts = x, []
        for _ in range(self.depth):
            h = Conv(self.width, act="relu", dtype=self.dtype)(h)
            shortcuts.append(h)
        h = Conv(self.width, act="relu", dtype=self.dtype)(h)
        while len(shortcuts) > 1:
            h = Conv(self.width, act="relu", dtype=self.dtype)(jnp.concatenate([h, shortcuts.pop()], -1))
        maps = Conv(self.curves * self.channels, scale=0.1, dtype=self.dtype)(jnp.concatenate([h, shortcuts.pop()], -1))
        maps = jnp.tanh(maps.astype(jnp.float32))
        if train:
            rough = [jnp.square(jnp.diff(maps, axis=axis)) for axis in range(1, maps.ndim - 1)]
            self.sow("losses", "smoothness", sum(r.mean(tuple(range(1, r.ndim))) for r in rough))
        y = jnp.clip(x[..., : self.channels], 0, 1)
        curves = jnp.moveaxis(maps.reshape(*maps.shape[:-1], self.curves, self.channels), -2, 0)
        # A loop, for XLA on CPU would fuse the curves and compute each y anew wherever it is used: 2^curves times.
        return jax.lax.scan(lambda y, a: (y + a * y * (1 - y), None), y, curves)[0]
