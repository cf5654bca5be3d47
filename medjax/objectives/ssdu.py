"""SSDU (Yaman et al., 2020): learning from one part of a measurement to predict the rest, without any truth."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from medjax.objectives._blind import Blind
from medjax.objectives.supervised import run
from medjax.types import Array, Example, Key, Params, UserError


@dataclass(frozen=True)
class SSDU(Blind):
    """The network reconstructs from `share` of the measurement, drawn anew each step, and is judged on the rest of it.

    The task says what can be divided: views in CT, samples outside the centre in MRI. In use the network gets
    everything. The loss is the sum of the normalised l1 and l2 distances, as published.
    """

    share: float = 0.6

    def __post_init__(self):
        if not 0 < self.share < 1:
            raise UserError("config.objective.share", f"{self.share}; give a part between 0 and 1")
        if not hasattr(self.task, "keep_part"):
            raise UserError("config.objective.name", "ssdu divides a measurement, which this task has none of; use ct_recon "
                            "or mri_recon")

    def player_loss(self, params: dict[str, Params], player: str, variables: dict[str, Params], example: Example,
                    key: Key) -> tuple[Array, tuple[dict[str, Array], dict[str, Params]]]:
        """The distance to what was measured and not shown."""
        split, learn = jax.random.split(key)
        keep = self.task.keep_part(split, example.context, self.share)
        seen = self.task.thinned(example, keep)
        pred, changed = run(self.model, params["model"], variables["model"], seen.input, seen.context, key=learn)
        A, y = example.context["operator"], example.context["y"]
        rest = y * (1 - keep)
        miss = jnp.abs((A(pred) - y) * (1 - keep))
        l1 = miss.sum() / jnp.maximum(jnp.abs(rest).sum(), 1e-12)
        # The root of a square has no slope at 0.
        l2 = jnp.sqrt(jnp.square(miss).sum() / jnp.maximum(jnp.square(jnp.abs(rest)).sum(), 1e-12) + 1e-12)
        return l1 + l2, ({"held_out_l1": l1, "held_out_l2": l2}, variables | {"model": changed})
