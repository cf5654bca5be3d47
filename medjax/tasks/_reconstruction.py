"""What tasks share that know the raw measurement: example, self-supervised parts, classical reconstructions."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from medjax.physics.operator import Operator
from medjax.physics.sampling import Subset
from medjax.tasks._restoration import Baseline, Restoration
from medjax.types import Array, Example, Key, UserError

Solver = Callable[[Operator, Array], Array]


class Reconstruction(Restoration):
    """The clean image from what an operator measured of it.

    The context holds "operator", of norm about 1 on images in unit range, and "y", what it measured: networks with
    physics inside read both. The input is `operator.init(y)`.
    """

    def measured(self, operator: Operator, y: Array, target: Array, mask: Array, **more: Array) -> Example:
        """The example of a measurement."""
        return Example(operator.init(y), target, mask, {"operator": operator, "y": y, **more})

    def solvers(self) -> dict[str, Solver]:
        """Classical reconstructions by name, from an operator and its measurement, batched and traceable."""
        return {}

    def baselines(self) -> dict[str, Baseline]:
        """None from the input alone: what there is to compare with starts from the measurement."""
        return {}

    def compared(self, example: Example) -> dict[str, np.ndarray]:
        """The input and every classical reconstruction, for one example without the batch's axis."""
        one = jax.tree.map(lambda a: jnp.asarray(a)[None], {k: example.context[k] for k in ("operator", "y")})
        return self.answers(np.asarray(example.input)) | jax.device_get(_solve(self)(one["operator"], one["y"]))

    def keep_part(self, key: Key, context: dict[str, Any], share: float) -> Array:
        """Which part of a measurement a network may see when it learns from the rest: 1 or 0, broadcastable to `y`."""
        raise UserError("config.objective.name", "this task's measurement can't be divided; use ct_recon or mri_recon")

    def thinned(self, example: Example, keep: Array) -> Example:
        """The example as if only the part `keep` had been measured."""
        A, y = example.context["operator"], example.context["y"]
        part = Subset(A, keep, self.share(keep))
        return Example(part.init(y), example.target, example.mask, example.context | {"operator": part, "y": y * keep})

    def share(self, keep: Array) -> Array:
        """How much smaller `init` gets where only `keep` is measured, per sample."""
        return jnp.ones(keep.shape[0])


@functools.lru_cache(maxsize=4)
def _solve(task: Reconstruction) -> Callable[[Operator, Array], dict[str, Array]]:
    return jax.jit(lambda A, y: {name: solver(A, y)[0] for name, solver in task.solvers().items()})
