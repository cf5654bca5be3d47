"""Judging a model on one part of the split: every sample once, on what counts."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from medjax.data.pipeline import EvalBatches, eval_batches
from medjax.data.split import Region
from medjax.train import distributed, padding, sharding
from medjax.train.run import Run
from medjax.train.step import make_predict
from medjax.types import Batch, Key, State

EVAL_SEED = 1  # the degradation of evaluation images is the same in every run


class Judged(NamedTuple):
    """One sample, on the host: its arrays without the padding of the batch, and its metrics."""

    name: str
    example: Any
    pred: np.ndarray | None
    metrics: dict[str, Any]


class Judge:
    """Judges samples with one compiled program over `mesh`, the rows of a batch divided over its `data` axis.

    `only_metrics` leaves examples and answers on the devices (None in what is judged): volumes may be too large to be
    gathered. Several processes judge together; each gets all results.
    """

    def __init__(self, run: Run, mesh: Mesh, only_metrics: bool = False):
        self.run, self.mesh = run, mesh
        predict = make_predict(run.task, run.objective)

        def judged(state: State, batch: Batch, key: Key) -> tuple[Any, Any, dict[str, Any]]:
            example, pred, metrics = predict(state, batch, key)
            return (None, None, metrics) if only_metrics else (example, pred, metrics)

        everywhere = sharding.replicated(mesh) if only_metrics or distributed.several() else None
        self._program = jax.jit(judged, out_shardings=everywhere)

    def batches(self, regions: list[Region], limit: int = 0) -> EvalBatches:
        """Whole images of `regions`, as many at a time as hold about as many voxels as a training batch, and at least
        one on each device; filled up so that they divide over the mesh.
        """
        config, ways, space = self.run.config, self.mesh.shape["data"], self.mesh.shape["space"]

        def of(size: int, multiple: int = 1) -> EvalBatches:
            return eval_batches(regions, batch_size=size, ndim=config.data.ndim, limit=limit, multiple_of=multiple)

        one = of(1)
        first = {name: array for name, array in next(iter(one)).items() if name != "name"}
        multiple = padding.multiple_of(self.run, first, space)
        voxels = config.batch_size * math.prod(config.data.patch) if config.data.patch else 0
        size = min(config.batch_size, max(1, voxels // math.prod(one.shape)))
        return of(-(-size // ways) * ways, multiple)

    def __call__(self, state: State, batches: EvalBatches) -> Iterator[Judged]:
        """Every sample of `batches` with its prediction and metrics."""
        key = jax.random.key(EVAL_SEED)
        for batch in batches:
            arrays = {name: array for name, array in batch.items() if name != "name"}
            places = sharding.batch_sharding(self.mesh, arrays)
            # Every process has read all rows, and gives those that its own devices hold.
            placed = {name: jax.make_array_from_callback(array.shape, places[name], lambda at, array=array: array[at])
                      for name, array in arrays.items()}
            example, pred, metrics = jax.device_get(self._program(state, placed, key))
            for i, name in enumerate(batch["name"]):
                if batch["count"][i]:
                    yield Judged(name, jax.tree.map(lambda a, i=i: a[i], example), None if pred is None else pred[i],
                                 {k: v[i].tolist() for k, v in metrics.items()})


def scalars(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The metrics that are one number."""
    return {name: float(value) for name, value in metrics.items() if np.ndim(value) == 0}
