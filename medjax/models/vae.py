"""Variational autoencoder (Kingma & Welling, 2014; Higgins et al., 2017 for its weight), with a code on a coarse grid."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from medjax.models.autoencoder import Encoder, decode
from medjax.models.blocks import check_ndim, check_same_grid
from medjax.types import Array, Context


class VAE(nn.Module):
    """An autoencoder whose code is drawn from a normal distribution in training, and is its mean in use.

    It leaves the loss "kl" (nats per voxel of the image, from the standard normal) in its variables, for objectives to
    weigh: `config.objective.loss="l2 + 0.001*kl"`.
    """

    ndim: int
    channels: int
    scale: Sequence[int]
    width: int = 16
    depth: int = 3
    latent: int = 8
    norm: str = "group"
    act: str = "relu"
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Array, context: Context = None, train: bool = False) -> Array:
        check_ndim(x, self.ndim)
        check_same_grid("vae", self.scale)
        encoder = Encoder(2 * self.latent, self.width, self.depth, self.norm, self.act, self.dtype, name="encoder")
        mean, log_var = jnp.split(encoder(x, train), 2, -1)
        if not train:
            return decode(self, mean, x, train)
        log_var = jnp.clip(log_var, -10, 10)
        nats = 0.5 * (jnp.square(mean) + jnp.exp(log_var) - 1 - log_var).sum(tuple(range(1, mean.ndim)))
        self.sow("losses", "kl", nats / x[0, ..., 0].size)
        code = mean + jnp.exp(log_var / 2) * jax.random.normal(self.make_rng("sample"), mean.shape)
        return decode(self, code, x, train)
