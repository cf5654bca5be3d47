"""Stein's unbiased risk estimate by Monte Carlo (Ramani et al., 2008; training: Soltanayev and Chun, 2018)."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from medjax.measures import losses
from medjax.objectives._blind import Blind
from medjax.objectives.supervised import run
from medjax.types import Array, Example, Key, Params, UserError


@dataclass(frozen=True)
class Sure(Blind):
    """Denoising from noisy images alone, whose noise is Gaussian of the known `sigma`, a fraction of the range.

    The loss estimates the mean squared error: `|f(x) - x|^2 - sigma^2 + 2 sigma^2 div f(x)`, the divergence from one
    random direction and a step of `epsilon`.
    """

    sigma: float = 0.05
    epsilon: float = 1e-3

    def __post_init__(self):
        if self.sigma <= 0 or self.epsilon <= 0:
            raise UserError("config.objective.sigma", f"{self.sigma}, epsilon {self.epsilon}; give positive numbers")

    def player_loss(self, params: dict[str, Params], player: str, variables: dict[str, Params], example: Example,
                    key: Key) -> tuple[Array, tuple[dict[str, Array], dict[str, Params]]]:
        """The estimated mean squared error."""
        direction_key, learn = jax.random.split(key)
        noisy = example.input
        direction = jax.random.normal(direction_key, noisy.shape)
        pred, changed = run(self.model, params["model"], variables["model"], noisy, example.context, key=learn)
        moved, _ = run(self.model, params["model"], variables["model"], noisy + self.epsilon * direction, example.context,
                       key=learn)
        fidelity = losses.l2(pred, noisy, example.mask)
        mask = jnp.ones(noisy.shape, bool) if example.mask is None else jnp.broadcast_to(example.mask, noisy.shape)
        divergence = jnp.where(mask, direction * (moved - pred), 0).sum() / jnp.maximum(mask.sum(), 1) / self.epsilon
        loss = fidelity - self.sigma**2 + 2 * self.sigma**2 * divergence
        return loss, ({"fidelity": fidelity, "divergence": divergence}, variables | {"model": changed})
