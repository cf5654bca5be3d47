"""A trained model beside its input and the classical baselines, on one part of the split."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from medjax.data.split import Region
from medjax.train import distributed, evaluator, sharding
from medjax.train.run import Run
from medjax.types import Example, Record, State

SHOWN = 4


@dataclass(frozen=True)
class Sample:
    """One judged sample for a figure: images `(*space, C)` in physical units by row, the `mask` `(*space,)` of what counts,
    and the metrics.
    """

    name: str
    record: Record
    images: dict[str, np.ndarray]
    mask: np.ndarray
    metrics: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Assessment:
    """Metrics by row ("input", each baseline, "model"), per sample and over all (numbers, and tables such as a confusion
    matrix); some samples to look at.
    """

    per_sample: list[dict[str, dict[str, Any]]]
    names: list[str]
    shown: list[Sample]
    rows: dict[str, dict[str, float]]
    tables: dict[str, dict[str, Any]]


def assess(run: Run, state: State, regions: list[Region], limit: int = 0) -> Assessment:
    """Judges the model, its input as it is, and every baseline of the task on all samples of `regions`.

    All devices judge together; of several processes the first has the result, the others one without samples.
    """
    mesh = sharding.make_mesh()
    judge = evaluator.Judge(run, mesh)
    batches = judge.batches(regions, limit)
    state = jax.device_put(state, sharding.replicated(mesh))
    rate = jax.jit(partial(_metrics, run.task))
    shown_at = {int((i + 0.5) * batches.samples / SHOWN) for i in range(min(SHOWN, batches.samples))}
    per_sample, names, shown = [], [], []
    judged = tqdm(judge(state, batches), total=batches.samples, desc="evaluate", unit="image", dynamic_ncols=True,
                  disable=not distributed.speaks())
    for i, sample in enumerate(judged):
        if not distributed.speaks():
            continue
        answers = run.task.compared(sample.example)
        scores = {row: {k: np.asarray(v).tolist() for k, v in rate(answer, sample.example).items()}
                  for row, answer in answers.items()} | {"model": sample.metrics}
        per_sample.append(scores)
        names.append(sample.name)
        if i in shown_at:
            pictures = run.task.pictures(sample.example, answers | {"model": sample.pred})
            pictures = {row: _cut(image, sample.example) for row, image in pictures.items()}
            mask = _cut(np.asarray(sample.example.mask), sample.example)[..., 0]
            leading = {row: _leading(run.config.metric, evaluator.scalars(metrics)) for row, metrics in scores.items()}
            shown.append(Sample(sample.name, _record(sample.name, regions), pictures, mask, leading))
    if not distributed.speaks():
        return Assessment([], [], [], {}, {})
    summaries = {row: run.task.summary([sample[row] for sample in per_sample]) for row in per_sample[0]}
    rows = {row: _leading(run.config.metric, evaluator.scalars(summary)) for row, summary in summaries.items()}
    tables = {row: {k: v for k, v in summary.items() if k not in rows[row]} for row, summary in summaries.items()}
    return Assessment(per_sample, names, shown, rows, tables)


def _leading(first: str, metrics: dict[str, float]) -> dict[str, float]:
    """The metrics with the one that chose the checkpoint first, for under jit a dictionary comes back sorted."""
    return {name: metrics[name] for name in sorted(metrics, key=lambda name: name != first)}


def _record(name: str, regions: list[Region]) -> Record:
    return next(r.record for r in regions if name == r.record.id or name.startswith(r.record.id + ":"))


def _metrics(task: Any, image: np.ndarray, example: Example) -> dict[str, Any]:
    one: Callable[[Any], Any] = partial(jax.tree.map, lambda a: a[None])
    return {name: values[0] for name, values in task.metrics(one(image), one(example)).items()}


def _cut(image: np.ndarray, example: Example) -> np.ndarray:
    """The image without the padding that made its batch one shape."""
    inside = np.argwhere(example.mask[..., 0])
    low, high = inside.min(0), inside.max(0) + 1
    return image[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
