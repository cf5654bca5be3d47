"""A trained run evaluated on one part of its data: numbers, pictures, and where they are."""

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from medjax.data.split import fingerprint, held_parts
from medjax.data.storage.names import pseudonym
from medjax.evaluation.compare import WORST, Comparison, Sample, compare, metrics_of, owner
from medjax.evaluation.consistency import consistency
from medjax.evaluation.intervals import Collected, calibrated
from medjax.evaluation.membership import check_parts, membership
from medjax.evaluation.references import FILE as CHOSEN
from medjax.evaluation.references import choose_strengths, references_of
from medjax.files import write_atomically
from medjax.infer.fit import fitted
from medjax.infer.uncertainty import FILE as CALIBRATIONS
from medjax.infer.uncertainty import Asked, name_of, restore
from medjax.measures.intervals import Calibration, Checked, check, numbers
from medjax.measures.membership import Attack
from medjax.measures.statistics import Standing, standings
from medjax.report import page
from medjax.report.table import (
    aligned,
    attack_cells,
    best,
    consistency_cells,
    interval_cells,
    standing_cells,
    table,
)
from medjax.tasks._restoration import Restoration
from medjax.train import distributed, sharding
from medjax.train.evaluator import Evaluator, scalars
from medjax.train.log import read_curves
from medjax.train.privacy import plan_of, stated
from medjax.train.run import Run, held_split, load_records, load_splits, open_checkpoints, write_split
from medjax.types import Region, Splits, UserError, Value

METRICS, REPORT = "metrics.json", "report.html"


def evaluate_run(workdir: Path, split: str = "test", again: bool = True, names: bool = False, data: Path | None = None,
                 accept: Collection[str] = (), series: str | None = None, asked: Asked = (),
                 members: bool = False) -> None:
    """Evaluates the run's best checkpoint on `split`; writes `eval/` in its folder, prints the table and where it is.

    With `data`, a file or folder that the run need never have seen, all of it is the test part, and `eval_data/` is written;
    scans that differ from those of training are refused, but for the differences in `accept` (see `medjax.infer.fit`);
    `series` stands for the run's own choice of a series. The uncertainty that is `asked` for (`medjax.infer.uncertainty`)
    is calibrated on the validation part, whatever the data, and checked on `split`. With `members` it is also measured how
    well the training patients are told from those of the test part (`medjax.measures.membership`).
    Unless `again`, an evaluation of the same checkpoint, data and references is only printed, and a part that the data has
    not is left out. Samples have pseudonyms, by
    the salt of the run's split, or with `names` those of their files. Several processes evaluate together, and the first
    one writes. Raises UserError.
    """
    folder = workdir / ("eval" if data is None else "eval_data")
    with distributed.together():
        run, state = restore(workdir, asked)
        splits, step = _splits(run, workdir, data, accept, series, bool(asked)), int(state.step)
        if asked and (split == "val" or distributed.several()):
            raise UserError("--uncertainty", "intervals are calibrated on the validation part, by one process; evaluate "
                            "another part in one process")
        if members:
            check_parts(splits, split, data)
        if held_split(workdir) is None and distributed.is_primary():  # a run of converted weights: the salt of pseudonyms
            write_split(workdir, splits)
        if not splits[split] and again:
            raise UserError("--split", f"the data has no {split} part")
    if not splits[split]:
        if distributed.is_primary():
            print(f"there is no {split} part to evaluate; {next_command(workdir)}")
        return
    wanted = references_of(run)
    identity = {"task": run.config.task.name, "split": split, "step": step, "data": fingerprint(splits),
                "references": sorted(wanted), "names": names, "uncertainty": name_of(asked) or None, "membership": members,
                **_privacy(run, workdir)}
    current = "yes" if not again and distributed.is_primary() and _is_current(folder, identity) else ""
    if distributed.broadcast_from_primary(current):
        if distributed.is_primary():
            _print(workdir, folder, run, json.loads((folder / METRICS).read_text(encoding="utf-8")), asked)
        return
    if distributed.is_primary():
        print(f"evaluating the checkpoint of step {step} on the {split} part" + (f" of {data}" if data else ""))
    divided = distributed.several() and run.config.mesh.space > 1
    if divided and distributed.is_primary():
        print("volumes stay divided over the processes: the model's metrics only; run eval.py in one process for the rest")
    evaluator = Evaluator(run, _mesh(run), only_metrics=divided)
    references = wanted if distributed.is_primary() and not divided else {}
    strengths = choose_strengths(run, evaluator, splits["val"], workdir, references)
    intervals: Intervals | None = None
    if asked:
        assert isinstance(run.task, Restoration)
        calibration = calibrated(run, state, evaluator, splits["val"], workdir, asked)
        collected = Collected(run.task, splits[split], evaluator.batches(splits[split]).samples)
        found = compare(run, state, evaluator, splits[split], references, strengths, worst=WORST, watch=collected.add,
                        removed=True)
        intervals = Intervals(asked, calibration, check(collected.patients(), calibration))
    else:
        found = compare(run, state, evaluator, splits[split], references, strengths, worst=WORST, removed=True)
    attacks = membership(run, state, evaluator, splits["train"], found, references, strengths) if members else {}
    if distributed.is_primary():
        chosen = {name: strengths[name] for name, reference in references.items() if reference.strengths}
        named = found if names else under_pseudonyms(found, workdir, splits[split])
        _write(workdir, folder, run, identity, named, chosen, intervals, attacks)


@dataclass(frozen=True)
class Intervals:
    """Intervals of the uncertainty that was asked for: their calibration, and how they do on the evaluated part."""

    asked: Asked
    calibration: Calibration
    checked: Checked


def _splits(run: Run, workdir: Path, data: Path | None, accept: Collection[str], series: str | None,
            calibrates: bool) -> Splits:
    """The run's data; with `data`, that as the test part beside the run's own validation part. Raises UserError."""
    if data is None:
        return load_splits(run.config, workdir)
    records = load_records(run.config, data, series)
    held = held_parts(held_split(workdir) or {}, {record.subject for record in records})
    trained = [subject for subject, part in held.items() if part != "test"]
    if trained and distributed.is_primary():
        print(f"{len(trained)} of the subjects took part in the run's training or validation: the result flatters it")
    if run.task.kind == "image":
        records = [fitted(run.config, record, "none", accept)[0] for record in records]
    own = load_splits(run.config, workdir)["val"] if calibrates or not (workdir / CHOSEN).exists() else []
    return {"train": [], "val": own, "test": [Region.whole(record) for record in records]}


def under_pseudonyms(found: Comparison, workdir: Path, regions: Sequence[Region]) -> Comparison:
    """The comparison with pseudonyms in the place of the names of files and patients, by the salt of the run's split."""
    label, salt = pseudonyms_of(workdir, regions), _salt(workdir)
    return replace(found, names=[label(name) for name in found.names],
                   patients=[pseudonym(salt, patient) for patient in found.patients],
                   shown=[replace(sample, name=label(sample.name)) for sample in found.shown],
                   worst=[replace(sample, name=label(sample.name)) for sample in found.worst])


def pseudonyms_of(workdir: Path, regions: Sequence[Region]) -> Callable[[str], str]:
    """What gives the samples of `regions` their pseudonyms, by the salt of the run's split."""
    records, salt = {region.record.id: region.record for region in regions}, _salt(workdir)

    def label(name: str) -> str:
        whole = owner(name, records).id
        return pseudonym(salt, whole) + name[len(whole):]

    return label


def _salt(workdir: Path) -> bytes:
    return bytes.fromhex(next(iter(held_split(workdir) or {}), "").partition(":")[0])


def _mesh(run: Run) -> Mesh:
    """All devices; volumes are divided as in training where the number of devices allows."""
    space = run.config.mesh.space
    return sharding.make_mesh(space=space if jax.device_count() % space == 0 else 1)


def _is_current(folder: Path, identity: Mapping[str, object]) -> bool:
    """Whether the folder has the results of this checkpoint, data and references."""
    try:
        found = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return all(found.get(name) == value for name, value in identity.items()) and (folder / REPORT).exists()


def _write(workdir: Path, folder: Path, run: Run, identity: Mapping[str, object], found: Comparison,
           strengths: Mapping[str, float], intervals: Intervals | None, attacks: Mapping[str, Attack]) -> None:
    rows, n, task, data_range = found.rows, len(found.names), run.config.task.name, run.task.data_range
    metrics, split = metrics_of(run), str(identity["split"])
    agreement = consistency(run.task, found.per_sample, found.patients)
    folder.mkdir(exist_ok=True)
    summary: dict[str, Any] = {
        **identity, "n": n, "data_range": list(data_range), "rows": rows, "strengths": strengths,
        "units": {name: metric.unit for name, metric in metrics.items()},
        "patients": len(set(found.patients)), "undefined": undefined(found.per_sample, metrics),
        "standings": {name: {row: standing.numbers for row, standing in
                             standings(found.per_sample, found.patients, metric, "model", run.task.summarise).items()}
                      for name, metric in metrics.items()},
        **({"intervals": numbers(intervals.checked, intervals.calibration)} if intervals else {}),
        **({"consistency": agreement} if agreement else {}),
        **({"attacks": {name: attack.numbers for name, attack in attacks.items()}} if attacks else {}),
        "tables": {row: {k: np.asarray(v).tolist() for k, v in one.items()} for row, one in found.tables.items()}}
    per_sample = [{row: scalars(values) for row, values in sample.items()} for sample in found.per_sample]
    write_atomically(folder / "per_sample.csv", _csv(found))
    page.write(folder / REPORT, title=workdir.name, task=task, split=split, names=found.names, data_range=data_range,
               metrics=metrics, rows=rows, per_sample=per_sample, curves=read_curves(workdir),
               panels=_panels(found, run, intervals.calibration if intervals else None),
               shown=shown_of([*found.worst, *found.shown], intervals.calibration if intervals else None),
               standings=_standings(summary, run.config.metric), patients=len(set(found.patients)),
               config=run.config.to_json(indent=1), intervals=summary.get("intervals"), consistency=agreement,
               units=run.config.data.domain.units, attacks=summary.get("attacks"), private=_private(summary))
    write_atomically(folder / METRICS, json.dumps(summary, indent=1))  # last: it says that all the others are there
    _print(workdir, folder, run, summary, intervals.asked if intervals else ())


def _print(workdir: Path, folder: Path, run: Run, summary: Mapping[str, Any], asked: Asked) -> None:
    metrics, leading = metrics_of(run), run.config.metric
    print(table(summary["rows"], metrics))
    for name, count in summary["undefined"].items():
        print(f"{count} of {summary['n']} samples have no {metrics[name].title}, and are left out of its mean")
    found = _standings(summary, leading)
    if summary["patients"] > 1 and len(found) > 1:
        print(f"over {summary['patients']} patients, paired permutation tests against the model (Holm):")
        print(aligned(standing_cells(found, metrics[leading], "model")))
    elif summary["patients"] == 1:
        print("one patient: nothing is said of others, so there are no intervals and no tests")
    if summary["strengths"]:
        chosen = ", ".join(f"{name} {value:g}" for name, value in summary["strengths"].items())
        print(f"strengths, chosen on the validation part: {chosen}")
    for name, value in summary["tables"]["model"].items():
        print(f"{name}:\n{np.asarray(value)}")
    if "intervals" in summary:
        print(f"intervals, by {summary['uncertainty']}:")
        print(aligned(interval_cells(summary["intervals"], run.config.data.domain.units)))
        print(f"calibration: {workdir / CALIBRATIONS}")
    if "consistency" in summary:
        print("agreement with the measurement (about 1 of noise: right; above the truth: not all of it was measured):"
              if summary["consistency"]["unit"] == "noise" else "agreement with the measurement, which has no noise:")
        print(aligned(consistency_cells(summary["consistency"])))
    if "attacks" in summary:
        print("membership inference: training patients told from test patients:")
        print(aligned(attack_cells(summary["attacks"])))
    if "privacy" in summary:
        print(_private(summary))
    print(f"{summary['n']} {summary['split']} samples; pictures and curves: {folder / REPORT}")
    print(next_command(workdir, asked))


def _privacy(run: Run, workdir: Path) -> dict[str, Any]:
    """What a private run has spent by its last checkpoint, whichever is the best one: that was chosen among all."""
    plan = plan_of(run.config)
    if plan is None:
        return {}
    with open_checkpoints(run.config, workdir) as checkpoints:
        return {"privacy": plan.facts(checkpoints.latest() or 0)}


def _private(summary: Mapping[str, Any]) -> str:
    facts = summary.get("privacy")
    return f"privacy of each of {facts['patients']} training patients: {stated(facts)}" if facts else ""


def next_command(workdir: Path, asked: Asked = ()) -> str:
    """The line that says how to apply a run."""
    more = f" --uncertainty={','.join(asked)}" if asked else ""
    return f"next: python -m medjax.apply --workdir={workdir} --input=FILE_OR_FOLDER --output=RESULT{more}"


def _standings(summary: Mapping[str, Any], metric: str) -> dict[str, Standing]:
    return {row: Standing.of(numbers) for row, numbers in summary["standings"].get(metric, {}).items()}


def undefined(samples: Sequence[Mapping[str, Mapping[str, Value]]], metrics: Collection[str]) -> dict[str, int]:
    """For how many samples (metrics by method, for each) the model has no number by a metric, where there are such."""
    return dict(Counter(name for sample in samples for name, value in scalars(sample["model"]).items()
                        if name in metrics and np.isnan(value)))


def _csv(found: Comparison) -> str:
    """One line for each sample and row; a metric that is a list takes one column for each entry."""
    text = io.StringIO()
    flat = [{row: _columns(values) for row, values in rows.items()} for rows in found.per_sample]
    metrics = list(flat[0]["model"])
    writer = csv.writer(text)
    writer.writerow(["sample", "patient", "row", *metrics])
    for name, patient, rows in zip(found.names, found.patients, flat, strict=True):
        writer.writerows([name, patient, row, *(values[m] for m in metrics)] for row, values in rows.items())
    return text.getvalue()


def _columns(values: Mapping[str, Value]) -> dict[str, float]:
    flat: dict[str, float] = {}
    for name, value in values.items():
        several = np.ndim(value) > 0
        flat |= {f"{name}_{i}" if several else name: v for i, v in enumerate(np.ravel(np.asarray(value)).tolist())}
    return flat


def _panels(found: Comparison, run: Run, calibration: Calibration | None) -> list[page.Panel]:
    """The shown samples, as the task renders them: input, the best reference on average, model, and truth or what else.

    With a `calibration`, the intervals of the model, too.
    """
    references = [name for name in found.rows if name not in ("input", "model")]
    leader = best(found.rows, metrics_of(run)[run.config.metric], among=references)
    wanted = ["input", *([leader] if leader else []), "model"]
    panels: list[page.Panel] = []
    for sample in found.shown:
        others = [row for row in sample.images if row not in (*wanted, *found.rows)]
        shown = [row for row in (*wanted, *others) if row in sample.images]
        width = _half_width(sample, calibration)
        panels += _planes(sample, shown, run.task.data_range, width)
    return panels


def _planes(sample: Sample, shown: list[str], window: tuple[float, float],
            width: np.ndarray | None) -> Iterator[page.Panel]:
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
                         anatomical=record.affine is not None, mask=sample.mask[at],
                         half_width=None if width is None else width[at],
                         removed=None if sample.removed is None else sample.removed[at])


def _half_width(sample: Sample, calibration: Calibration | None) -> np.ndarray | None:
    """`(*space)`, the mean over channels."""
    return None if calibration is None or sample.spread is None else calibration.half_width(sample.spread).mean(-1)


def shown_of(samples: Sequence[Sample], calibration: Calibration | None = None) -> list[page.Shown]:
    """The samples as the viewer has them, with all rows; with a `calibration`, their half-widths."""
    return [page.Shown(sample.name, sample.images, sample.record.spacing_mm[-sample.mask.ndim:],
                       sample.record.affine is not None, sample.mask, _half_width(sample, calibration))
            for sample in samples]


def _drawable(image: np.ndarray) -> np.ndarray:
    """`(H, W)` or `(H, W, 3)`."""
    return image if image.shape[-1] == 3 else image[..., 0]
