"""Judging a model on one part of the split: every sample once, on what counts."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from medjax.data.pipeline import EvalBatches, eval_batches
from medjax.data.split import Region
from medjax.train.setup import Config, Run
from medjax.types import State

EVAL_SEED = 1  # the degradation of evaluation images is the same in every run


class Judged(NamedTuple):
    """One sample, on the host: its arrays without the padding of the batch, and its metrics."""

    name: str
    example: Any
    pred: np.ndarray
    metrics: dict[str, Any]


def make_batches(config: Config, regions: list[Region], limit: int = 0) -> EvalBatches:
    """Whole images of `regions`, as many at a time as hold about as many voxels as a training batch."""
    def of(size: int) -> EvalBatches:
        return eval_batches(regions, batch_size=size, ndim=config.data.ndim, limit=limit)

    voxels = config.batch_size * math.prod(config.data.patch) if config.data.patch else 0
    return of(min(config.batch_size, max(1, voxels // math.prod(of(1).shape))))


def judge(run: Run, predict: Callable, state: State, batches: Iterable[dict[str, Any]]) -> Iterator[Judged]:
    """Every sample of `batches` with its prediction and metrics. `predict` is the jitted `make_predict`."""
    key = jax.random.key(EVAL_SEED)
    for batch in batches:
        names = batch["name"]
        arrays = {k: v for k, v in batch.items() if k != "name"}
        example, pred, metrics = jax.device_get(predict(state, arrays, key))
        for i, name in enumerate(names):
            if batch["count"][i]:
                yield Judged(name, jax.tree.map(lambda a, i=i: a[i], example), pred[i],
                             {k: v[i].tolist() for k, v in metrics.items()})


def scalars(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The metrics that are one number."""
    return {name: float(value) for name, value in metrics.items() if np.ndim(value) == 0}
