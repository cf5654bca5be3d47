"""Stein's unbiased risk estimate by Monte Carlo (Ramani et al., 2008; training: Soltanayev and Chun, 2018)."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from medjax.measures.losses import masked_mean
from medjax.objectives._players import trained
from medjax.objectives._single import Single
from medjax.types import Example, Key, Mean, Params, UserError, Variables


@dataclass(frozen=True)
class Sure(Single):
    """Denoising from noisy images alone, whose noise is Gaussian of the known `sigma`, a fraction of the range.

    The loss estimates the mean squared error: `|f(x) - x|^2 - sigma^2 + 2 sigma^2 div f(x)`, the divergence from one
    random direction and a step of `epsilon`.
    """

    sigma: float = 0.05
    epsilon: float = 1e-3

    def __post_init__(self) -> None:
        if self.sigma <= 0 or self.epsilon <= 0:
            raise UserError("config.objective.sigma", f"{self.sigma}, epsilon {self.epsilon}; give positive numbers")

    def losses(self, params: dict[str, Params], player: str, variables: dict[str, Variables], example: Example,
               key: Key) -> tuple[dict[str, Mean], dict[str, Variables]]:
        """The estimated mean squared error."""
        direction_key, learn = jax.random.split(key)
        noisy, context = example.input.image, example.input.context
        direction = jax.random.normal(direction_key, noisy.shape)
        pred, changed, _ = trained(self.model, params["model"], variables["model"], noisy, context, key=learn)
        moved, _, _ = trained(self.model, params["model"], variables["model"], noisy + self.epsilon * direction, context,
                              key=learn)
        divergence = masked_mean(direction * (moved - pred), example.mask).times(2 * self.sigma**2 / self.epsilon)
        fidelity = masked_mean(jnp.square(pred - noisy) - self.sigma**2, example.mask)
        return {"fidelity": fidelity, "divergence": divergence}, variables | {"model": changed}
