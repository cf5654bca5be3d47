"""A trained model beside its input and the methods without training, on one part of the split."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from medjax.evaluation.references import measured, together
from medjax.infer.removed import NoiseOf
from medjax.tasks._restoration import Restoration
from medjax.train import distributed, sharding
from medjax.train.evaluator import Evaluated, Evaluator, scalars
from medjax.train.run import Run, described
from medjax.types import Example, Metric, NetworkInput, Prediction, Record, Reference, Region, State, Value

SHOWN = 4  # samples with images, evenly spread
WORST = 2  # and the worst ones of the model, by the leading metric


@dataclass(frozen=True)
class Sample:
    """One sample for a figure: images `(*space, C)` in physical units by row, the `mask` `(*space,)` of what counts, and the
    metrics; the `spread` `(*space, C)` of the model's predictions in physical units, where it has any; what the model
    `removed` `(*space,)` from the input that noise does not explain, where it denoises.
    """

    name: str
    record: Record
    images: dict[str, np.ndarray]
    mask: np.ndarray
    metrics: dict[str, dict[str, float]]
    spread: np.ndarray | None = None
    removed: np.ndarray | None = None


@dataclass(frozen=True)
class Comparison:
    """Metrics by row ("input", each reference, "model"), per sample and over all (numbers, and tables such as a confusion
    matrix); whose each sample is; some samples to look at, and those of the rest that the model does worst, the worst first.
    """

    per_sample: list[dict[str, dict[str, Value]]]
    names: list[str]
    patients: list[str]
    shown: list[Sample]
    worst: list[Sample]
    rows: dict[str, dict[str, float]]
    tables: dict[str, dict[str, Value]]


def metrics_of(run: Run) -> dict[str, Metric]:
    """The task's metrics by name, with the units that the run has (see `described`)."""
    return described(run.config, run.task)


def compare(run: Run, state: State, evaluator: Evaluator, regions: list[Region], references: Mapping[str, Reference],
            strengths: Mapping[str, float], limit: int = 0, shown: int = SHOWN, worst: int = 0,
            watch: Callable[[Evaluated], None] = lambda batch: None, removed: bool = False) -> Comparison:
    """Evaluates the model and every reference, at its strength, on all samples of `regions`, or on `limit` of them.

    Both these and the `shown` ones that the result has images of are evenly spread; it has images of the `worst` ones, too,
    by the run's metric. `watch` sees every batch. With `removed` the `shown` ones of a run that denoises have what it took
    that noise does not explain.
    All devices evaluate together; of several processes the first has the result, the others one without samples.
    """
    batches = evaluator.batches(regions, limit)
    state = jax.device_put(state, sharding.replicated(evaluator.mesh))
    measure = measured(run)
    pictured = min(shown, batches.samples)
    pictured_at = {int((i + 0.5) * batches.samples / pictured) for i in range(pictured)}
    per_sample: list[dict[str, dict[str, Value]]] = []
    names: list[str] = []
    records = {region.record.id: region.record for region in regions}
    pictures: list[Sample] = []
    noise = NoiseOf(run.task) if removed and isinstance(run.task, Restoration) and run.task.noise_alone else None
    hardest: list[tuple[float, Sample]] = []
    bar = tqdm(total=batches.samples, desc="evaluate", unit="image", dynamic_ncols=True,
               disable=not distributed.is_primary())
    for batch in evaluator(state, batches):
        bar.update(len(batch.names))
        watch(batch)
        if not distributed.is_primary():
            continue
        made: dict[str, Prediction] = {}
        rows: dict[str, list[dict[str, Value]]] = {}
        if batch.example is not None:
            run_one = partial(_predicted, references, strengths, batch.example)
            made = dict(zip(references, together(run_one, references), strict=True))
            rows = {name: measure(pred.image, batch.example) for name, pred in made.items()}
        for i, name in enumerate(batch.names):
            scores = {row: found[i] for row, found in rows.items()} | {"model": batch.metrics[i]}
            if len(names) in pictured_at and batch.example is not None:
                sample = _sample(run, batch, i, made, scores, owner(name, records))
                pictures.append(sample if noise is None else replace(sample, removed=_removed(noise, batch, i)))
            elif batch.example is not None and _is_worse(merit := _merit(run, scores), hardest, worst):
                hardest.append((merit, _sample(run, batch, i, made, scores, owner(name, records))))
                hardest = sorted(hardest, key=lambda one: one[0])[:worst]
            per_sample.append(scores)
            names.append(name)
    bar.close()
    if not distributed.is_primary():
        return Comparison([], [], [], [], [], {}, {})
    summaries = {row: run.task.summarise([sample[row] for sample in per_sample]) for row in per_sample[0]}
    order = metrics_of(run)
    rows_ = {row: {name: found[name] for name in order if name in found}
             for row, found in ((row, scalars(summary)) for row, summary in summaries.items())}
    tables = {row: {k: v for k, v in summary.items() if np.ndim(v)} for row, summary in summaries.items()}
    patients = [owner(name, records).subject for name in names]
    return Comparison(per_sample, names, patients, pictures, [sample for _, sample in hardest], rows_, tables)


def pictured(run: Run, state: State, evaluator: Evaluator, regions: list[Region], wanted: Collection[str],
             references: Mapping[str, Reference], strengths: Mapping[str, float]) -> dict[str, Sample]:
    """The samples of these names with the images of the model and of `references`, without their metrics."""
    state = jax.device_put(state, sharding.replicated(evaluator.mesh))
    records = {region.record.id: region.record for region in regions}
    found: dict[str, Sample] = {}
    for batch in evaluator(state, (b for b in evaluator.batches(regions) if not set(wanted).isdisjoint(b["name"]))):
        assert batch.example is not None
        made = {name: _predicted(references, strengths, batch.example, name) for name in references}
        found |= {name: _sample(run, batch, i, made, {}, owner(name, records))
                  for i, name in enumerate(batch.names) if name in wanted}
    return found


def _merit(run: Run, scores: Mapping[str, Mapping[str, Value]]) -> float:
    """The model's value by the run's metric, turned so that more is better."""
    value = scalars(scores["model"]).get(run.config.metric, np.nan)
    return -value if metrics_of(run)[run.config.metric].lower_is_better else value


def _is_worse(merit: float, hardest: Sequence[tuple[float, Sample]], most: int) -> bool:
    return most > 0 and not np.isnan(merit) and (len(hardest) < most or merit < hardest[-1][0])


def _predicted(references: Mapping[str, Reference], strengths: Mapping[str, float], example: Example,
               name: str) -> Prediction:
    return Prediction(jax.device_get(references[name].run(example, strengths[name])))


def _sample(run: Run, batch: Evaluated, index: int, made: Mapping[str, Prediction],
            scores: dict[str, dict[str, Value]], record: Record) -> Sample:
    """What a figure shows of one sample, without the padding that made its batch one shape."""
    whole = batch.example
    assert whole is not None
    image, others = whole.input.image, (whole.target, whole.mask, whole.ids, whole.spacing_mm, whole.extras)
    example = Example(NetworkInput(image[index]), *jax.tree.map(lambda a: a[index], others))  # operators have no rows
    predictions = {row: jax.tree.map(lambda a: a[index], pred) for row, pred in {**made, "model": batch.prediction}.items()}
    mask = np.asarray(example.mask)
    images = {row: _cut(image, mask) for row, image in run.task.render(example, predictions).items()}
    numbers = {row: scalars(found) for row, found in scores.items()}
    leading = {row: {name: found[name] for name in metrics_of(run) if name in found} for row, found in numbers.items()}
    low, high = run.task.data_range
    std = predictions["model"].std
    return Sample(batch.names[index], record, images, _cut(mask, mask)[..., 0], leading,
                  None if std is None else _cut(np.asarray(std) * (high - low), mask))


def _removed(noise: NoiseOf, batch: Evaluated, index: int) -> np.ndarray:
    """What the model took from a sample's input, or added, that noise on its true image does not explain; 0 elsewhere."""
    example, pred = batch.example, batch.prediction
    assert example is not None
    assert pred is not None
    given, truth, mask, ids, spacing = (np.asarray(array)[index] for array in (
        example.input.image, example.target, example.mask, example.ids, example.spacing_mm))
    sample = {"image": truth, "slope": np.float32(1), "intercept": np.float32(0), "count": np.float32(1), "id": ids,
              "spacing_mm": spacing}
    made = np.asarray(pred.image[index])
    found = noise({name: jnp.asarray(value)[None] for name, value in sample.items()}, given, made, truth, mask[..., 0])
    return _cut(found.shown, mask)


def owner(name: str, records: Mapping[str, Record]) -> Record:
    """The record of a sample: "scan:z12" is of "scan"."""
    while name not in records:
        name = name.rpartition(":")[0]
    return records[name]


def _cut(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The part of an image `(*space, ...)` that holds all that its mask `(*space, 1)` counts."""
    inside = np.argwhere(mask[..., 0])
    low, high = inside.min(0), inside.max(0) + 1
    return image[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
