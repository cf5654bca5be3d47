"""Trains configs as a user would, keeps what their evaluation printed, and writes the tables of docs/scores.md from it.

    python -m benchmarks.scores                     # every row, hours; or only some:
    python -m benchmarks.scores quickstart sequence
    python -m benchmarks.scores hippocampus --config.data.path=FOLDER
    python -m benchmarks.scores --tables            # no training: the tables from what is there

Each row has a file in `benchmarks/results/scores`, with the config's hash: tests/test_scores.py fails where a config
has changed since, and where the tables are not those of the files.
"""

import hashlib
import importlib
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags

from medjax.evaluation.compare import metrics_of
from medjax.files import write_atomically
from medjax.measures.statistics import Standing
from medjax.report.table import best, standing_cells, texts
from medjax.train.run import Config, assemble
from medjax.types import Metric

TABLES = flags.DEFINE_bool("tables", False, "Writes the tables only.")
RUNS = flags.DEFINE_string("runs", "", "Folder for the runs, which are kept there; a temporary one if none is given.")

ROOT = Path(__file__).parents[1]
SCORES = Path(__file__).with_name("results") / "scores"
PAGE = ROOT / "docs" / "scores.md"
BEGIN, END = "<!-- scores: {} -->", "<!-- end -->"

# name: config with its argument, and what differs from it
BUILT_IN: dict[str, tuple[str, dict[str, Any]]] = {
    "quickstart": ("quickstart", {}),
    "salt_and_pepper": ("quickstart", {"task.noise": "salt_pepper"}),
    "xray_denoise": ("xray_denoise", {}),
    "deblur": ("deblur", {}),
    "inpaint": ("inpaint", {}),
    "mri_superres3d": ("mri_superres3d", {}),
    "mri_srgan": ("mri_srgan", {}),
    "sequence": ("sequence", {}),
    "sequence_twice_finer": ("sequence", {"task.factor": 2}),
    "fuse": ("fuse", {}),
    "enhance_xray": ("enhance_xray", {}),
    "enhance_xray_zero": ("enhance_xray:learn=zero", {}),
    "ct_recon": ("ct_recon", {}),
    "ct_lowdose": ("ct_lowdose", {}),
    "mri_recon": ("mri_recon", {}),
    "volume": ("volume", {}),
    "translate": ("translate", {}),
    "register": ("register", {}),
    "brain_segment": ("brain_segment", {}),
    "xray_classify": ("xray_classify", {}),
    "anomaly": ("anomaly", {}),
    "compress": ("compress", {}),
    "synthesis": ("synthesis", {}),
}
PEOPLE: dict[str, tuple[str, dict[str, Any]]] = {
    "hippocampus": ("hippocampus", {}),
    "polyps": ("polyps", {}),
    "ultrasound": ("ultrasound", {}),
}
ROWS = BUILT_IN | PEOPLE


def config_of(name: str) -> Config:
    """The config of a row, as `train.py` is given it."""
    spec, changes = ROWS[name]
    module, _, argument = spec.partition(":")
    config = importlib.import_module(f"configs.{module}").get_config(*([argument] if argument else []))
    config.update_from_flattened_dict(changes)
    return config


def hash_of(config: Config) -> str:
    """A hash of every value of a config, without where a user's files are."""
    values = config.to_dict()
    values["data"].pop("path", None)
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def command_of(name: str) -> str:
    """What a user types to get the row."""
    spec, changes = ROWS[name]
    module, colon, argument = spec.partition(":")
    words = [f"--config=configs/{module}.py{colon}{argument}",
             *(f"--config.{key}={value}" for key, value in changes.items())]
    return f"python train.py {' '.join(words)}"


def measure(name: str, runs: Path, more: Sequence[str]) -> dict[str, Any]:
    """Trains and evaluates a row in a folder of its own below `runs`, with further flags."""
    workdir = runs / name
    words = command_of(name).split()[1:]
    before = _cpu_seconds()
    subprocess.run([sys.executable, *words, f"--workdir={workdir}", *more], cwd=ROOT, check=True)
    seconds = _cpu_seconds() - before
    found = json.loads((workdir / "eval" / "metrics.json").read_text(encoding="utf-8"))
    config = Config(json.loads((workdir / "config.json").read_text(encoding="utf-8")))
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, check=True, text=True, capture_output=True)
    return {"command": command_of(name), "config": hash_of(config_of(name)), "commit": commit.stdout.strip(),
            "cpu_seconds": round(seconds), "cores": os.cpu_count(), "step": found["step"], "samples": found["n"],
            "patients": found["patients"], "metric": config.metric,
            "metrics": {key: vars(metric) for key, metric in metrics_of(assemble(config)).items()},
            "rows": found["rows"], "standings": found["standings"].get(config.metric, {}), "strengths": found["strengths"]}


def _cpu_seconds() -> float:
    """Processor time of all processes that have ended: what else the machine did in the meantime does not change it."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def table(names: Sequence[str]) -> str:
    """The rows that are measured: the network, the best reference, and the other references in order."""
    lines = ["| row | metric | network | best reference | network − reference, p | others | test | CPU minutes |",
             "|---|---|---|---|---|---|---|---|"]
    for name in names:
        path = SCORES / f"{name}.json"
        if path.exists():
            lines.append(_line(name, json.loads(path.read_text(encoding="utf-8"))))
    return "\n".join(lines)


def _line(name: str, found: Mapping[str, Any]) -> str:
    metric = Metric(**found["metrics"][found["metric"]])
    rows = {row: {key: math.nan if value is None else value for key, value in values.items()}
            for row, values in found["rows"].items()}
    others = {row: values for row, values in rows.items() if row not in ("model", "input")}
    order: list[str] = []
    while (leader := best(others, metric, [row for row in others if row not in order])) is not None:
        order.append(leader)
    shown = dict(zip(rows, texts(metric, [rows[row].get(metric.name) for row in rows]), strict=True))
    standings = {row: Standing.of(numbers) for row, numbers in found["standings"].items()}
    cells = {line[0]: line for line in standing_cells(standings, metric, "model")[1:]} if standings else {}
    interval = cells["model"][2] if "model" in cells else "–"
    network = shown["model"] + (f" ({interval})" if interval != "–" else "")
    strength = {row: f" at {value:g}" for row, value in found["strengths"].items()}
    reference = f"{order[0]}{strength.get(order[0], '')}: {shown[order[0]]}" if order else "–"
    gap = f"{cells[order[0]][3]}, {cells[order[0]][4]}" if order and order[0] in cells else "–"
    rest = ", ".join(f"{row} {shown[row]}" for row in ([*order[1:], "input"] if "input" in rows else order[1:]))
    test = f"{found['samples']} images, {found['patients']} patient{'s' * (found['patients'] != 1)}"
    return (f"| `{found['command'].removeprefix('python train.py --config=configs/')}` | {metric.heading} | {network} | "
            f"{reference} | {gap} | {rest or '–'} | {test} | {found['cpu_seconds'] / 60:.1f} |")


def written(page: str) -> str:
    """The page with the tables of what is measured between its marks."""
    for kind, rows in (("built-in", BUILT_IN), ("people", PEOPLE)):
        begin = page.index(BEGIN.format(kind)) + len(BEGIN.format(kind))
        page = f"{page[:begin]}\n{table(list(rows))}\n{page[page.index(END, begin):]}"
    return page


def main(words: list[str]) -> None:
    names = [word for word in words[1:] if not word.startswith("--")]
    more = [word for word in words[1:] if word.startswith("--")]
    SCORES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        for name in [] if TABLES.value else names or BUILT_IN:
            row = measure(name, Path(RUNS.value or scratch), more)
            write_atomically(SCORES / f"{name}.json", json.dumps(row, indent=1) + "\n")
    write_atomically(PAGE, written(PAGE.read_text(encoding="utf-8")))
    print(f"written: {PAGE}")


if __name__ == "__main__":
    app.run(main, flags_parser=lambda argv: flags.FLAGS(argv, known_only=True))
