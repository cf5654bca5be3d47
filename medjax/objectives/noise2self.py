"""Noise2Self (Batson and Royer, 2019) and Noise2Void (Krull et al., 2019): hidden pixels, predicted from those around."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from medjax.losses import l2
from medjax.objectives.blind import Blind
from medjax.objectives.supervised import run
from medjax.types import Array, Example, Key, Params, UserError


@dataclass(frozen=True)
class Noise2Self(Blind):
    """The model predicts pixels that it doesn't see, about `share` of all, from noisy images alone.

    `fill` puts in their place "neighbour", one near pixel at random (Noise2Void), or "mean", the mean of the direct
    neighbours (Noise2Self). The noise must be independent from pixel to pixel.
    """

    share: float = 0.03
    fill: str = "neighbour"

    def __post_init__(self):
        if self.fill not in ("neighbour", "mean"):
            raise UserError("config.objective.fill", f"no {self.fill!r}; there is neighbour, mean")
        if not 0 < self.share < 0.5:
            raise UserError("config.objective.share", f"{self.share}; give a part between 0 and 0.5")

    def player_loss(self, params: dict[str, Params], player: str, variables: dict[str, Params], example: Example,
                    key: Key) -> tuple[Array, tuple[dict[str, Array], dict[str, Params]]]:
        """The mean squared error at the hidden pixels."""
        hide, near, learn = jax.random.split(key, 3)
        noisy = example.input
        hidden = jax.random.uniform(hide, (*noisy.shape[:-1], 1)) < self.share
        blind = jnp.where(hidden, self._filled(near, noisy), noisy)
        pred, changed = run(self.model, params["model"], variables["model"], blind, example.context, key=learn)
        judged = hidden if example.mask is None else hidden & example.mask
        loss = l2(pred, noisy[..., : pred.shape[-1]], judged)
        return loss, ({"hidden": loss}, variables | {"model": changed})

    def _filled(self, key: Key, noisy: Array) -> Array:
        """For each pixel what stands in its place."""
        axes = range(1, noisy.ndim - 1)
        sides = [jnp.roll(noisy, step, axis) for axis in axes for step in (-1, 1)]
        if self.fill == "mean":
            return sum(sides) / len(sides)
        sides += [jnp.roll(side, step, axis) for side in sides[:2] for axis in axes for step in (-1, 1) if axis > 1]
        which = jax.random.randint(key, (*noisy.shape[:-1], 1), 0, len(sides))
        return sum(jnp.where(which == i, side, 0) for i, side in enumerate(sides))
