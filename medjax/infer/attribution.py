"""What a number that a network makes of an image depends on: a map over the voxels of what was measured.

| map | what it says |
|---|---|
| gradient | how the number changes with each voxel (Simonyan et al. 2014), without sign |
| integrated gradients | parts that add up to the number less that of a baseline (Sundararajan et al. 2017) |
| occlusion | how much less the number is when the baseline covers a box around the voxel (Zeiler and Fergus 2014) |
| Grad-CAM | where the last activations with a grid speak for the number (Selvaraju et al. 2017) |

All are of a `score`: a traceable function from `(1, *space, C)` to one number. Maps are `(*space)`, NumPy.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from medjax.infer.predict import USE_SEED
from medjax.models.activations import recorded, shifted
from medjax.tasks._restoration import Restoration
from medjax.train.run import Run
from medjax.types import Array, Batch, Operator, State, Tree, UserError

Score = Callable[[Array], Array]
Advance = Callable[[int], object]
STEPS = 32  # nodes of the Gauss-Legendre quadrature between baseline and image


@dataclass(frozen=True, eq=False)  # hashed by itself, as jit needs it
class Reader:
    """What is read of a run's prediction for one input, as a weighted sum: `weights` `(K,)` of the numbers that a classifier
    gives, or `(*space)` of an image, as the task compares it, in unit range.
    """

    run: Run
    state: State
    batch: Batch
    operator: Operator | None
    weights: np.ndarray

    @property
    def field(self) -> str:
        """What of the batch the number depends on: its image, or what was measured in its place."""
        return self.run.task.kind

    @property
    def given(self) -> Array:
        """That, `(1, *space, C)`; an image in unit range."""
        if self.field != "image":
            return jnp.asarray(self.batch[self.field])
        return _unit(self.run, self.batch)

    def __call__(self, given: Array) -> Array:
        """The number that the run makes of `given`."""
        return (jnp.asarray(self.weights) * prediction(self.run, self.state, self.batch, self.operator, given)).sum()


def prediction(run: Run, state: State, batch: Batch, operator: Operator | None, given: Array | None = None) -> Array:
    """What a run makes of one input: `(K,)`, or `(*space)`, the mean over channels of the image as the task compares it.

    `given`, of a `Reader`, stands for what the batch has.
    """
    task = run.task
    found: dict[str, Tree] = dict(batch)
    if given is not None:
        found = _with_unit(run, batch, given) if task.kind == "image" else {**batch, task.kind: given}
    if operator is not None:
        found["operator"] = operator
    params, variables = state.for_use()
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(USE_SEED), batch["id"])
    image = run.objective.predict(params, variables, task.input(found), keys).image
    if image.ndim == 2:
        return image[0]
    return (task.compared(image) if isinstance(task, Restoration) else image)[0].mean(-1)


def _unit(run: Run, batch: Batch) -> Array:
    low, high = run.task.data_range
    row = (slice(None),) + (None,) * (batch["image"].ndim - 1)
    units = jnp.asarray(batch["image"], jnp.float32) * batch["slope"][row] + batch["intercept"][row]
    return (units - low) / (high - low)


def _with_unit(run: Run, batch: Batch, image: Array) -> dict[str, Tree]:
    """The batch with an image in unit range."""
    low, high = run.task.data_range
    rows = jnp.ones(image.shape[0], jnp.float32)
    return {**batch, "image": image, "slope": rows * (high - low), "intercept": rows * low}


def gradient(score: Score, image: Array) -> np.ndarray:
    """The size of the gradient, summed over channels."""
    return np.asarray(jnp.abs(jax.jit(jax.grad(score))(image))[0].sum(-1))


def integrated_gradients(score: Score, image: Array, baseline: Array, steps: int = STEPS,
                         advance: Advance = lambda count: None) -> np.ndarray:
    """The gradient's mean on the way from `baseline` to `image`, times their difference, summed over channels.

    The mean is taken by Gauss-Legendre quadrature with `steps` nodes. The map's sum is `score(image) - score(baseline)`.
    """
    slope = jax.jit(jax.grad(score))
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    total = jnp.zeros_like(image)
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        total = total + np.float32(weight) * slope(baseline + np.float32(node) * (image - baseline))
        advance(1)
    return np.asarray((total * (image - baseline)).sum(-1))[0]


def boxes(space: Sequence[int], size: Sequence[int], scope: Sequence[slice]) -> Iterator[tuple[slice, ...]]:
    """Boxes of `size` that cover the `scope` of a grid, each half a box beyond the one before it."""
    along = []
    for n, side, part in zip(space, size, scope, strict=True):
        first, last, _ = part.indices(n)
        step = max(1, side // 2)
        starts = range(first, max(first + 1, last - side + step), step)
        along.append([slice(start, min(start + side, last)) for start in starts])
    yield from itertools.product(*along)


def occlusion(score: Score, image: Array, baseline: Array, size: Sequence[int], scope: Sequence[slice],
              advance: Advance = lambda count: None) -> np.ndarray:
    """How much less the score is with the baseline in a box of `size`, the mean over boxes that cover a voxel of `scope`."""
    run, space = jax.jit(score), image.shape[1:-1]
    whole = float(run(image))
    total, count = np.zeros(space), np.zeros(space)
    for box in boxes(space, size, scope):
        at = (slice(None), *box)
        total[box] += whole - float(run(image.at[at].set(baseline[at])))
        count[box] += 1
        advance(1)
    return total / np.maximum(count, 1)


def grad_cam(score: Score, image: Array) -> np.ndarray:
    """The last activations with a grid, weighed by their mean gradients, where they speak for the score; interpolated.

    Raises UserError for a network without such activations.
    """
    def anew(x: Array) -> Array:  # a function that has been traced before would not be called again
        return score(x)

    with recorded() as found:
        jax.eval_shape(anew, image)
    gridded = [one for one in found if len(one.shape) == image.ndim and min(one.shape[1:-1]) > 1]
    if not gridded:
        raise UserError("--workdir", "the network has no activations on a grid, which Grad-CAM needs")
    last = gridded[-1]

    def of_shift(shift: Array) -> tuple[Array, Array]:
        with shifted(last.place, shift) as seen:
            made = score(image)
        return made, seen[0]

    slope, activation = jax.jit(jax.grad(of_shift, has_aux=True))(jnp.zeros(last.shape, jnp.float32))
    weights = slope.mean(tuple(range(1, slope.ndim - 1)), keepdims=True)
    coarse = jnp.maximum((weights * activation).sum(-1)[0], 0)
    return np.asarray(jax.image.resize(coarse, image.shape[1:-1], "linear"))
