"""Kills a training run again and again at random moments and compares its end, bit for bit, with an uninterrupted one.

    python -m benchmarks.kill --kills=20 --json=benchmarks/results/kill.json
    python -m benchmarks.kill --processes=2 --kills=50 --steps=50 --json=benchmarks/results/kill_processes.json
    python -m benchmarks.kill --kills=50 --steps=50 --files=100 --json=benchmarks/results/kill_files.json

Each restart takes another number of worker processes. With `--processes` the run is that many processes of one device
each; one of them, drawn at random, is killed, and a moment later, as a scheduler does, the others. With `--files` the run
is on that many files of its own, and every start finds an empty cache. Compared are the last checkpoint (parameters,
optimizer state, averaged weights, key), the position of the data and the ten batches that would come next.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
from absl import app, flags, logging
from tqdm import tqdm

from benchmarks import small_run

KILLS = flags.DEFINE_integer("kills", 20, "How often to kill.")
STEPS = flags.DEFINE_integer("steps", 400, "Length of the run.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of the moments.")
PROCESSES = flags.DEFINE_integer("processes", 1, "Processes that make up the run.")
FILES = flags.DEFINE_integer("files", 0, "Files to train on; 0 for the built-in images.")
ADD = flags.DEFINE_bool("add", False, "Add to the counts that --json holds already.")
JSON = flags.DEFINE_string("json", "", "Where to write the result.")


def start(workdir: Path, workers: int) -> list[subprocess.Popen]:
    keys = [f"--config.data.workers={workers}"]
    if FILES.value:
        files, cache = workdir.parent / "files", workdir.parent / "cache"
        keys += [f"--config.data.path={files}"] if files.exists() else small_run.draw_files(files, FILES.value)
        shutil.rmtree(cache, ignore_errors=True)
        os.environ["XDG_CACHE_HOME"] = str(cache)  # also of `end`, which reads the run's files here
    return small_run.start(workdir, STEPS.value, keys, PROCESSES.value)


def wait(processes: list[subprocess.Popen], seconds: float | None = None) -> bool:
    """Whether all have ended well in time. Raises RuntimeError where one has not ended well."""
    until = time.monotonic() + (seconds or 1e9)
    for process in processes:
        try:
            process.wait(timeout=max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            return False
        if process.returncode:
            raise RuntimeError(f"exit code {process.returncode} of {process.args}")
    return True


def kill(processes: list[subprocess.Popen], order: random.Random) -> None:
    for process in order.sample(processes, len(processes)):
        if process.poll() is None:  # it may have ended a moment ago
            os.killpg(process.pid, signal.SIGKILL)
        time.sleep(order.uniform(0.0, 0.3) if len(processes) > 1 else 0.0)
    for process in processes:
        process.wait()


def main(_: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    moments = random.Random(SEED.value)
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder) / "whole", Path(folder) / "killed"
        wait(start(whole, workers=0))  # fills the compilation cache
        shutil.rmtree(whole)
        begin = time.monotonic()
        wait(start(whole, workers=0))
        length = time.monotonic() - begin
        kills = restarts = in_checkpoint = before_training = 0
        reference, results = small_run.end(whole, STEPS.value), []
        bar = tqdm(total=KILLS.value, desc="kills", unit="kill")
        while kills < KILLS.value:
            running = start(killed, restarts % 2)
            restarts += 1
            if not wait(running, moments.uniform(0.3, 1.0) * length):
                in_checkpoint += any("orbax-checkpoint-tmp" in p.name for p in killed.glob("checkpoints/*"))
                before_training += not (killed / "config.json").exists()
                kill(running, moments)
                kills += 1
                bar.update()
                continue
            results.append(small_run.end(killed, STEPS.value) == reference)
            killed = Path(folder) / f"killed{restarts}"
        wait(start(killed, restarts % 2))
        results.append(small_run.end(killed, STEPS.value) == reference)
    counts = {"kills": kills, "while a checkpoint was written": in_checkpoint, "before the first step": before_training,
              "runs compared": len(results), "bit-identical": sum(results)}
    if ADD.value and Path(JSON.value).exists():
        before = json.loads(Path(JSON.value).read_text())
        counts = {name: count + before[name] for name, count in counts.items()}
    summary = counts | {"processes": PROCESSES.value, "steps": STEPS.value, "files": FILES.value,
                        "compared": list(reference), "jax": jax.__version__}
    print(json.dumps(summary, indent=1))
    if JSON.value:
        Path(JSON.value).write_text(json.dumps(summary, indent=1) + "\n")
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    app.run(main)
