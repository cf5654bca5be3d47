"""Trains denoisers of brain slices on few people, plainly and with differential privacy, and measures how well the people of
training are told from others.

    python -m benchmarks.membership --config.data.path=FOLDER
    python -m benchmarks.membership --config.data.path=FOLDER --runs=runs/membership

FOLDER has files like `sub-01/sub-01_T1w.nii.gz`. Written is `benchmarks/results/membership_brains.json`; `python -m
benchmarks.scores --tables` then writes the table of docs/privacy.md. Runs that are in `--runs` already are not trained
again.
"""

import json
import os
import shlex
from pathlib import Path
from typing import Any

from absl import app, flags

from benchmarks.privacy_tables import MEMBERSHIP
from benchmarks.processes import commit, cpu_seconds, run, write
from benchmarks.scores import OTHER, RUNS, command_of, config_of, values_of

NAMES = [name for name in OTHER if name.startswith(MEMBERSHIP.stem)]


def measure(runs: Path, more: list[str]) -> dict[str, Any]:
    """Trains what is not there yet, with further flags, and attacks each run."""
    found: dict[str, Any] = {"commit": commit(), "cores": os.cpu_count(), "runs": {}}
    for name in NAMES:
        workdir, before = runs / name, cpu_seconds()
        if not (workdir / "eval" / "metrics.json").exists():
            run(*shlex.split(command_of(name))[1:], *more, f"--workdir={workdir}")
        seconds = cpu_seconds() - before
        run("eval.py", f"--workdir={workdir}", "--membership")
        metrics = json.loads((workdir / "eval" / "metrics.json").read_text(encoding="utf-8"))
        found["runs"][name] = {"command": command_of(name), "config": values_of(config_of(name)), "step": metrics["step"],
                               "cpu_seconds": round(seconds), "patients": metrics["patients"],
                               "psnr": metrics["standings"]["psnr"], "attacks": metrics["attacks"],
                               "privacy": metrics.get("privacy")}
    return found


def main(words: list[str]) -> None:
    write(measure, RUNS.value, words[1:], MEMBERSHIP)


if __name__ == "__main__":
    app.run(main, flags_parser=lambda argv: flags.FLAGS(argv, known_only=True))
