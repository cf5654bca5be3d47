"""Ablations: a grid of values, one run each, one table."""

import ast
import csv
import io
import itertools
import json
import re
from pathlib import Path
from typing import Any

from medjax.metrics import LOWER_IS_BETTER
from medjax.report.table import table
from medjax.train.log import read_curves
from medjax.train.loop import train
from medjax.train.setup import Config, write_atomically
from medjax.types import UserError


def run(config: Config, grid: str, workdir: Path) -> None:
    """Trains every combination in `workdir/<values>`, resuming what is half done; writes and prints one table.

    Members are compared by the best validation value of `config.metric`: the test part is not for choosing.
    """
    members = combinations(config, grid)
    rows: dict[str, dict[str, float]] = {}
    for number, (name, member) in enumerate(members.items(), start=1):
        print(f"[{number}/{len(members)}] {name}")
        rows[name] = _result(member, workdir / re.sub(r"[^\w.,=+-]", "_", name))
    rows = dict(sorted(rows.items(), key=lambda item: item[1][config.metric], reverse=config.metric not in LOWER_IS_BETTER))
    write_atomically(workdir / "sweep.csv", _csv(rows))
    print(table(rows))
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


def _result(config: Config, workdir: Path) -> dict[str, float]:
    done = workdir / "best.json"
    if not done.exists():
        train(config, workdir)
        curves = {name: dict(points) for name, points in read_curves(workdir).items() if name.startswith("eval/")}
        values = curves[f"eval/{config.metric}"]
        best = (min if config.metric in LOWER_IS_BETTER else max)(values, key=values.get)
        write_atomically(done, json.dumps({name.removeprefix("eval/"): points[best] for name, points in curves.items()}))
    return json.loads(done.read_text(encoding="utf-8"))


def _csv(rows: dict[str, dict[str, float]]) -> str:
    text = io.StringIO()
    metrics = list(next(iter(rows.values())))
    writer = csv.writer(text)
    writer.writerow(["member", *metrics])
    writer.writerows([name, *(values[m] for m in metrics)] for name, values in rows.items())
    return text.getvalue()
