"""Ablations: a grid of values, one run each, one table."""

import ast
import csv
import hashlib
import io
import itertools
import json
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_collections

from medjax import registry
from medjax.files import write_atomically
from medjax.report.table import aligned, table
from medjax.train import distributed
from medjax.train.layouts import shared
from medjax.train.log import read_curves
from medjax.train.loop import train, train_side_by_side
from medjax.train.run import Config, build_task, described, load_config, may_change, metric_of
from medjax.types import DivergedError, Metric, UserError

JUDGED = ("eval_every", "eval_samples")  # a run may go on with others, but its best validation value is another then
BEST = "best.json"  # a finished member: of what config, how it ended, its best validation values


@dataclass(frozen=True)
class Member:
    """A config of the grid: the values that it differs in, by key, and its folder."""

    values: dict[str, Any]
    config: Config
    workdir: Path

    @property
    def name(self) -> str:
        """Its values in words."""
        return ",".join(f"{key}={value}" for key, value in self.values.items())

    @property
    def digest(self) -> str:
        """A hash of what the member is trained on and how."""
        kept = {key: value for key, value in registry.flat(self.config).items() if key in JUDGED or not may_change(key)}
        return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()


def run(config: Config, grid: str, workdir: Path, side_by_side: bool = False) -> None:
    """Trains every combination in `workdir/<values>`, resuming what is half done; writes and prints one table.

    `side_by_side` trains those that differ in seed or learning rate alone in one program, on a device each. A member that
    diverges is a row without values. Members are compared by the best validation value of `config.metric`: the test split
    is not for choosing.
    """
    if side_by_side and distributed.several():
        raise UserError("--side_by_side", "members take a device each of one process; leave it out, or start one process")
    members = members_of(config, grid, workdir)
    groups = _groups(members, side_by_side)
    for number, group in enumerate(groups, start=1):
        if distributed.is_primary():
            print(f"[{number}/{len(groups)}] {' | '.join(member.name for member in group)}")
        _train(group)
    if not distributed.is_primary():
        return
    first = load_config(members[0].workdir)
    metrics = described(first, build_task(first))
    metric = metrics[config.metric]
    found = [(member, json.loads((member.workdir / BEST).read_text(encoding="utf-8"))) for member in members]
    worst = math.inf if metric.lower_is_better else -math.inf
    found.sort(key=lambda pair: pair[1]["metrics"].get(config.metric, worst), reverse=not metric.lower_is_better)
    columns = {name: metrics[name] for name in metrics if any(name in ended["metrics"] for _, ended in found)}
    write_atomically(workdir / "sweep.csv", _csv(found, list(columns)))
    values = {member.name: {name: ended["metrics"].get(name, math.nan) for name in columns} for member, ended in found}
    print(table(values, columns))
    if len({member.values.get("seed") for member in members}) > 1:
        print("over seeds, mean and standard deviation:")
        print(_over_seeds(members, values, columns))
    for member, ended in found:
        if ended["diverged"]:
            print(f"{member.name}: {ended['diverged']}")
    print(f"validation, best checkpoint of each: {workdir / 'sweep.csv'}")


def members_of(config: Config, grid: str, workdir: Path) -> list[Member]:
    """The members of a grid like "optim.lr=1e-3,3e-4;seed=0..4". Raises UserError for unknown keys and values."""
    axes = [_axis(config, axis) for axis in grid.split(";") if axis.strip()]
    members = []
    for values in itertools.product(*axes):
        member = config.copy_and_resolve_references()
        for key, value in values:
            *path, last = key.split(".")
            group = member
            for part in path:
                group = group[part]
            group[last] = value
        name = ",".join(f"{key}={value}" for key, value in values)
        members.append(Member(dict(values), member, workdir / re.sub(r"[^\w.,=+-]", "_", name)))
    return members


def _axis(config: Config, text: str) -> list[tuple[str, Any]]:
    key, _, values = (part.strip() for part in text.partition("="))
    group = config
    for part in key.split("."):
        if not isinstance(group, ml_collections.ConfigDict) or part not in group:
            allowed = ", ".join(group) if isinstance(group, ml_collections.ConfigDict) else "no keys"
            raise UserError(f"--sweep {key}", f"no such key; there is {allowed}")
        group = group[part]
    if not values:
        raise UserError(f"--sweep {key}", "no values; write KEY=VALUE,VALUE")
    return [(key, _value(key, text, group)) for part in re.split(r",(?![^(]*\))", values) for text in _range(part)]


def _range(text: str) -> list[str]:
    """What "0..4" stands for; anything else as it is."""
    ends = re.fullmatch(r"\s*(-?\d+)\.\.(-?\d+)\s*", text)
    return [str(value) for value in range(int(ends[1]), int(ends[2]) + 1)] if ends else [text]


def _value(key: str, text: str, like: Any) -> Any:
    try:
        value = text.strip() if isinstance(like, str) else ast.literal_eval(text.strip())
        return float(value) if isinstance(like, float) else value
    except (ValueError, SyntaxError):
        raise UserError(f"--sweep {key}", f"{text!r} is not a {type(like).__name__}") from None


def _groups(members: Sequence[Member], side_by_side: bool) -> list[list[Member]]:
    """Those that are trained together."""
    groups: dict[str, list[Member]] = {}
    for member in members:
        groups.setdefault(shared(member.config) if side_by_side else member.name, []).append(member)
    return list(groups.values())


def _train(group: Sequence[Member]) -> None:
    """Trains the members of a group that are not finished, or not yet up to their steps.

    Raises UserError for a folder of another config.
    """
    if all(_finished(member) for member in group):
        return
    if len(group) == 1:
        try:
            train(group[0].config, group[0].workdir)
            ends = [""]
        except DivergedError as error:
            ends = [str(error)]
    else:
        ends = train_side_by_side([member.config for member in group], [member.workdir for member in group])
    for member, diverged in zip(group, ends, strict=True):
        if distributed.is_primary():
            metrics = {} if diverged else _best(member.workdir)
            ended = {"config": member.digest, "steps": member.config.steps, "diverged": diverged, "metrics": metrics}
            write_atomically(member.workdir / BEST, json.dumps(ended))
    distributed.wait_for_all("member finished")


def _finished(member: Member) -> bool:
    path = member.workdir / BEST
    if not path.exists():
        return False
    ended = json.loads(path.read_text(encoding="utf-8"))
    if ended["config"] != member.digest or ended["steps"] > member.config.steps:
        raise UserError(member.workdir, "holds a member of another config; give the former settings, or another --workdir")
    return ended["steps"] == member.config.steps


def _best(workdir: Path) -> dict[str, float]:
    """The validation values of a run at its best step."""
    curves = {name: dict(points) for name, points in read_curves(workdir).items() if name.startswith("eval/")}
    metric = metric_of(load_config(workdir))
    values = {step: value for step, value in curves.get(f"eval/{metric.name}", {}).items() if math.isfinite(value)}
    if not values:
        return {}
    best = (min if metric.lower_is_better else max)(values, key=values.__getitem__)
    return {name.removeprefix("eval/"): points[best] for name, points in curves.items()}


def _over_seeds(members: Sequence[Member], values: Mapping[str, Mapping[str, float]], metrics: Mapping[str, Metric]) -> str:
    """A line for members that differ in their seed alone; those that diverged are left out of it and counted."""
    groups: dict[str, list[Mapping[str, float]]] = {}
    for member in members:
        rest = ",".join(f"{key}={value}" for key, value in member.values.items() if key != "seed")
        groups.setdefault(rest or "all", []).append(values[member.name])
    lines = [["", *(metric.heading for metric in metrics.values()), "seeds"]]
    for name, rows in groups.items():
        whole = [row for row in rows if all(math.isfinite(value) for value in row.values())]
        cells = [_spread([row[key] for row in whole]) for key in metrics]
        lines.append([name, *cells, str(len(whole)) + (f" of {len(rows)}" if len(whole) < len(rows) else "")])
    return aligned(lines)


def _spread(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.4g}" if values else "–"
    return f"{statistics.mean(values):.4g} ± {statistics.stdev(values):.2g}"


def _csv(found: Sequence[tuple[Member, dict[str, Any]]], metrics: Sequence[str]) -> str:
    """A column for each key of the grid and each metric."""
    text = io.StringIO()
    writer = csv.writer(text)
    keys = list(found[0][0].values)
    writer.writerow([*keys, *metrics, "diverged"])
    writer.writerows([*(member.values[key] for key in keys), *(ended["metrics"].get(m, "") for m in metrics),
                      ended["diverged"]] for member, ended in found)
    return text.getvalue()
