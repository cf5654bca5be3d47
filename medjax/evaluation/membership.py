"""How well a trained network tells whom it was trained on: training patients against those of the test part."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from medjax.evaluation.compare import Comparison, compare, metrics_of
from medjax.measures.membership import Attack, attack
from medjax.report.table import best
from medjax.train.evaluator import Evaluator, scalars
from medjax.train.run import Run
from medjax.types import Reference, Region, Splits, State, UserError, Value

FEWEST = 2  # patients of either part


def check_parts(splits: Splits, split: str, data: Path | None) -> None:
    """Raises UserError where training and test patients can't be compared."""
    if split != "test" or data is not None:
        raise UserError("--membership", "compares training and test patients of the run; leave out --split and --data")
    parts = [{region.record.subject for region in splits[name]} for name in ("train", "test")]
    if parts[0] & parts[1] or min(map(len, parts)) < FEWEST:
        raise UserError("--membership", f"needs {FEWEST} patients at least in training and test each, none in both; there "
                        f"are {len(parts[0])} and {len(parts[1])}")


def membership(run: Run, state: State, evaluator: Evaluator, regions: list[Region], tested: Comparison,
               references: Mapping[str, Reference], strengths: Mapping[str, float]) -> dict[str, Attack]:
    """Attacks by the name of their score, `config.metric` of all samples of a patient together; `regions` are of members.

    The second takes off the score of the method without training that does best on the part that was `tested`, whose
    patients are no members. Empty in processes that are not the first.
    """
    metric = metrics_of(run)[run.config.metric]
    rival = best(tested.rows, metric, [name for name in tested.rows if name != "model"]) if tested.rows else None
    chosen = {rival: references[rival]} if rival else {}
    trained = compare(run, state, evaluator, regions, chosen, strengths, shown=0)
    if not trained.names:
        return {}
    sign = -1.0 if metric.lower_is_better else 1.0

    def scores(found: Comparison, row: str) -> np.ndarray:
        of: dict[str, list[Mapping[str, Value]]] = {}
        for sample, patient in zip(found.per_sample, found.patients, strict=True):
            of.setdefault(patient, []).append(sample[row])
        return sign * np.array([scalars(run.task.summarise(own))[metric.name] for own in of.values()])

    parts = [trained, tested]
    found = {f"by {metric.title}": attack(*(scores(part, "model") for part in parts))}
    if rival:
        found[f"by {metric.title} less that of {rival}"] = attack(*(scores(part, "model") - scores(part, rival)
                                                                    for part in parts))
    return found
