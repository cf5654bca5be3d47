"""Whether a reconstruction in use agrees with what was measured, beside what the run's evaluation has found to be usual."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np
from absl import logging

from medjax.data.pipeline import whole_batch
from medjax.infer.predict import Predict
from medjax.measures.consistency import RESIDUAL
from medjax.tasks._base import spacing_of
from medjax.tasks._reconstruction import Reconstruction
from medjax.train.run import Run
from medjax.types import Array, Batch, Destination, Operator, Prediction, Record, Task, Tree

EVALUATED = Path("eval") / "metrics.json"
NAME = "check"


@dataclass(frozen=True)
class Limits:
    """The residuals above which an image is warned of, in parts of `unit` ("noise" or "measurement").

    `truth` is the largest of true test images: what noise and differences between simulation and reconstruction explain.
    `usual` is the largest of this run's test images. NaN where the run has not been evaluated.
    """

    unit: str
    truth: float = math.nan
    usual: float = math.nan


def limits_of(task: Task, workdir: Path) -> Limits | None:
    """The limits of a run of a task, from its evaluation; None where images are not compared with measurements."""
    if not isinstance(task, Reconstruction):
        return None
    unit = "noise" if task.noisy else "measurement"
    try:
        found = json.loads((workdir / EVALUATED).read_text(encoding="utf-8"))["consistency"]["rows"]
        return Limits(unit, found["truth"]["largest"], found["model"]["largest"])
    except (OSError, ValueError, KeyError):
        return Limits(unit)


def with_residuals(predict: Predict, run: Run) -> Predict:
    """As `predict`, of a reconstruction, with the residual of each image among the extras: one, or `(slices,)`.

    The whole image is compared, however it was predicted.
    """
    task = run.task
    assert isinstance(task, Reconstruction)
    reconstruction = task

    def residual(batch: Batch, operator: Operator | None, image: Array) -> Array:
        found: dict[str, Tree] = {**batch} if operator is None else {**batch, "operator": operator}
        return reconstruction.residuals(image, task.input(found), spacing_of(batch, task.input_ndim))[0]

    program = jax.jit(residual)

    def found(record: Record) -> Prediction:
        made, operator, ndim = predict(record), task.operators(record), task.input_ndim
        images = [made.image] if record.ndim == ndim else list(made.image)
        each: Tree = np.array([program(whole_batch(record, ndim, i), operator, image[None])
                               for i, image in enumerate(images)])
        return replace(made, extras={**made.extras, RESIDUAL: each[0] if record.ndim == ndim else each})

    return found


@dataclass(frozen=True)
class Check:
    """The residuals of a study's images, `(images,)`, and the `limits` above which they are warned of."""

    residuals: np.ndarray
    limits: Limits

    @classmethod
    def of(cls, predictions: Sequence[Prediction], limits: Limits) -> "Check | None":
        """The check of predictions by `with_residuals`; None where nothing was compared."""
        found = np.concatenate([np.ravel(np.asarray(made.extras[RESIDUAL])) for made in predictions])
        return cls(found, limits) if np.isfinite(found).any() else None

    @property
    def beyond(self) -> np.ndarray:
        """Which images leave more than what explains the residuals of true ones. Without noise nothing is a right residual
        but 0, and those beyond what is usual of the run count."""
        limit = self.limits.truth if self.limits.unit == "noise" else self.limits.usual
        return np.flatnonzero(self.residuals > limit)

    def warning(self, name: str) -> str:
        """What there is to be warned of, "" for nothing."""
        many, limits, most = len(self.beyond), self.limits, float(np.nanmax(self.residuals))
        if not many:
            return ""
        count = len(self.residuals)
        what = f"{many} of {count} images don't agree" if count > 1 else "the image doesn't agree"
        said = f"{name}: {what} with the measurement: a residual of {most:.3g} times the {limits.unit}, where "
        said += f"true test images have at most {limits.truth:.3g}; " if limits.unit == "noise" else ""
        return said + (f"test images of this run have at most {limits.usual:.3g}" + (
            ", so this is more than is usual of it" if most > limits.usual else ", so this is usual of it"))

    def write(self, destination: Destination) -> None:
        """Writes `NAME_check.json`."""
        numbers = {name: value if math.isfinite(value) else None for name, value in (
            ("limit_truth", self.limits.truth), ("limit_usual", self.limits.usual))}
        destination.file(NAME, ".json").write_text(json.dumps({
            "residual_unit": self.limits.unit, "residuals": [float(r) if np.isfinite(r) else None for r in self.residuals],
            **numbers, "beyond": self.beyond.tolist()}, indent=1), encoding="utf-8")


def warn(check: Check, name: str) -> None:
    """Warns of a study called `name`, if there is anything to be warned of."""
    said = check.warning(name)
    if said:
        logging.warning("%s", said)
