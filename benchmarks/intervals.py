"""Trains denoisers of brain slices that differ in their seed, and measures the intervals of each kind of uncertainty.

    python -m benchmarks.intervals --config.data.path=FOLDER
    python -m benchmarks.intervals --config.data.path=FOLDER --runs=runs/intervals

Written is `benchmarks/results/intervals_brains.json`; `python -m benchmarks.scores --tables` then writes the table of
docs/uncertainty.md. Runs that are in `--runs` already are not trained again.
"""

import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from absl import app, flags

from benchmarks.scores import INTERVALS, ROOT, RUNS
from medjax.files import write_atomically

JSON = flags.DEFINE_string("json", "", "Where the results go, another place than benchmarks/results.")

SEEDS = (0, 1, 2)
COMMAND = ("python train.py --config=configs/quickstart.py:source=files --config.data.source.match='*_T1w.nii.gz' "
           "--config.data.fractions='(0.3,0.2,0.5)' --config.data.normalise=volume --config.model.width=16 "
           "--config.references=\"('none',)\"")
MEMBERS = [f"seed{seed}" for seed in SEEDS[1:]]
KINDS = {"constant": ["constant"], "flips": ["flips"], "members": MEMBERS, "flips and members": ["flips", *MEMBERS]}


def measure(runs: Path, more: list[str]) -> dict[str, Any]:
    """Trains what is not there yet, with further flags, and evaluates the first run with every kind of uncertainty."""
    for seed in SEEDS:
        workdir = runs / f"seed{seed}"
        if not (workdir / "eval" / "metrics.json").exists():
            _run(*shlex.split(COMMAND)[1:], f"--config.seed={seed}", *more, f"--workdir={workdir}")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, check=True, text=True, capture_output=True)
    found: dict[str, Any] = {"command": COMMAND, "seeds": SEEDS, "commit": commit.stdout.strip(), "cores": os.cpu_count(),
                             "kinds": {}}
    for kind, words in KINDS.items():
        asked = ",".join(word if word in ("constant", "flips") else str(runs / word) for word in words)
        _run("eval.py", f"--workdir={runs / 'seed0'}", f"--uncertainty={asked}")
        metrics = json.loads((runs / "seed0" / "eval" / "metrics.json").read_text(encoding="utf-8"))
        found["kinds"][kind] = {"uncertainty": ",".join(words), "psnr": metrics["standings"]["psnr"]["model"]["mean"],
                                **metrics["intervals"]}
    return found


def _run(*words: str) -> None:
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True)


def main(words: list[str]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        found = measure(Path(RUNS.value or scratch).resolve(), words[1:])
    target = Path(JSON.value or INTERVALS)
    write_atomically(target, json.dumps(found, indent=1) + "\n")
    print(f"written: {target}; next: python -m benchmarks.scores --tables")


if __name__ == "__main__":
    app.run(main, flags_parser=lambda argv: flags.FLAGS(argv, known_only=True))
