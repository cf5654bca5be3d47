"""The strengths of reference methods, chosen on the validation part by the metric that a run is compared by."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias, TypeVar

import jax
import numpy as np
from tqdm import tqdm

from medjax import registry
from medjax.files import write_atomically
from medjax.train.evaluator import EVAL_SEED, Evaluator, rows_of, scalars
from medjax.train.run import Run
from medjax.types import Array, Example, Metric, Prediction, Reference, Region, Value, check_choice

SAMPLES = 4  # validation samples that a strength is chosen on
MOST = 12  # strengths tried of a method at most, beyond its grid where the best lies at an end
FILE = "references.json"
Made = TypeVar("Made")
Measure: TypeAlias = Callable[[Array, Example], list[dict[str, Value]]]


@dataclass(frozen=True)
class Examples:
    """Validation examples with their number of samples; the last rows of a batch may only fill it up."""

    batches: list[tuple[Example, int]]


def references_of(run: Run) -> dict[str, Reference]:
    """The references that `config.references` asks for. Raises UserError for one that the task has not."""
    found, wanted = run.task.references(), registry.frozen(run.config.references)
    if wanted == ("all",):
        return found
    if wanted == ("none",):
        return {name: reference for name, reference in found.items() if name == "input"}
    for name in wanted:
        check_choice("config.references", name, ("all", "none", *found))
    return {name: found[name] for name in ("input", *wanted) if name in found}


def together(function: Callable[[str], Made], names: Iterable[str]) -> Iterator[Made]:
    """`function` of each name, in their order, on as many threads as there are cores: libraries let go of Python's lock."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(function, names)


def measured(run: Run) -> Measure:
    """A function from a reference's images and their example to the metrics of its samples."""
    program = jax.jit(lambda image, example: run.task.measure(Prediction(image), example))
    return lambda image, example: rows_of(jax.device_get(program(image, example)), len(example.ids))


def examples_of(run: Run, evaluator: Evaluator, regions: list[Region], limit: int) -> Examples:
    """The evaluation examples of `regions`, on the host."""
    make = jax.jit(run.task.evaluation_example)
    batches = []
    for batch in evaluator.batches(regions, limit):
        arrays = {name: array for name, array in batch.items() if name != "name"}
        batches.append((jax.device_get(make(jax.random.key(EVAL_SEED), arrays)), int(batch["count"].sum())))
    return Examples(batches)


def choose_strengths(run: Run, evaluator: Evaluator, regions: list[Region], workdir: Path,
                     references: Mapping[str, Reference], file: str = FILE) -> dict[str, float]:
    """The strength of every reference, best by `config.metric` on `regions`; kept in the run's folder, in `file`.

    Where there is no validation part, a method takes the middle of its grid.
    """
    path = workdir / file
    known = _known(path, references)
    if not regions:
        return {name: known.get(name, _middle(reference)) for name, reference in references.items()}
    open_ = {name: reference for name, reference in references.items() if name not in known and reference.strengths}
    if open_:
        metric = next(m for m in run.task.metrics if m.name == run.config.metric)
        examples, measure = examples_of(run, evaluator, regions, SAMPLES), measured(run)

        def search(name: str) -> float:
            return _search(open_[name].strengths, partial(_score, run, measure, examples, open_[name], metric), metric)

        found = together(search, open_)
        bar = tqdm(found, "choosing strengths of references", len(open_), unit="method", leave=False, dynamic_ncols=True)
        known.update(zip(open_, bar, strict=True))
        write_atomically(path, json.dumps({name: {"strength": known[name], "grid": references[name].strengths}
                                           for name in known}, indent=1))
    return {name: known.get(name, 1.0) for name in references}


def _known(path: Path, references: Mapping[str, Reference]) -> dict[str, float]:
    """What was chosen before, on the same grids."""
    if not path.exists():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    return {name: entry["strength"] for name, entry in found.items()
            if name in references and list(references[name].strengths) == entry["grid"]}


def _middle(reference: Reference) -> float:
    return reference.strengths[len(reference.strengths) // 2] if reference.strengths else 1.0


def _score(run: Run, measure: Measure, examples: Examples, reference: Reference,
           metric: Metric, strength: float) -> float:
    rows: list[dict[str, Value]] = []
    for example, count in examples.batches:
        rows += measure(jax.device_get(reference.run(example, strength)), example)[:count]
    return scalars(run.task.summarise(rows))[metric.name]


def _search(grid: tuple[float, ...], score: Callable[[float], float], metric: Metric) -> float:
    """The best strength, climbing from the middle of the grid; beyond an end it goes on by the same factor."""
    tried: dict[float, float] = {}

    def value(strength: float) -> float:
        if strength not in tried:
            found = score(strength)
            tried[strength] = found if np.isfinite(found) else (np.inf if metric.lower_is_better else -np.inf)
        return tried[strength]

    strengths = list(grid)
    at = len(strengths) // 2
    while len(tried) < MOST:
        if at == 0:
            strengths.insert(0, float(f"{_beyond(strengths[0], strengths[1]):.3g}"))
            at = 1
        if at == len(strengths) - 1:
            strengths.append(float(f"{_beyond(strengths[-1], strengths[-2]):.3g}"))
        nearest = [at - 1, at, at + 1]
        best = nearest[1]
        for i in nearest:
            if metric.better(value(strengths[i]), value(strengths[best])):
                best = i
        if best == at:
            break
        at = best
    leader = min if metric.lower_is_better else max
    return leader(tried, key=tried.__getitem__)


def _beyond(end: float, inner: float) -> float:
    """One more step of a geometric grid; whole numbers go on by one, down to 1."""
    if float(end).is_integer() and float(inner).is_integer():
        return max(1.0, end + (end - inner))
    return end * end / inner
