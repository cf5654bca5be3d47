"""SSDU (Yaman et al., 2020): learning from one share of a measurement to predict the rest, without any truth."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from medjax.measures.losses import masked_mean
from medjax.objectives._players import counting, trained
from medjax.objectives._single import Single
from medjax.types import (
    DividesMeasurement,
    Example,
    Key,
    Mean,
    Measurement,
    Params,
    UserError,
    Variables,
)


@dataclass(frozen=True)
class SSDU(Single):
    """The network reconstructs from `share` of the measurement, drawn anew each step, and is compared with the rest of it.

    The task says what can be divided: views in CT, samples outside the centre in MRI. In use the network gets
    everything. The loss is the sum of the normalised l1 and l2 distances of each sample, as published.
    """

    share: float = 0.6

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise UserError("config.objective.share", f"{self.share}; give a fraction between 0 and 1")
        if not isinstance(self.task, DividesMeasurement):
            raise UserError("config.objective.name", "ssdu divides a measurement, which this task has none of; use ct_recon "
                            "or mri_recon")

    def losses(self, params: dict[str, Params], player: str, variables: dict[str, Variables], example: Example,
               key: Key) -> tuple[dict[str, Mean], dict[str, Variables]]:
        """The distance to what was measured and not shown."""
        assert isinstance(self.task, DividesMeasurement)
        assert isinstance(example.input.context, Measurement)
        split, learn = jax.random.split(key)
        whole = example.input.context
        keep = self.task.draw_share(split, whole, self.share)
        seen = self.task.restricted(example, keep).input
        pred, changed, _ = trained(self.model, params["model"], variables["model"], seen.image, seen.context, key=learn)
        rest = jnp.abs(whole.y * (1 - keep))
        miss = jnp.abs((whole.operator(pred) - whole.y) * (1 - keep))
        axes = tuple(range(1, rest.ndim))
        l1 = miss.sum(axes) / jnp.maximum(rest.sum(axes), 1e-12)
        # The root of a square has no slope at 0.
        l2 = jnp.sqrt(jnp.square(miss).sum(axes) / jnp.maximum(jnp.square(rest).sum(axes), 1e-12) + 1e-12)
        counts = counting(example.mask) > 0
        return ({"held_out_l1": masked_mean(l1, counts), "held_out_l2": masked_mean(l2, counts)},
                variables | {"model": changed})
