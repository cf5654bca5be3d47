"""One case with one seed: pairs, both sides in turn, predictions, scores."""

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.equal_budget.cases import PLAIN, Case
from medjax.bench import machine
from medjax.bench.peer import find_python
from medjax.train.log import read_curves
from medjax.types import UserError

SUBJECTS = "subjects.csv"  # which lowdose.py writes
ROOT = Path(__file__).parents[2]
CHILD = Path(__file__).with_name("peers") / "child.py"
OWN_DATA = ("data.source.", "data.normalise")  # keys that built-in data has not
PHANTOMS = {"data.source.shape": (48, 48), "data.source.count": 8}
UNSET = ("JAX_COMPILATION_CACHE_DIR", "PYTHONPATH", "PYTHONHOME", "XLA_FLAGS")  # what a user's process would not have


def flags_of(case: Case, seed: int, steps: int, tiny: bool, data: Path) -> tuple[list[str], dict[str, Any]]:
    """What `train.py` would be given, and what of it differs from the config."""
    changes = PLAIN | dict(case.changes)
    spec = case.config
    if tiny and case.tiny_config:
        spec = case.tiny_config
        changes = {key: value for key, value in changes.items() if not key.startswith(OWN_DATA)}
    else:
        changes["data.path"] = str(data.resolve())
        if case.low_dose:
            changes |= {"data.source.subjects": str(data / SUBJECTS), "data.source.cache": str(data.with_name("cache"))}
    changes |= (dict(case.tiny) if tiny else {}) | {"seed": seed, "steps": steps}
    return [_config(spec), *(f"--config.{key}={value}" for key, value in changes.items())], changes


def _config(spec: str) -> str:
    module, colon, argument = spec.partition(":")
    return f"--config=configs/{module}.py{colon}{argument}"


def low_dose(data: Path, tiny: bool, scratch: Path) -> Path:
    """The folder of slices at two doses, made of the scans in `data`, or of phantoms, once for a command."""
    folder = scratch / "slices"
    if not folder.exists():
        flags = [_config("ct_lowdose"), *(f"--config.{key}={value}" for key, value in PHANTOMS.items())] if tiny else [
            _config("ct_lowdose:source=files,model=unet"), f"--config.data.path={data}"]
        _run([sys.executable, "-m", "benchmarks.equal_budget.lowdose", *flags, f"--folder={folder}"], scratch / "slices.log")
    return folder


def measure(case: Case, seed: int, steps: int, tiny: bool, data: Path, python: str, common: Path) -> dict[str, Any]:
    """Seconds of both sides, and their scores by test image. Raises UserError where a process fails.

    What all seeds need is made once in the folder `common`.
    """
    scans = data / case.data
    scans = low_dose(scans, tiny, common) if case.low_dose else scans
    if case.made and not tiny:
        scans = common / case.made.__module__
        if not scans.exists():
            case.made(scans)
    flags, changes = flags_of(case, seed, steps, tiny, scans)
    with tempfile.TemporaryDirectory(dir=common) as scratch:
        return _measured(case, flags, changes, tiny, python, Path(scratch))


def _measured(case: Case, flags: list[str], changes: Mapping[str, Any], tiny: bool, python: str,
              scratch: Path) -> dict[str, Any]:
    pairs, seed = scratch / "pairs", changes["seed"]
    peer = [python_of(case, python), str(CHILD), case.peer]
    test = f"--test={2 if tiny else case.test}"
    _run([sys.executable, "-m", "benchmarks.equal_budget.pairs", *flags, f"--folder={pairs}", test], scratch / "pairs.log")
    people = json.loads((pairs / "test" / "people.json").read_text(encoding="utf-8"))
    settings = dict(case.settings) | (dict(case.tiny_settings) if tiny else {})
    settings |= {"data": changes.get("data.path", ""), "test_people": people, "seed": seed, "steps": changes["steps"],
                 "threads": machine.threads(), "batch_size": changes["batch_size"], "lr": changes["optim.lr"]}
    (pairs / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    ours, theirs = scratch / "medjax", scratch / "peer"
    theirs.mkdir()
    turns = {"medjax": ([sys.executable, "-m", "benchmarks.equal_budget.side", *flags, f"--workdir={ours}"], ours),
             "peer": ([*peer, "train", str(pairs), str(theirs)], theirs)}
    found: dict[str, Any] = {"first": "medjax" if seed % 2 == 0 else "peer"}
    for name in sorted(turns, reverse=seed % 2 == 1):
        words, folder = turns[name]
        found[name] = _timed(words, scratch / f"{name}.log", folder)
    curves = read_curves(ours)
    found["medjax"]["step_seconds"] = changes["batch_size"] / float(np.median(
        [speed for _, speed in curves["train/images_per_s"][1:] or curves["train/images_per_s"]]))
    _run([*turns["medjax"][0][:3], f"--workdir={ours}", f"--predict={scratch / 'medjax.npy'}", test], scratch / "ours.log")
    _run([*peer, "predict", str(pairs), str(theirs)], scratch / "theirs.log")
    truth, mask = (np.load(pairs / "test" / f"{name}.npy", mmap_mode="r") for name in ("target", "mask"))
    given = np.load(pairs / "test" / "input.npy", mmap_mode="r")
    made = {"medjax": np.load(scratch / "medjax.npy"), "peer": np.load(theirs / "predictions.npy"),
            **({"input": given} if given.shape == truth.shape else {})}
    for name, images in made.items():
        found.setdefault(name, {})["scores"] = [case.scores(*one) for one in zip(images, truth, mask, strict=True)]
    found["people"] = people
    return found


def python_of(case: Case, given: str) -> str:
    """The Python that has the case's peer. Raises UserError where there is none."""
    if given or not case.environment:
        return find_python(given)
    own = ROOT / f".{case.environment}" / "bin" / "python"
    if not own.exists():
        raise UserError("--peer_python", f"{case.package} has an environment of its own; make it with `make "
                        f"{case.environment}`, or name a Python that has it")
    return str(own)


def _environment() -> dict[str, str]:
    """Without a cache of compiled programs; on as many threads as the process has cores."""
    threads = str(machine.threads())
    return {key: value for key, value in os.environ.items() if key not in UNSET} | {
        "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "JAX_PLATFORMS": "cpu"}


def _timed(words: Sequence[str], log: Path, folder: Path) -> dict[str, Any]:
    """The seconds from the start of a process to its end, and of its processors; what it noted of itself."""
    began = time.time()
    usage = _run(words, log)
    seconds = time.time() - began
    marks: Mapping[str, Any] = json.loads((folder / "marks.json").read_text(encoding="utf-8"))
    return {"seconds": seconds, "cpu_seconds": usage.ru_utime + usage.ru_stime, "import_seconds": marks["imported"] - began,
            **{key: marks[key] for key in ("step_seconds", "parameters", "versions") if key in marks}}


def _run(words: Sequence[str], log: Path) -> Any:
    """Runs a process to its end, its output in `log`; what it used. Raises UserError, with the end of the log."""
    with log.open("wb") as out:
        process = subprocess.Popen(words, cwd=ROOT, env=_environment(), stdout=out, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        said = log.read_text(encoding="utf-8", errors="replace")
        raise UserError(shlex.join(words[:6]), f"ended with code {process.returncode}:\n{said[-2000:]}")
    return usage
