"""Trains rows of `benchmarks.scores` and checks what they make of images: planted lesions, measurements, explanations.

    python -m benchmarks.checks lesions_brains --config.data.path=FOLDER
    python -m benchmarks.checks lesions_slices --config.data.path=FOLDER
    python -m benchmarks.checks consistency explanations

Written is `benchmarks/results/NAME.json`; `python -m benchmarks.scores --tables` then writes the tables of docs/lesions.md
and docs/explain.md. Runs that are in `--runs` already are not trained again.
"""

import json
import os
import shlex
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags

from benchmarks.processes import commit, run
from benchmarks.scores import CHECKED, RUNS, command_of, config_of, values_of
from medjax.data.sources.chest_findings import CLASSES, ChestFindings
from medjax.files import write_atomically
from medjax.measures.statistics import interval
from medjax.types import UserError, check_choice

JSON = flags.DEFINE_string("json", "", "Folder of the results, another place than benchmarks/results.")
SIZE = flags.DEFINE_integer("images", 24, "explanations: images that are explained, two thirds of them with a finding.")


def trained(row: str, runs: Path, more: list[str]) -> Path:
    """The folder of a row's run; trained with further flags if it is not there yet."""
    workdir = runs / row
    if not (workdir / "eval" / "metrics.json").exists():
        run(*shlex.split(command_of(row))[1:], *more, f"--workdir={workdir}")
    return workdir


def lesions(row: str, runs: Path, more: list[str]) -> dict[str, Any]:
    """Planted lesions of a row's run."""
    workdir = trained(row, runs, more)
    run("-m", "medjax.lesions", str(workdir))
    return {row: _read(workdir / "lesions" / "lesions.json")}


def consistency(row: str, runs: Path, more: list[str]) -> dict[str, Any]:
    """How a row's images agree with their measurements."""
    return {row: _read(trained(row, runs, more) / "eval" / "metrics.json")["consistency"]}


def explanations(row: str, runs: Path, more: list[str]) -> dict[str, Any]:
    """Maps of a classifier of drawn chests, of chests that it has not seen: how right they are, what lies in the finding."""
    workdir, records = trained(row, runs, more), ChestFindings(seed=1, count=SIZE.value).load()
    with tempfile.TemporaryDirectory() as folder:
        names = [Path(folder) / f"{i:03d}.npy" for i in range(len(records))]
        for name, record in zip(names, records, strict=True):
            np.save(name, record.image[..., 0])
        out = Path(folder) / "out"
        run("-m", "medjax.explain", str(workdir), *map(str, names), f"--output={out}")
        found = _read(out / "explain.json")["images"]
        shares: dict[str, list[float]] = {}
        for number, (name, record) in enumerate(zip(names, records, strict=True), 1):
            finding = record.extras["label"][..., 0] > 0
            for kind in found[0]["maps"] if finding.any() else ():
                values = np.load(out / f"{number}_{name.stem}_{kind}.npy").astype(float)
                shares.setdefault(kind, []).append(float(values[finding].sum() / values.sum() / finding.mean()))
    maps = {kind: {"deletion": _mean([one["maps"][kind]["deletion"] for one in found]),
                   "insertion": _mean([one["maps"][kind]["insertion"] for one in found]),
                   "in_finding": _mean(shares[kind])} for kind in found[0]["maps"]}
    right = sum(one["explained"] == f"the logit of {CLASSES[int(record.extras['class'])]}"
                for one, record in zip(found, records, strict=True))
    return {row: {"images": len(found), "with_finding": len(next(iter(shares.values()))), "right": right, "maps": maps,
                  "completeness": max(one["completeness"] for one in found)}}


def _mean(values: list[float]) -> dict[str, float]:
    low, high = interval(np.array(values))
    return {"mean": float(np.mean(values)), "low": low, "high": high}


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


KINDS = {"lesions": lesions, "consistency": consistency, "explanations": explanations}


def main(words: list[str]) -> None:
    names, more = ([word for word in words[1:] if word.startswith("--") == flag] for flag in (False, True))
    if not names:
        raise UserError("benchmarks.checks", f"give one of {', '.join(CHECKED)}")
    with tempfile.TemporaryDirectory() as scratch:
        for name in names:
            check_choice("benchmarks.checks", name, tuple(CHECKED))
            path, rows = CHECKED[name]
            found: dict[str, Any] = {"commit": commit(), "cores": os.cpu_count(), "rows": {}}
            for row in rows:
                found["rows"] |= KINDS[name.partition("_")[0]](row, Path(RUNS.value or scratch).resolve(), more)
            found["commands"] = {row: command_of(row) for row in rows}
            found["configs"] = {row: values_of(config_of(row)) for row in rows}
            target = Path(JSON.value) / path.name if JSON.value else path
            write_atomically(target, json.dumps(found, indent=1) + "\n")
            print(f"written: {target}; next: python -m benchmarks.scores --tables")


if __name__ == "__main__":
    app.run(main, flags_parser=lambda argv: flags.FLAGS(argv, known_only=True))
