"""Kills a training run again and again at random moments and compares its end, bit for bit, with an uninterrupted one.

    python benchmarks/kill.py --kills=20 --json=benchmarks/results/kill.json
    python benchmarks/kill.py --processes=2 --kills=100 --steps=100 --json=benchmarks/results/kill_processes.json

Each restart takes another number of worker processes. With `--processes` the run is that many processes of one device
each; one of them, drawn at random, is killed, and a moment later, as a scheduler does, the others. Compared are the last
checkpoint (parameters, optimizer state, averaged weights, key), the position of the data and the ten batches that would
come next.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from absl import app, flags

from medjax import registry
from medjax.data.pipeline import train_stream
from medjax.train.run import load_config, load_splits, open_checkpoints

KILLS = flags.DEFINE_integer("kills", 20, "How often to kill.")
STEPS = flags.DEFINE_integer("steps", 400, "Length of the run.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of the moments.")
PROCESSES = flags.DEFINE_integer("processes", 1, "Processes that make up the run.")
ADD = flags.DEFINE_bool("add", False, "Add to the counts that --json holds already.")
JSON = flags.DEFINE_string("json", "", "Where to write the result.")

ROOT = Path(__file__).parents[1]
RUN = ["--config=configs/quickstart.py", "--config.model.width=4", "--config.model.depth=2", "--config.batch_size=4",
       "--config.data.patch=(24,24)", "--config.checkpoint_every=5", "--config.eval_every=50", "--config.eval_samples=1",
       "--config.ema_decay=0.9", "--config.references=('none',)"]


def start(workdir: Path, workers: int) -> list[subprocess.Popen]:
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(workdir.parent / "cache"),
                                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    command = [sys.executable, "train.py", *RUN, f"--config.steps={STEPS.value}", f"--config.data.workers={workers}",
               f"--workdir={workdir}"]
    several = [f"--coordinator=localhost:{free_port()}", f"--process_count={PROCESSES.value}"]
    return [subprocess.Popen(command + ([*several, f"--process_index={i}"] if PROCESSES.value > 1 else []), cwd=ROOT,
                             env=environment, stdout=subprocess.DEVNULL, stderr=(workdir.parent / f"err{i}").open("w"),
                             start_new_session=True) for i in range(PROCESSES.value)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


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
        os.killpg(process.pid, signal.SIGKILL)
        time.sleep(order.uniform(0.0, 0.3) if len(processes) > 1 else 0.0)
    for process in processes:
        process.wait()


def end(workdir: Path) -> dict[str, str]:
    """Hashes of everything that the end of a run consists of."""
    config = load_config(workdir)
    with open_checkpoints(config, workdir) as checkpoints:
        state, position = checkpoints.contents(STEPS.value)
    hashes = {name: digest(jax.tree.leaves(tree)) for name, tree in state.items()}
    stream = train_stream(load_splits(config)["train"], batch_size=config.batch_size,
                          patch=registry.frozen(config.data.patch),
                          ndim=config.data.ndim, seed=config.seed, foreground=config.data.foreground)
    stream.set_state(position)
    return hashes | {"next ten batches": digest([array for _ in range(10) for array in next(stream).values()])}


def digest(arrays: list[np.ndarray]) -> str:
    return hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()[:16]


def main(_: list[str]) -> None:
    moments = random.Random(SEED.value)
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder) / "whole", Path(folder) / "killed"
        wait(start(whole, workers=0))  # fills the compilation cache
        shutil.rmtree(whole)
        begin = time.monotonic()
        wait(start(whole, workers=0))
        length = time.monotonic() - begin
        kills = restarts = in_checkpoint = 0
        reference, results = end(whole), []
        while kills < KILLS.value:
            running = start(killed, restarts % 3)
            restarts += 1
            if not wait(running, moments.uniform(0.3, 1.0) * length):
                in_checkpoint += any("orbax-checkpoint-tmp" in p.name for p in killed.glob("checkpoints/*"))
                kill(running, moments)
                kills += 1
                continue
            results.append(end(killed) == reference)
            killed = Path(folder) / f"killed{restarts}"
        wait(start(killed, restarts % 3))
        results.append(end(killed) == reference)
    counts = {"kills": kills, "while a checkpoint was written": in_checkpoint, "runs compared": len(results),
              "bit-identical": sum(results)}
    if ADD.value and Path(JSON.value).exists():
        before = json.loads(Path(JSON.value).read_text())
        counts = {name: count + before[name] for name, count in counts.items()}
    summary = counts | {"processes": PROCESSES.value, "steps": STEPS.value, "compared": list(reference),
                        "jax": jax.__version__}
    print(json.dumps(summary, indent=1))
    if JSON.value:
        Path(JSON.value).write_text(json.dumps(summary, indent=1) + "\n")
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    app.run(main)
