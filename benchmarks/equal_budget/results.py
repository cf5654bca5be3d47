"""Files of results, what follows from them, and the tables of docs/equal_budget.md."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.equal_budget import quality
from benchmarks.equal_budget.cases import CASES, Case
from medjax.bench import machine
from medjax.files import write_atomically

FOLDER = Path(__file__).parents[1] / "results" / "equal_budget"
PAGE = Path(__file__).parents[2] / "docs" / "equal_budget.md"
BEGIN, END = "<!-- table -->", "<!-- end -->"
SIDES = ("medjax", "peer")


def with_seed(path: Path, case: Case, steps: int, seed: int, found: dict[str, Any]) -> dict[str, Any]:
    """The results in `path`, if they are of the same setting, with those of a seed."""
    versions = machine.versions() | found["peer"].pop("versions")
    setting = json.loads(json.dumps({
        "title": case.title, "package": case.package, "config": case.config, "changes": case.changes,
        "settings": case.settings, "steps": steps, "versions": versions, "hardware": machine.hardware()}))
    held = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    seeds = held["seeds"] if all(held.get(key) == value for key, value in setting.items()) else {}
    seeds = dict(sorted((seeds | {str(seed): found}).items()))
    return setting | {"metrics": list(found["medjax"]["scores"][0]), "summary": summary(seeds), "seeds": seeds}


def summary(seeds: Mapping[str, Any]) -> dict[str, Any]:
    """Medians of seconds and their ratio; the mean of each score with its interval, and medjax less the peer."""
    found: dict[str, Any] = {"seeds": len(seeds)}
    for key in ("seconds", "cpu_seconds", "import_seconds", "step_seconds"):
        medians = {side: float(np.median([one[side][key] for one in seeds.values()])) for side in SIDES}
        found[key] = medians | {"ratio": medians["medjax"] / medians["peer"]}
    first, every = next(iter(seeds.values())), list(seeds.values())
    found["people"], found["images"] = len(set(first["people"])), len(first["people"])
    for metric in first["medjax"]["scores"][0]:
        rows = {row: quality.by_person(np.array([[score[metric] for score in one[row]["scores"]] for one in every]),
                                       first["people"]) for row in ("input", *SIDES) if row in first}
        rows["difference"] = rows["medjax"] - rows["peer"]
        found[metric] = {row: {"mean": float(values.mean()), "interval": quality.interval(values)}
                         for row, values in rows.items()}
    return found


def save(path: Path, found: Mapping[str, Any]) -> None:
    """Writes a file of results."""
    write_atomically(path, json.dumps(found, indent=1) + "\n")


def load() -> dict[str, dict[str, Any]]:
    """What was measured, by case, in the order of the cases."""
    paths = {name: FOLDER / f"{name}.json" for name in CASES}
    return {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items() if path.exists()}


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """A line for each case: seconds, quality, and how both differ."""
    lines = ["| network, of | steps | medjax s | peer s | ratio | metric | medjax | peer | medjax − peer (95 %) | people |",
             "|---" * 10 + "|"]
    for one in found.values():
        summary = one["summary"]
        seconds = summary["seconds"]
        for number, metric in enumerate(one["metrics"]):
            numbers = summary[metric]
            low, high = numbers["difference"]["interval"]
            own = [f"{one['title']}, {one['package']}", str(one["steps"]), f"{seconds['medjax']:.1f}",
                   f"{seconds['peer']:.1f}", f"{seconds['ratio']:.2f}"] if not number else [""] * 5
            cells = [*own, metric.upper(), *(f"{numbers[side]['mean']:.4g}" for side in SIDES),
                     f"{numbers['difference']['mean']:+.3g} ({low:+.3g} … {high:+.3g})".replace("-", "−"),
                     "" if number else str(summary["people"])]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def page() -> str:
    """The page with its table as it should be."""
    text = PAGE.read_text(encoding="utf-8")
    begin = text.index(BEGIN) + len(BEGIN)
    return f"{text[:begin]}\n{table(load())}\n{text[text.index(END, begin):]}"
