"""Noise2Noise (Lehtinen et al., 2018): the target is another noisy measurement of the same object."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp

from medjax.objectives.supervised import Supervised
from medjax.types import Batch, Example, Key, Mean, Params, UserError, Variables


@dataclass(frozen=True)
class Noise2Noise(Supervised):
    """The model makes, from one measurement of an object, the image of a second, independent one; the truth is not seen.

    The noise of the second image must average to nothing: use l2.
    """

    loss: str = "l2"

    def losses(self, params: dict[str, Params], player: str, variables: dict[str, Variables], example: Example,
               key: Key) -> tuple[dict[str, Mean], dict[str, Variables]]:
        """As in supervised learning, with the second measurement as target."""
        again, learn = jax.random.split(key)
        second = self.task.example(again, self._object(example)).input.image
        if second.shape != example.target.shape:
            raise UserError("config.objective.name", "noise2noise needs inputs on the target's grid; use another objective")
        return super().losses(params, player, variables, replace(example, target=jax.lax.stop_gradient(second)), learn)

    def _object(self, example: Example) -> Batch:
        """What the simulated scanner measures once more."""
        low, high = self.task.data_range
        rows = example.target.shape[0]
        return {"image": example.target * (high - low) + low, "slope": jnp.ones(rows), "intercept": jnp.zeros(rows),
                "id": example.ids, "count": jnp.ones(rows), "spacing_mm": example.spacing_mm, "mask": example.mask}
