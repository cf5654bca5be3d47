"""Noise2Noise (Lehtinen et al., 2018): the target is another noisy look at the same object."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp

from medjax.objectives.supervised import Supervised
from medjax.types import Array, Batch, Example, Key, Params, UserError


@dataclass(frozen=True)
class Noise2Noise(Supervised):
    """The model makes, from one measurement of an object, the image of a second, independent one; the truth is not seen.

    The noise of the second image must average to nothing: use l2.
    """

    loss: str = "l2"

    def player_loss(self, params: dict[str, Params], player: str, variables: dict[str, Params], example: Example,
                    key: Key) -> tuple[Array, tuple[dict[str, Array], dict[str, Params]]]:
        """As in supervised learning, against the second look."""
        again, learn = jax.random.split(key)
        look = self.task.example(again, self._object(example)).input
        if look.shape != example.target.shape:
            raise UserError("config.objective.name", "noise2noise needs inputs on the target's grid; use another objective")
        return super().player_loss(params, player, variables, replace(example, target=jax.lax.stop_gradient(look)), learn)

    def _object(self, example: Example) -> Batch:
        """What the simulated scanner looks at once more."""
        low, high = self.task.data_range
        rows = example.target.shape[0]
        batch = {"image": example.target * (high - low) + low, "slope": jnp.ones(rows), "intercept": jnp.zeros(rows),
                 "id": jnp.arange(rows, dtype=jnp.uint32), "count": jnp.ones(rows)}
        return batch if example.mask is None else batch | {"mask": example.mask}
