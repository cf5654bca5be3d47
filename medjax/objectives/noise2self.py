"""Noise2Self (Batson and Royer, 2019) and Noise2Void (Krull et al., 2019): hidden pixels, predicted from those around."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jax import lax

from medjax.measures.losses import l2
from medjax.objectives._players import trained
from medjax.objectives._single import Single
from medjax.types import (
    Array,
    Example,
    Key,
    Mean,
    NetworkInput,
    Params,
    Prediction,
    UserError,
    Variables,
    check_choice,
)


@dataclass(frozen=True)
class Noise2Self(Single):
    """The model predicts pixels that it doesn't see, about `share` of all, from noisy images alone.

    `fill` puts in their place "neighbour", one near pixel at random (Noise2Void), or "mean", the mean of the direct
    neighbours (Noise2Self). The noise must be independent from pixel to pixel.
    """

    share: float = 0.03
    fill: str = "neighbour"

    def __post_init__(self) -> None:
        check_choice("config.objective.fill", self.fill, ("neighbour", "mean"))
        if not 0 < self.share < 0.5:
            raise UserError("config.objective.share", f"{self.share}; give a fraction between 0 and 0.5")

    def losses(self, params: dict[str, Params], player: str, variables: dict[str, Variables], example: Example,
               key: Key) -> tuple[dict[str, Mean], dict[str, Variables]]:
        """The mean squared error at the hidden pixels."""
        hide, near, learn = jax.random.split(key, 3)
        noisy = example.input.image
        hidden = jax.random.uniform(hide, (*noisy.shape[:-1], 1)) < self.share
        blind = jnp.where(hidden, self._filled(near, noisy), noisy)
        pred, changed, _ = trained(self.model, params["model"], variables["model"], blind, example.input.context, key=learn)
        loss = l2(pred, noisy[..., : pred.shape[-1]], hidden & example.mask)
        return {"hidden": loss}, variables | {"model": changed}

    def predict(self, params: dict[str, Params], variables: dict[str, Variables], given: NetworkInput,
                keys: Key) -> Prediction:
        """The model's output in use; with "mean", of every pixel what is predicted while it is hidden.

        The mean of a pixel's neighbours is a fair guess already, so a model may learn to hand on what stands in a pixel;
        seen itself, the pixel would come back with its noise.
        """
        if self.fill == "neighbour":
            return super().predict(params, variables, given, keys)
        filled = self._filled(jax.random.PRNGKey(0), given.image)
        space = given.image.shape[1:-1]
        phase = sum((2**i * (lax.broadcasted_iota(jnp.int32, space, i) % 2) for i in range(len(space))),
                    jnp.zeros((), jnp.int32))[..., None]
        output = jnp.zeros((), given.image.dtype)
        for k in range(2 ** len(space)):
            blind = replace(given, image=jnp.where(phase == k, filled, given.image))
            output = jnp.where(phase == k, super().predict(params, variables, blind, keys).image, output)
        return Prediction(output)

    def _filled(self, key: Key, noisy: Array) -> Array:
        """For each pixel what stands in its place."""
        axes = range(1, noisy.ndim - 1)
        sides = [jnp.roll(noisy, step, axis) for axis in axes for step in (-1, 1)]
        if self.fill == "mean":
            return sum(sides[1:], sides[0]) / len(sides)
        sides += [jnp.roll(side, step, axis) for side in sides[:2] for axis in axes for step in (-1, 1) if axis > 1]
        which = jax.random.randint(key, (*noisy.shape[:-1], 1), 0, len(sides))
        return sum((jnp.where(which == i, side, 0) for i, side in enumerate(sides)), jnp.zeros((), noisy.dtype))
