"""A trained run judged on one part of its data: numbers, pictures, and where they are."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from medjax.evaluation.compare import Assessment, Sample, assess
from medjax.files import write_atomically
from medjax.report import page
from medjax.report.table import best, table
from medjax.train import distributed
from medjax.train.evaluator import scalars
from medjax.train.log import read_curves
from medjax.train.loop import restore_best
from medjax.train.run import Run, load_splits
from medjax.types import UserError


def evaluate_run(workdir: Path, split: str = "test") -> None:
    """Judges the run's best checkpoint on `split`; writes `eval/` in its folder, prints the table and where it is.

    Several processes judge together, and the first one writes.
    """
    run, state = restore_best(workdir)
    splits, step = load_splits(run.config), int(state.step)
    if not splits[split]:
        raise UserError("--split", f"the data has no {split} part")
    if distributed.speaks():
        print(f"evaluating the checkpoint of step {step} on the {split} part")
    assessment = assess(run, state, splits[split])
    if distributed.speaks():
        _write(workdir, split, run, step, assessment)


def _write(workdir: Path, split: str, run: Run, step: int, assessment: Assessment) -> None:
    rows, n, task, data_range = assessment.rows, len(assessment.names), run.config.task.name, run.task.data_range
    folder = workdir / "eval"
    folder.mkdir(exist_ok=True)
    summary = {"task": task, "split": split, "n": n, "step": step, "data_range": list(data_range), "rows": rows}
    per_sample = [{row: scalars(values) for row, values in sample.items()} for sample in assessment.per_sample]
    summary |= {"tables": assessment.tables} if any(assessment.tables.values()) else {}
    write_atomically(folder / "metrics.json", json.dumps(summary, indent=1))
    write_atomically(folder / "per_sample.csv", _csv(assessment))
    page.write(folder / "report.html", title=workdir.name, task=task, split=split, n=n, data_range=data_range, rows=rows,
               per_sample=per_sample, curves=read_curves(workdir), panels=_panels(assessment, run),
               config=run.config.to_json(indent=1))
    print(table(rows))
    for name, value in assessment.tables["model"].items():
        print(f"{name}:\n{np.asarray(value)}")
    print(f"{n} {split} samples; pictures and curves: {folder / 'report.html'}")


def _csv(assessment: Assessment) -> str:
    """One line for each sample and row; a metric that is a list takes one column for each entry."""
    text = io.StringIO()
    flat = [{row: _columns(values) for row, values in rows.items()} for rows in assessment.per_sample]
    metrics = list(flat[0]["model"])
    writer = csv.writer(text)
    writer.writerow(["sample", "row", *metrics])
    for name, rows in zip(assessment.names, flat, strict=True):
        writer.writerows([name, row, *(values[m] for m in metrics)] for row, values in rows.items())
    return text.getvalue()


def _columns(values: dict[str, Any]) -> dict[str, float]:
    flat: dict[str, float] = {}
    for name, value in values.items():
        flat |= {f"{name}_{i}": v for i, v in enumerate(np.ravel(value))} if np.ndim(value) else {name: value}
    return flat


def _panels(assessment: Assessment, run: Run) -> list[page.Panel]:
    """The shown samples, as the task pictures them: input, the best baseline on average, model, and truth or what else."""
    baselines = [name for name in assessment.rows if name not in ("input", "model")]
    leader = best(assessment.rows, run.config.metric, among=baselines)
    wanted = ["input", *([leader] if leader else []), "model"]
    panels = []
    for sample in assessment.shown:
        others = [row for row in sample.images if row not in (*wanted, *assessment.rows)]
        shown = [row for row in (*wanted, *others) if row in sample.images]
        panels += _planes(sample, shown, run.task.data_range)
    return panels


def _planes(sample: Sample, shown: list[str], window: tuple[float, float]) -> Iterator[page.Panel]:
    """An image, or three planes through the middle of a volume."""
    record, space = sample.record, sample.images[shown[0]].shape[:-1]
    planes = {"": ()} if len(space) == 2 else {" axial": (space[0] // 2,), " coronal": (slice(None), space[1] // 2),
                                               " sagittal": (slice(None), slice(None), space[2] // 2)}
    spacing = record.spacing_mm[-len(space):] or (1.0,) * len(space)
    for plane, at in planes.items():
        cut = [axis for axis, index in enumerate(at) if not isinstance(index, slice)]
        images = {row: _drawable(sample.images[row][at]) for row in shown}
        yield page.Panel(sample.name + plane, images, window, tuple(np.delete(spacing, cut)), sample.metrics,
                         anatomical=record.affine is not None, mask=sample.mask[at])


def _drawable(image: np.ndarray) -> np.ndarray:
    """`(H, W)` or `(H, W, 3)`."""
    return image if image.shape[-1] == 3 else image[..., 0]
