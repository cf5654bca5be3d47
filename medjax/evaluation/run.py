"""A trained run evaluated on one part of its data: numbers, pictures, and where they are."""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from medjax.evaluation.compare import Comparison, Sample, compare, metrics_of
from medjax.evaluation.references import choose_strengths, references_of
from medjax.files import write_atomically
from medjax.report import page
from medjax.report.table import best, table
from medjax.train import distributed, sharding
from medjax.train.evaluator import Evaluator, scalars
from medjax.train.log import read_curves
from medjax.train.run import Run, load_splits, restore_best
from medjax.types import UserError, Value


def evaluate_run(workdir: Path, split: str = "test") -> None:
    """Evaluates the run's best checkpoint on `split`; writes `eval/` in its folder, prints the table and where it is.

    Several processes evaluate together, and the first one writes. Raises UserError where the data has no such part.
    """
    with distributed.together():
        run, state = restore_best(workdir)
        splits, step = load_splits(run.config, workdir), int(state.step)
        if not splits[split]:
            raise UserError("--split", f"the data has no {split} part")
    if distributed.is_primary():
        print(f"evaluating the checkpoint of step {step} on the {split} part")
    evaluator = Evaluator(run, sharding.make_mesh())
    references = references_of(run) if distributed.is_primary() else {}
    strengths = choose_strengths(run, evaluator, splits["val"], workdir, references)
    found = compare(run, state, evaluator, splits[split], references, strengths)
    if distributed.is_primary():
        chosen = {name: strengths[name] for name, reference in references.items() if reference.strengths}
        _write(workdir, split, run, step, found, chosen)


def _write(workdir: Path, split: str, run: Run, step: int, found: Comparison, strengths: Mapping[str, float]) -> None:
    rows, n, task, data_range = found.rows, len(found.names), run.config.task.name, run.task.data_range
    metrics = metrics_of(run)
    folder = workdir / "eval"
    folder.mkdir(exist_ok=True)
    summary = {"task": task, "split": split, "n": n, "step": step, "data_range": list(data_range), "rows": rows,
               "strengths": strengths, "units": {name: metric.unit for name, metric in metrics.items()}}
    per_sample = [{row: scalars(values) for row, values in sample.items()} for sample in found.per_sample]
    summary |= {"tables": found.tables} if any(found.tables.values()) else {}
    write_atomically(folder / "metrics.json", json.dumps(summary, indent=1))
    write_atomically(folder / "per_sample.csv", _csv(found))
    page.write(folder / "report.html", title=workdir.name, task=task, split=split, names=found.names, data_range=data_range,
               metrics=metrics, rows=rows, per_sample=per_sample, curves=read_curves(workdir), panels=_panels(found, run),
               config=run.config.to_json(indent=1))
    print(table(rows, metrics))
    if strengths:
        print("strengths, chosen on the validation part: " + ", ".join(f"{k} {v:g}" for k, v in strengths.items()))
    for name, value in found.tables["model"].items():
        print(f"{name}:\n{np.asarray(value)}")
    print(f"{n} {split} samples; pictures and curves: {folder / 'report.html'}")
    print(f"next: python -m medjax.apply --workdir={workdir} --input=FILE_OR_FOLDER --output=RESULT")


def _csv(found: Comparison) -> str:
    """One line for each sample and row; a metric that is a list takes one column for each entry."""
    text = io.StringIO()
    flat = [{row: _columns(values) for row, values in rows.items()} for rows in found.per_sample]
    metrics = list(flat[0]["model"])
    writer = csv.writer(text)
    writer.writerow(["sample", "row", *metrics])
    for name, rows in zip(found.names, flat, strict=True):
        writer.writerows([name, row, *(values[m] for m in metrics)] for row, values in rows.items())
    return text.getvalue()


def _columns(values: Mapping[str, Value]) -> dict[str, float]:
    flat: dict[str, float] = {}
    for name, value in values.items():
        several = np.ndim(value) > 0
        flat |= {f"{name}_{i}" if several else name: v for i, v in enumerate(np.ravel(np.asarray(value)).tolist())}
    return flat


def _panels(found: Comparison, run: Run) -> list[page.Panel]:
    """The shown samples, as the task renders them: input, the best reference on average, model, and truth or what else."""
    references = [name for name in found.rows if name not in ("input", "model")]
    leader = best(found.rows, metrics_of(run)[run.config.metric], among=references)
    wanted = ["input", *([leader] if leader else []), "model"]
    panels: list[page.Panel] = []
    for sample in found.shown:
        others = [row for row in sample.images if row not in (*wanted, *found.rows)]
        shown = [row for row in (*wanted, *others) if row in sample.images]
        panels += _planes(sample, shown, run.task.data_range)
    return panels


def _planes(sample: Sample, shown: list[str], window: tuple[float, float]) -> Iterator[page.Panel]:
    """An image, or three planes through the middle of a volume."""
    record, space = sample.record, sample.images[shown[0]].shape[:-1]
    planes: dict[str, tuple[int | slice, ...]] = {"": ()} if len(space) == 2 else {
        " axial": (space[0] // 2,), " coronal": (slice(None), space[1] // 2),
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
