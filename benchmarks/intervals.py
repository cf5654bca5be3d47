"""Trains denoisers of brain slices that differ in their seed, and measures the intervals of each kind of uncertainty.

    python -m benchmarks.intervals --config.data.path=FOLDER
    python -m benchmarks.intervals --config.data.path=FOLDER --runs=runs/intervals

Written is `benchmarks/results/intervals_brains.json`; `python -m benchmarks.scores --tables` then writes the table of
docs/uncertainty.md. Runs that are in `--runs` already are not trained again.
"""

import json
import os
import shlex
from pathlib import Path
from typing import Any

from absl import app, flags

from benchmarks.processes import commit, run, write
from benchmarks.scores import INTERVALS, RUNS, command_of, config_of, values_of

JSON = flags.DEFINE_string("json", "", "Where the results go, another place than benchmarks/results.")

SEEDS = (0, 1, 2)
MEMBERS = [f"seed{seed}" for seed in SEEDS[1:]]
KINDS = {"constant": ["constant"], "flips": ["flips"], "members": MEMBERS, "flips and members": ["flips", *MEMBERS]}


def measure(runs: Path, more: list[str]) -> dict[str, Any]:
    """Trains what is not there yet, with further flags, and evaluates the first run with every kind of uncertainty."""
    for seed in SEEDS:
        workdir = runs / f"seed{seed}"
        if not (workdir / "eval" / "metrics.json").exists():
            run(*shlex.split(command_of(INTERVALS.stem))[1:], f"--config.seed={seed}", *more, f"--workdir={workdir}")
    found: dict[str, Any] = {"command": command_of(INTERVALS.stem), "config": values_of(config_of(INTERVALS.stem)),
                             "seeds": SEEDS, "commit": commit(), "cores": os.cpu_count(),
                             "kinds": {}}
    for kind, words in KINDS.items():
        asked = ",".join(word if word in ("constant", "flips") else str(runs / word) for word in words)
        run("eval.py", f"--workdir={runs / 'seed0'}", f"--uncertainty={asked}")
        metrics = json.loads((runs / "seed0" / "eval" / "metrics.json").read_text(encoding="utf-8"))
        found["kinds"][kind] = {"uncertainty": ",".join(words), "psnr": metrics["standings"]["psnr"]["model"]["mean"],
                                **metrics["intervals"]}
    return found


def main(words: list[str]) -> None:
    write(measure, RUNS.value, words[1:], Path(JSON.value or INTERVALS))


if __name__ == "__main__":
    app.run(main, flags_parser=lambda argv: flags.FLAGS(argv, known_only=True))
