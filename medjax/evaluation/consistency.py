"""Whether reconstructions agree with what was measured: residuals of every method and of the truth, over patients."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medjax.measures.consistency import RESIDUAL, TRUTH
from medjax.measures.statistics import Standing, by_patient, interval
from medjax.measures.summary import mean_of_numbers
from medjax.tasks._reconstruction import Reconstruction
from medjax.types import Task, Value

Samples = Sequence[Mapping[str, Mapping[str, Value]]]


def consistency(task: Task, samples: Samples, patients: Sequence[str]) -> dict[str, Any] | None:
    """The residuals of `samples` (metrics by method, for each) as JSON has them; None where there are none.

    `rows` has the mean over patients with its interval, and the largest, by method, and of the "truth": what noise, and the
    differences between what simulates and what reconstructs, leave of a right image.
    """
    if not isinstance(task, Reconstruction) or not samples or RESIDUAL not in samples[0]["model"]:
        return None
    found = {"truth": [_number(sample["model"][TRUTH]) for sample in samples]}
    found |= {row: [_number(sample[row][RESIDUAL]) for sample in samples] for row in samples[0]}
    if not np.isfinite(found["model"]).any():
        return None
    rows = {}
    for row, values in found.items():
        if not np.isfinite(values).any():  # magnitudes, which can't be measured again
            continue
        mean = by_patient(values, patients)
        rows[row] = {**Standing(mean_of_numbers(mean), *interval(mean)).numbers, "largest": float(np.nanmax(values))}
        del rows[row]["difference"], rows[row]["p"]
    return {"unit": "noise" if task.noisy else "measurement", "rows": rows}


def _number(value: Value) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
