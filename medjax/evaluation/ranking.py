"""Several runs on the same test patients: one ranking with intervals, paired tests and what each method costs."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np

from medjax import registry
from medjax.data.split import fingerprint
from medjax.evaluation.compare import Sample, compare, metrics_of, pictured
from medjax.evaluation.references import choose_strengths, references_of
from medjax.evaluation.run import pseudonyms_of
from medjax.measures.statistics import Standing, standings
from medjax.train import sharding
from medjax.train.evaluator import EVAL_SEED, Evaluator, scalars
from medjax.train.run import Config, Run, load_splits, restore_best
from medjax.train.step import make_predict
from medjax.types import Batch, Metric, Prediction, Reference, Region, Splits, State, UserError, Value

ROUNDS = 5  # timed calls, of which the median counts
DIFFERING, SPREAD = 4, 2  # samples with images: those that the runs differ most on, and evenly spread ones


@dataclass(frozen=True)
class Cost:
    """What a network takes: its parameters, and for one sample floating-point operations, seconds and bytes of memory."""

    parameters: int
    flops: float
    seconds: float
    memory: int


@dataclass(frozen=True)
class Ranking:
    """Methods from the best to the worst by `metric`, over `patients`; `costs` of those that are networks.

    `between` are the runs alone, compared with the best of them.
    `per_sample` has the numbers of every method by metric, `rows` their means, `names` what the samples are called, under
    pseudonyms. `shown` are samples with the images of all runs: those on which these differ most, then evenly spread ones.
    """

    metric: Metric
    patients: int
    standings: dict[str, Standing]
    between: dict[str, Standing]
    costs: dict[str, Cost]
    metrics: dict[str, Metric]
    rows: dict[str, dict[str, float]]
    per_sample: list[dict[str, dict[str, float]]]
    names: list[str]
    shown: list[Sample]


@dataclass(frozen=True)
class Contestant:
    """A run that is ranked: what it is made of, its splits and its evaluator."""

    workdir: Path
    run: Run
    state: State
    splits: Splits
    evaluator: Evaluator


def rank(workdirs: Sequence[Path], split: str = "test") -> Ranking:
    """Ranks the runs and the first one's references on the samples of `split`.

    Raises UserError where the runs have other tasks, ranges of values, metrics or samples: their numbers don't compare.
    """
    restored = [restore_best(workdir) for workdir in workdirs]
    entered = [Contestant(workdir, run, state, load_splits(run.config, workdir), Evaluator(run, sharding.make_mesh()))
               for workdir, (run, state) in zip(workdirs, restored, strict=True)]
    references = references_of(entered[0].run)
    check_comparable(workdirs, [one.run for one in entered], [one.splits[split] for one in entered], split)
    for workdir in workdirs:
        if workdir.name in (*references, "truth"):
            raise UserError(workdir, f"{workdir.name} is the name of another row; rename the folder")
    strengths = choose_strengths(entered[0].run, entered[0].evaluator, entered[0].splits["val"], workdirs[0], references)
    samples: list[dict[str, dict[str, Value]]] = []
    labels: list[str] = []
    patients: list[str] = []
    costs: dict[str, Cost] = {}
    for one in entered:
        regions, name = one.splits[split], one.workdir.name
        found = compare(one.run, one.state, one.evaluator, regions, {} if samples else references, strengths, shown=0)
        named = [{(name if row == "model" else row): values for row, values in sample.items()}
                 for sample in found.per_sample]
        if not samples:
            samples, labels, patients = named, found.names, found.patients
        else:
            samples = [{**a, **b} for a, b in zip(samples, named, strict=True)]
        costs[name] = cost(one.run, one.state, one.evaluator, regions)
    task, metrics = entered[0].run.task, metrics_of(entered[0].run)
    metric = metrics[entered[0].run.config.metric]
    ranked = standings(samples, patients, metric, summarise=task.summarise)
    if not ranked:
        raise UserError("config.metric", f"{metric.name} is no number of each sample or patient; runs can't be compared "
                        "by it")
    alone = [{row: sample[row] for row in costs} for sample in samples]
    means = {row: scalars(task.summarise([sample[row] for sample in samples])) for row in ranked}
    numbers = [{row: scalars(values) for row, values in sample.items()} for sample in samples]
    salted = pseudonyms_of(workdirs[0], entered[0].splits[split])
    pictures = _pictures(entered, split, ranked, metric, numbers, labels, references, strengths)
    return Ranking(
        metric, len(set(patients)), ranked, standings(alone, patients, metric, summarise=task.summarise), costs, metrics,
        {row: {name: found[name] for name in metrics if name in found} for row, found in means.items()}, numbers,
        [salted(label) for label in labels], [replace(sample, name=salted(sample.name)) for sample in pictures])


def _pictures(entered: Sequence[Contestant], split: str, ranked: Mapping[str, Standing], metric: Metric,
              numbers: Sequence[Mapping[str, Mapping[str, float]]], labels: Sequence[str],
              references: Mapping[str, Reference], strengths: Mapping[str, float]) -> list[Sample]:
    """Samples with the images of the input, the best reference, every run and the truth."""
    runs = [one.workdir.name for one in entered]
    kept = [row for row in ranked if row in references and row != "input"][:1]
    wanted = {name: references[name] for name in references if name in ("input", *kept)}
    chosen = [labels[i] for i in _differing(runs, metric, numbers)]
    each = [pictured(one.run, one.state, one.evaluator, one.splits[split], chosen, {} if i else wanted, strengths)
            for i, one in enumerate(entered)]
    order = [*[row for row in ranked if row in runs][1::-1], *[row for row in ranked if row in runs][2:]]
    found = []
    for name in chosen:
        made = {row: own[name].images["model"] for row, own in zip(runs, each, strict=True) if "model" in own[name].images}
        others = {row: image for row, image in each[0][name].images.items() if row != "model"}
        found.append(replace(each[0][name], images={**{row: made[row] for row in order if row in made}, **others}))
    return found


def _differing(runs: Sequence[str], metric: Metric, numbers: Sequence[Mapping[str, Mapping[str, float]]]) -> list[int]:
    """Which samples the runs differ most on, by the metric, the greatest first; then some that are evenly spread."""
    apart = [float(np.ptp([sample[row].get(metric.name, np.nan) for row in runs])) for sample in numbers]
    order = sorted((i for i, value in enumerate(apart) if np.isfinite(value)), key=lambda i: -apart[i])[:DIFFERING]
    spread = [int((i + 0.5) * len(numbers) / SPREAD) for i in range(SPREAD)]
    return list(dict.fromkeys([*order, *spread]))


def cost(run: Run, state: State, evaluator: Evaluator, regions: list[Region]) -> Cost:
    """What the prediction of the first sample takes, compiled for it."""
    batch = next(iter(evaluator.batches(regions, 1)))
    arrays = {name: array for name, array in batch.items() if name != "name"}
    rows, evaluated = int(arrays["image"].shape[0]), make_predict(run.task, run.objective)

    def predict(batch: Batch) -> Prediction:  # what is measured of it is not compiled
        return evaluated(state, batch, jax.random.key(EVAL_SEED))[1]

    compiled = jax.jit(predict).lower(arrays).compile()
    jax.block_until_ready(compiled(arrays))
    seconds = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        jax.block_until_ready(compiled(arrays))
        seconds.append(time.perf_counter() - begin)
    analysis, memory = compiled.cost_analysis() or {}, compiled.memory_analysis()
    used = 0 if memory is None else (memory.temp_size_in_bytes + memory.argument_size_in_bytes +
                                     memory.output_size_in_bytes)
    count = sum(int(np.size(leaf)) for leaf in jax.tree.leaves(state.for_use()[0]))
    return Cost(count, float(analysis.get("flops", float("nan"))) / rows, float(np.median(seconds)) / rows, int(used))


def _identity(config: Config) -> dict[str, object]:
    """What numbers of two runs must have in common to compare: the task, the range of values, the metric."""
    return {f"task.{key}": value for key, value in registry.flat(config.task).items()} | {
        "data.range": tuple(config.data.range), "data.ndim": config.data.ndim, "metric": config.metric}


def check_comparable(workdirs: Sequence[Path], runs: Sequence[Run], regions: Sequence[list[Region]], split: str) -> None:
    """Raises UserError for runs of other tasks, ranges of values, metrics or samples of `split` than the first one's."""
    if len({workdir.name for workdir in workdirs}) < len(workdirs):
        raise UserError(workdirs[-1], "another run has a folder of this name; rename one")
    for workdir, found in zip(workdirs, regions, strict=True):
        if not found:
            raise UserError(workdir, f"the data has no {split} part")
    first = _identity(runs[0].config)
    for workdir, run in zip(workdirs[1:], runs[1:], strict=True):
        other = _identity(run.config)
        differing = [key for key in sorted(first | other) if first.get(key) != other.get(key)]
        if differing:
            key = differing[0]
            raise UserError(workdir, f"config.{key} is {other.get(key)} here and {first.get(key)} in {workdirs[0].name}; "
                            "numbers of different tasks don't compare")
    prints = [fingerprint({split: found}) for found in regions]
    for workdir, mark in zip(workdirs[1:], prints[1:], strict=True):
        if mark != prints[0]:
            raise UserError(workdir, f"its {split} samples are not those of {workdirs[0].name}; train both on one data set "
                            "with one seed of the split")
