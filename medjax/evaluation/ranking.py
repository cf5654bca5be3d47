"""Several runs on the same test patients: one ranking with intervals, paired tests and what each method costs."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from medjax import registry
from medjax.data.split import fingerprint
from medjax.evaluation.compare import compare, metrics_of
from medjax.evaluation.references import choose_strengths, references_of
from medjax.measures.statistics import Standing, standings
from medjax.train import sharding
from medjax.train.evaluator import EVAL_SEED, Evaluator
from medjax.train.run import Config, Run, load_splits, restore_best
from medjax.train.step import make_predict
from medjax.types import Batch, Metric, Prediction, Region, State, UserError, Value

ROUNDS = 5  # timed calls, of which the median counts


@dataclass(frozen=True)
class Cost:
    """What a network takes: its parameters, and for one sample floating-point operations, seconds and bytes of memory."""

    parameters: int
    flops: float
    seconds: float
    memory: int


@dataclass(frozen=True)
class Ranking:
    """Methods from the best to the worst by `metric`, over `patients`; `costs` of those that are networks."""

    metric: Metric
    patients: int
    standings: dict[str, Standing]
    costs: dict[str, Cost]


def rank(workdirs: Sequence[Path], split: str = "test") -> Ranking:
    """Ranks the runs and the first one's references on the samples of `split`.

    Raises UserError where the runs have other tasks, ranges of values, metrics or samples: their numbers don't compare.
    """
    runs = [restore_best(workdir) for workdir in workdirs]
    splits = [load_splits(run.config, workdir) for (run, _), workdir in zip(runs, workdirs, strict=True)]
    regions = [own[split] for own in splits]
    check_comparable(workdirs, [run for run, _ in runs], regions, split)
    samples: list[dict[str, dict[str, Value]]] = []
    patients: list[str] = []
    costs: dict[str, Cost] = {}
    for i, ((run, state), workdir) in enumerate(zip(runs, workdirs, strict=True)):
        evaluator = Evaluator(run, sharding.make_mesh())
        references = references_of(run) if i == 0 else {}
        strengths = choose_strengths(run, evaluator, splits[i]["val"], workdir, references)
        found = compare(run, state, evaluator, regions[i], references, strengths)
        named = [{(workdir.name if row == "model" else row): values for row, values in sample.items()}
                 for sample in found.per_sample]
        samples = named if i == 0 else [{**a, **b} for a, b in zip(samples, named, strict=True)]
        patients = found.patients
        costs[workdir.name] = cost(run, state, evaluator, regions[i])
    metric = metrics_of(runs[0][0])[runs[0][0].config.metric]
    ranked = standings(samples, patients, metric, summarise=runs[0][0].task.summarise)
    if not ranked:
        raise UserError("config.metric", f"{metric.name} is no number of each sample or patient; runs can't be compared "
                        "by it")
    return Ranking(metric, len(set(patients)), ranked, costs)


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
