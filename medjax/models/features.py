"""What a network sees in an image: the activations inside it, for perceptual losses and distances of data sets."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from medjax.models.blocks import ConvNormAct
from medjax.models.unet import UNet
from medjax.types import Array, Params, UserError


@dataclass(frozen=True, eq=False)
class FeatureNetwork:
    """A network whose weights stay as they are. It takes images in unit range with `channels` channels."""

    module: Any
    variables: Params
    ndim: int
    channels: int

    def __call__(self, images: Array) -> list[Array]:
        """The activations after every convolution with normalisation, `(B, *space, C)` each.

        Raises UserError for images of another kind than those it has learnt on.
        """
        if images.ndim - 2 != self.ndim or images.shape[-1] != self.channels:
            raise UserError("config.features_workdir", f"its network takes {self.ndim}-D images with {self.channels} "
                            f"channels; these are {images.ndim - 2}-D with {images.shape[-1]}")
        _, seen = self.module.apply(self.variables, images, mutable=["intermediates"],
                                    capture_intermediates=lambda part, _: isinstance(part, ConvNormAct))
        activations = jax.tree.leaves(seen.get("intermediates", {}))
        if not activations:
            raise UserError("config.features_workdir", f"a {type(self.module).__name__} has no blocks of convolution, "
                            "normalisation and activation to look into; give a run with a unet or vgg")
        return activations

    def code(self, images: Array) -> Array:
        """One vector for each image: the mean activations on the coarsest grid, `(B, C)`."""
        activations = self(images)
        size = min(a[0, ..., 0].size for a in activations)
        return jnp.concatenate([a.astype(jnp.float32).mean(tuple(range(1, a.ndim - 1)))
                                for a in activations if a[0, ..., 0].size == size], -1)


class Features:
    """The network that a run looks through at images, loaded when it is first needed; None where the run names none."""

    def __init__(self, load: Callable[[], FeatureNetwork | None] = lambda: None):
        self._load = load

    @functools.cached_property
    def network(self) -> FeatureNetwork | None:
        """The network."""
        with jax.ensure_compile_time_eval():  # a step that is being traced may be the first to need it
            return self._load()


@functools.lru_cache
def random_network(ndim: int, channels: int) -> FeatureNetwork:
    """A U-Net with fixed random weights and no normalisation: features without training, the same in every run."""
    module = UNet(ndim=ndim, channels=channels, scale=(1,) * ndim, width=8, depth=3, norm="none")
    with jax.ensure_compile_time_eval():
        variables = jax.jit(module.init)(jax.random.PRNGKey(0), jnp.zeros((1, *(8,) * ndim, channels)))
    return FeatureNetwork(module, variables, ndim, channels)
