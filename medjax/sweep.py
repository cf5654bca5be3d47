"""Ablations: a grid of values, one run each, one table."""

import ast
import csv
import io
import itertools
import json
import re
from pathlib import Path
from typing import Any

from medjax.files import write_atomically
from medjax.report.table import table
from medjax.train.layouts import shared
from medjax.train.log import read_curves
from medjax.train.loop import train, train_side_by_side
from medjax.train.run import Config, build_task, described, load_config, metric_of
from medjax.types import UserError

BEST = "best.json"  # the best validation values of a finished member


def run(config: Config, grid: str, workdir: Path, side_by_side: bool = False) -> None:
    """Trains every combination in `workdir/<values>`, resuming what is half done; writes and prints one table.

    `side_by_side` trains those that differ in seed or learning rate alone in one program, on a device each.

    Members are compared by the best validation value of `config.metric`: the test part is not for choosing.
    """
    members = combinations(config, grid)
    folders = {name: workdir / re.sub(r"[^\w.,=+-]", "_", name) for name in members}
    rows: dict[str, dict[str, float]] = {}
    for number, group in enumerate(groups := _groups(members, side_by_side), start=1):
        print(f"[{number}/{len(groups)}] {' | '.join(group)}")
        _train([members[name] for name in group], [folders[name] for name in group])
        rows |= {name: json.loads((folders[name] / BEST).read_text(encoding="utf-8")) for name in group}
    first = load_config(next(iter(folders.values())))
    metric = metric_of(first)
    rows = dict(sorted(rows.items(), key=lambda item: item[1][config.metric], reverse=not metric.lower_is_better))
    write_atomically(workdir / "sweep.csv", _csv(rows))
    print(table(rows, described(first, build_task(first))))
    print(f"validation, best checkpoint of each: {workdir / 'sweep.csv'}")


def combinations(config: Config, grid: str) -> dict[str, Config]:
    """The member configs of a grid like "optim.lr=1e-3,3e-4;model.width=16,32", by name."""
    axes = [_axis(config, axis) for axis in grid.split(";") if axis.strip()]
    members = {}
    for values in itertools.product(*axes):
        member = config.copy_and_resolve_references()
        for key, value in values:
            *path, last = key.split(".")
            group = member
            for part in path:
                group = group[part]
            group[last] = value
        members[",".join(f"{key}={value}" for key, value in values)] = member
    return members


def _axis(config: Config, text: str) -> list[tuple[str, Any]]:
    key, _, values = (part.strip() for part in text.partition("="))
    group: Any = config
    for part in key.split("."):
        if not isinstance(group, Config) or part not in group:
            allowed = ", ".join(group) if isinstance(group, Config) else "none"
            raise UserError(f"--sweep {key}", f"no such key; there is {allowed}")
        group = group[part]
    if not values:
        raise UserError(f"--sweep {key}", "no values; write KEY=VALUE,VALUE")
    return [(key, _value(key, text, group)) for text in re.split(r",(?![^(]*\))", values)]


def _value(key: str, text: str, like: Any) -> Any:
    try:
        value = text.strip() if isinstance(like, str) else ast.literal_eval(text.strip())
        return float(value) if isinstance(like, float) else value
    except (ValueError, SyntaxError):
        raise UserError(f"--sweep {key}", f"{text!r} is not a {type(like).__name__}") from None


def _groups(members: dict[str, Config], side_by_side: bool) -> list[list[str]]:
    """The names of those that are trained together."""
    groups: dict[str, list[str]] = {}
    for name, member in members.items():
        groups.setdefault(shared(member) if side_by_side else name, []).append(name)
    return list(groups.values())


def _train(configs: list[Config], workdirs: list[Path]) -> None:
    if all((workdir / BEST).exists() for workdir in workdirs):
        return
    if len(configs) == 1:
        train(configs[0], workdirs[0])
    else:
        train_side_by_side(configs, workdirs)
    for config, workdir in zip(configs, workdirs, strict=True):
        curves = {name: dict(points) for name, points in read_curves(workdir).items() if name.startswith("eval/")}
        values = curves[f"eval/{config.metric}"]
        best = (min if metric_of(load_config(workdir)).lower_is_better else max)(values, key=values.__getitem__)
        found = {name.removeprefix("eval/"): points[best] for name, points in curves.items()}
        write_atomically(workdir / BEST, json.dumps(found))


def _csv(rows: dict[str, dict[str, float]]) -> str:
    text = io.StringIO()
    metrics = list(next(iter(rows.values())))
    writer = csv.writer(text)
    writer.writerow(["member", *metrics])
    writer.writerows([name, *(values[m] for m in metrics)] for name, values in rows.items())
    return text.getvalue()
