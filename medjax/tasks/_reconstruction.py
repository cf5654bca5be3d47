"""What tasks share that know the raw measurement: the network's context, shares of measurements, iterative references."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from medjax.classical._declared import methods
from medjax.measures.consistency import RESIDUAL, TRUTH, residual
from medjax.physics.sampling import Subset
from medjax.tasks._restoration import Restoration
from medjax.types import (
    Array,
    Batch,
    Context,
    Example,
    Measurement,
    NetworkInput,
    Operator,
    Prediction,
    Reference,
    Tree,
    UserError,
)

Solver = Callable[[Operator, Array, float], Array]


class Reconstruction(Restoration):
    """The clean image from what an operator measured of it.

    The context is the measurement, by an operator of norm about 1 on images in unit range: networks with physics inside
    read it. The input image is `operator.init(y)`. Every image is checked against the measurement (`residuals`).
    """

    @property
    def noisy(self) -> bool:
        """Whether measurements have noise, of the size that `noise` says."""
        return False

    def noise(self, measurement: Measurement, spacing_mm: Array) -> Array:
        """The standard deviation of a measurement's noise, broadcastable to its `y`. Only of tasks that are `noisy`."""
        raise NotImplementedError

    def residuals(self, image: Array, given: NetworkInput, spacing_mm: Array) -> Array:
        """How far images `(B, *space, C)` are from the measurement of `given`: `(B,)`, see `medjax.measures.consistency`.

        NaN where nothing was measured that an image could be compared with.
        """
        if not isinstance(given.context, Measurement):
            return jnp.full(image.shape[0], jnp.nan)
        found = given.context
        return residual(found.operator(image), found.y, self.noise(found, spacing_mm) if self.noisy else None)

    def measure(self, pred: Prediction, example: Example) -> dict[str, Array]:
        """As any restoration's, and the residuals of the prediction and of the truth."""
        images = {RESIDUAL: pred.image, TRUTH: example.target}
        return super().measure(pred, example) | {
            name: self.residuals(image, example.input, example.spacing_mm) for name, image in images.items()}

    @property
    def flip_axes(self) -> tuple[int, ...]:
        """None: a flipped image is not what the operator would have measured."""
        return ()

    def measured(self, operator: Operator, y: Array, coils: Array | None = None) -> NetworkInput:
        """The input of a measurement."""
        return NetworkInput(operator.init(y), Measurement(operator, y, coils))

    def solvers(self) -> dict[str, tuple[Solver, tuple[float, ...]]]:
        """Reconstructions without training, from an operator and its measurement, with the grid of their strengths.

        By default those that are declared for any operator (`medjax/classical`).
        """
        return methods("solve")

    def references(self) -> dict[str, Reference]:
        """The input, and the solvers."""
        found = {name: Reference(_jitted(solver), strengths) for name, (solver, strengths) in self.solvers().items()}
        return super().references() | found


def with_operator(batch: Batch, operator: Operator) -> Batch:
    """The batch with the operator that measured its images."""
    found: dict[str, Tree] = {**batch, "operator": operator}
    return found


def operator_of(batch: Batch) -> Operator | None:
    """The operator that measured a batch's images, where it has one."""
    found: Tree = batch.get("operator")
    return found if isinstance(found, Operator) else None


def measurement_of(context: Context) -> Measurement:
    """The measurement of an example's context. Raises UserError where there is none."""
    if not isinstance(context, Measurement):
        raise UserError("config.objective.name", "needs raw measurements, which this task has none of; use ct_recon or "
                        "mri_recon")
    return context


def restricted(example: Example, keep: Array, share: Array) -> Example:
    """The example as if only what `keep` (broadcastable to `y`) marks had been measured, `share` `(B,)` of it."""
    found = measurement_of(example.input.context)
    operator = Subset(found.operator, keep, share)
    y = found.y * keep
    given = NetworkInput(operator.init(y), Measurement(operator, y, found.coils))
    return Example(given, example.target, example.mask, example.ids, example.spacing_mm, example.extras)


def _jitted(solver: Solver) -> Callable[[Example, float], Array]:
    run = jax.jit(solver)

    def solve(example: Example, strength: float) -> Array:
        found = jax.tree.map(jnp.asarray, measurement_of(example.input.context))
        return run(found.operator, found.y, strength)

    return solve


