"""A model evaluated on one part of the split: every sample once, on what counts."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import Mesh

from medjax.data.pipeline import EvalBatches, NamedBatch, Share, eval_batches
from medjax.train import distributed, padding, sharding
from medjax.train.run import Run
from medjax.train.step import make_predict
from medjax.types import Array, Batch, Example, Key, Prediction, Region, State, Value

EVAL_SEED = 1  # the degradation of evaluation images is the same in every run


@dataclass(frozen=True)
class Evaluated:
    """A batch of samples on the host; rows that only fill it up have no name.

    `example` and `prediction` are None where they stay on the devices. `metrics` are those of the named samples.
    """

    names: list[str]
    example: Example | None
    prediction: Prediction | None
    metrics: list[dict[str, Value]]


class Evaluator:
    """Evaluates samples with one compiled program over `mesh`, the rows of a batch divided over its `data` axis.

    `only_metrics` leaves examples and predictions on the devices: volumes may be too large to be gathered. Several
    processes evaluate together; each gets all results.
    """

    def __init__(self, run: Run, mesh: Mesh, only_metrics: bool = False):
        self.run, self.mesh = run, mesh
        predict = make_predict(run.task, run.objective)

        def program(state: State, batch: Batch, key: Key) -> tuple[Example | None, Prediction | None, dict[str, Array]]:
            example, pred, metrics = predict(state, batch, key)
            return (None, None, metrics) if only_metrics else (example, pred, metrics)

        everywhere = sharding.replicated(mesh) if only_metrics or distributed.several() else None
        self._program = jax.jit(program, out_shardings=everywhere)

    def batches(self, regions: list[Region], limit: int = 0) -> EvalBatches:
        """Whole images of `regions`, as many at a time as hold about as many voxels as a training batch, and at least
        one on each device; filled up so that they divide over the mesh.
        """
        config, ways, space = self.run.config, self.mesh.shape["data"], self.mesh.shape["space"]

        def of(size: int, multiple: int = 1, share: Share | None = None) -> EvalBatches:
            return eval_batches(regions, batch_size=size, ndim=config.data.ndim, limit=limit, multiple_of=multiple,
                                share=share)

        one = of(1)
        first = {name: array for name, array in next(iter(one)).items() if name != "name"}
        multiple = padding.multiple_of(self.run, first, space)
        voxels = config.batch_size * math.prod(config.data.patch) if config.data.patch else 0
        size = min(config.batch_size, max(1, voxels // math.prod(one.shape)))
        return of(-(-size // ways) * ways, multiple, sharding.share_of(self.mesh))

    def __call__(self, state: State, batches: Iterable[NamedBatch]) -> Iterator[Evaluated]:
        """Every batch with its predictions and metrics."""
        key = jax.random.key(EVAL_SEED)
        for batch in batches:
            placed = sharding.place(self.mesh, {name: array for name, array in batch.items() if name != "name"})
            example, pred, metrics = jax.device_get(self._program(state, placed, key))
            names = [name for name in batch["name"] if name]
            yield Evaluated(names, example, pred, rows_of(metrics, len(names)))


def rows_of(metrics: Mapping[str, Array | np.ndarray], count: int) -> list[dict[str, Value]]:
    """The metrics of the first `count` samples, as Python numbers and lists: what fills a batch up comes last."""
    return [{name: np.asarray(values)[i].tolist() for name, values in metrics.items()} for i in range(count)]


def scalars(metrics: Mapping[str, Value]) -> dict[str, float]:
    """The metrics that are one number."""
    return {name: float(np.asarray(value)) for name, value in metrics.items() if np.ndim(value) == 0}


def summary(run: Run, evaluated: Sequence[Evaluated]) -> dict[str, Value]:
    """The metrics of all samples together."""
    return run.task.summarise([metrics for batch in evaluated for metrics in batch.metrics])
