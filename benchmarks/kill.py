"""Kills a training run again and again at random moments and compares its end, bit for bit, with an uninterrupted one.

    python benchmarks/kill.py --kills=20 --json=benchmarks/results/kill.json

Each restart takes another number of worker processes. Compared are the last checkpoint (parameters, optimizer state,
averaged weights, key), the position of the data and the ten batches that would come next.
"""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import app, flags

from medjax import lookup
from medjax.data.pipeline import train_stream
from medjax.train.setup import load_config, load_splits

KILLS = flags.DEFINE_integer("kills", 20, "How often to kill.")
STEPS = flags.DEFINE_integer("steps", 400, "Length of the run.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of the moments.")
JSON = flags.DEFINE_string("json", "", "Where to write the result.")

ROOT = Path(__file__).parents[1]
RUN = ["--config=configs/quickstart.py", "--config.model.width=4", "--config.model.depth=2", "--config.batch_size=4",
       "--config.data.patch=(24,24)", "--config.checkpoint_every=5", "--config.eval_every=50", "--config.eval_samples=1",
       "--config.ema_decay=0.9"]


def start(workdir: Path, workers: int) -> subprocess.Popen:
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    return subprocess.Popen([sys.executable, "train.py", *RUN, f"--config.steps={STEPS.value}",
                             f"--config.data.workers={workers}", f"--workdir={workdir}"], cwd=ROOT, env=environment,
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True)


def finish(workdir: Path, workers: int) -> None:
    process = start(workdir, workers)
    _, err = process.communicate()
    if process.returncode:
        raise RuntimeError(err)


def end(workdir: Path) -> dict[str, str]:
    """Hashes of everything that the end of a run consists of."""
    manager = ocp.CheckpointManager(workdir / "checkpoints")
    args = ocp.args.Composite(state=ocp.args.StandardRestore(), data=ocp.args.JsonRestore())
    found = manager.restore(STEPS.value, args=args)
    manager.close()
    hashes = {name: digest(jax.tree.leaves(tree)) for name, tree in found.state.items()}
    config = load_config(workdir)
    stream = train_stream(load_splits(config)["train"], batch_size=config.batch_size, patch=lookup.frozen(config.data.patch),
                          ndim=config.data.ndim, seed=config.seed, foreground=config.data.foreground)
    stream.set_state(found.data)
    return hashes | {"next ten batches": digest([array for _ in range(10) for array in next(stream).values()])}


def digest(arrays: list[np.ndarray]) -> str:
    return hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()[:16]


def main(_: list[str]) -> None:
    moments = random.Random(SEED.value)
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder) / "whole", Path(folder) / "killed"
        begin = time.monotonic()
        finish(whole, workers=0)
        length = time.monotonic() - begin
        kills = restarts = in_checkpoint = 0
        reference, results = end(whole), []
        while kills < KILLS.value:
            workers = restarts % 3
            process = start(killed, workers)
            restarts += 1
            try:
                process.wait(timeout=moments.uniform(0.3, 1.0) * length)
            except subprocess.TimeoutExpired:
                in_checkpoint += any("orbax-checkpoint-tmp" in p.name for p in killed.glob("checkpoints/*"))
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                kills += 1
                continue
            if process.returncode:
                raise RuntimeError(process.stderr.read())
            results.append(end(killed) == reference)
            killed = Path(folder) / f"killed{restarts}"
        finish(killed, workers=restarts % 3)
        results.append(end(killed) == reference)
    summary = {"kills": kills, "while a checkpoint was written": in_checkpoint, "runs compared": len(results),
               "bit-identical": sum(results), "steps": STEPS.value, "compared": list(reference), "jax": jax.__version__}
    print(json.dumps(summary, indent=1))
    if JSON.value:
        Path(JSON.value).write_text(json.dumps(summary, indent=1) + "\n")
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    app.run(main)
