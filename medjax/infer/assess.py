"""A trained model beside its input and the classical baselines, on one part of the split."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from medjax.data.split import Region
from medjax.train import evaluate
from medjax.train.setup import Run
from medjax.train.step import make_predict
from medjax.types import Example, Record, State

SHOWN = 4


@dataclass(frozen=True)
class Sample:
    """One judged sample for a figure: images `(*space, C)` in physical units by row, and their metrics."""

    name: str
    record: Record
    images: dict[str, np.ndarray]
    metrics: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Assessment:
    """Metrics by row ("input", each baseline, "model"), per sample and on average; some samples to look at."""

    per_sample: list[dict[str, dict[str, float]]]
    names: list[str]
    shown: list[Sample]

    @property
    def rows(self) -> dict[str, dict[str, float]]:
        """The mean of every metric, by row."""
        return {row: evaluate.mean([sample[row] for sample in self.per_sample]) for row in self.per_sample[0]}


def assess(run: Run, state: State, regions: list[Region], limit: int = 0) -> Assessment:
    """Judges the model, its input as it is, and every baseline of the task on all samples of `regions`."""
    batches = evaluate.make_batches(run.config, regions, limit)
    predict = jax.jit(make_predict(run.task, run.objective))
    rate = jax.jit(partial(_metrics, run.task))
    shown_at = {int((i + 0.5) * batches.samples / SHOWN) for i in range(min(SHOWN, batches.samples))}
    per_sample, names, shown = [], [], []
    judged = evaluate.judge(run, predict, state, batches)
    for i, sample in enumerate(tqdm(judged, total=batches.samples, desc="evaluate", unit="image", dynamic_ncols=True)):
        images = _answers(run.task, sample)
        scores = {row: {k: float(v) for k, v in rate(image, sample.example).items()} for row, image in images.items()}
        scores["model"] = sample.metrics
        per_sample.append(scores)
        names.append(sample.name)
        if i in shown_at:
            everything = images | {"model": sample.pred, "truth": sample.example.target}
            images = {row: in_units(_cut(image, sample.example), run.task.data_range) for row, image in everything.items()}
            shown.append(Sample(sample.name, _record(sample.name, regions), images, scores))
    return Assessment(per_sample, names, shown)


def in_units(image: np.ndarray, data_range: tuple[float, float]) -> np.ndarray:
    """From unit range to physical units."""
    low, high = data_range
    return image * (high - low) + low


def _record(name: str, regions: list[Region]) -> Record:
    return next(r.record for r in regions if name == r.record.id or name.startswith(r.record.id + ":"))


def _answers(task: Any, sample: evaluate.Judged) -> dict[str, np.ndarray]:
    """The input on the target's grid and every baseline's answer."""
    given = np.asarray(sample.example.input)
    shown = np.asarray(task.show(given[None])[0])
    return {"input": shown} | {name: fn(given) for name, fn in task.baselines().items()}


def _metrics(task: Any, image: np.ndarray, example: Example) -> dict[str, Any]:
    one: Callable[[Any], Any] = partial(jax.tree.map, lambda a: a[None])
    return {name: values[0] for name, values in task.metrics(one(image), one(example)).items()}


def _cut(image: np.ndarray, example: Example) -> np.ndarray:
    """The image without the padding that made its batch one shape."""
    inside = np.argwhere(example.mask[..., 0])
    low, high = inside.min(0), inside.max(0) + 1
    return image[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
