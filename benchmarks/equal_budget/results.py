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

ALGOPERF = Path(__file__).parents[1] / "results" / "algoperf_step.json"
FOLDER = Path(__file__).parents[1] / "results" / "equal_budget"
PAGE = Path(__file__).parents[2] / "docs" / "equal_budget.md"
BEGIN, END = "<!-- {} -->", "<!-- end -->"
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
    """A line for each metric of each case: seconds, quality, and how both differ."""
    lines = ["| network, of | steps, batch | parameters | medjax s | peer s | ratio | of CPU seconds | metric | medjax | "
             "peer | medjax − peer (95 %) | people |", "|---" * 12 + "|"]
    for one in found.values():
        summary, sides = one["summary"], next(iter(one["seeds"].values()))
        seconds = summary["seconds"]
        counts = list(dict.fromkeys(_millions(sides[side].get("parameters")) for side in SIDES))
        own = [f"{one['title']}, {one['package']}", f"{one['steps']}, {one['changes']['batch_size']}", ", ".join(counts),
               *(f"{seconds[side]:.1f}" for side in SIDES), f"{seconds['ratio']:.2f}",
               f"{summary['cpu_seconds']['ratio']:.2f}"]
        for number, metric in enumerate(one["metrics"]):
            numbers = summary[metric]
            low, high = numbers["difference"]["interval"]
            places = 2 if metric == "psnr" else 4
            cells = [*([""] * len(own) if number else own), metric.upper() if len(metric) < 5 else metric,
                     *(f"{numbers[side]['mean']:.{places}f}" for side in SIDES),
                     "{} ({} … {})".format(*(f"{value:+.{places}f}".replace("-", "−") for value in
                                             (numbers["difference"]["mean"], low, high))),
                     "" if number else str(summary["people"])]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _millions(count: int | None) -> str:
    return "–" if count is None else f"{count / 1e6:.2f} M"


def algoperf() -> str:
    """The line of `benchmarks/algoperf_step.py`."""
    found = json.loads(ALGOPERF.read_text(encoding="utf-8"))
    return (f"| step | cores | medjax ms | AlgoPerf ms | ratio |\n|---|---|---|---|---|\n"
            f"| {found['batch']} x {found['size']}x{found['size']}, {_millions(found['parameters'])} parameters | "
            f"{found['hardware']['cores']} | {found['medjax_ms']:.0f} | {found['peer_ms']:.0f} | {found['ratio']:.2f} |")


def page() -> str:
    """The page with its tables as they should be."""
    text = PAGE.read_text(encoding="utf-8")
    for mark, made in (("table", table(load())), ("algoperf", algoperf())):
        begin = text.index(BEGIN.format(mark)) + len(BEGIN.format(mark))
        text = f"{text[:begin]}\n{made}\n{text[text.index(END, begin):]}"
    return text
