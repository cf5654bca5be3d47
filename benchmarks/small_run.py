"""A small training run that the benchmarks of faults interrupt, and what its end consists of, bit for bit."""

import hashlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import nibabel
import numpy as np

from medjax import registry
from medjax.data.pipeline import train_stream
from medjax.train.run import load_config, load_splits, open_checkpoints

ROOT = Path(__file__).parents[1]
KEYS = ["--config=configs/quickstart.py", "--config.model.width=4", "--config.model.depth=2", "--config.batch_size=4",
        "--config.data.patch=(24,24)", "--config.checkpoint_every=5", "--config.eval_every=50", "--config.eval_samples=1",
        "--config.ema_decay=0.9", "--config.references=('none',)"]


def start(workdir: Path, steps: int, keys: list[str], processes: int = 1,
          beside: Path | None = None) -> list[subprocess.Popen]:
    """Starts the run in `workdir`, as so many processes of one device each, with further config keys.

    In the folder `beside`, that of `workdir` if None, are compiled programs, and in `err{i}` what process i says of errors.
    """
    beside = beside or workdir.parent
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(beside / "compiled"),
                   "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    command = [sys.executable, "train.py", *KEYS, f"--config.steps={steps}", *keys, f"--workdir={workdir}"]
    port = _free_port()
    several = [[f"--coordinator=localhost:{port}", f"--process_count={processes}", f"--process_index={i}"]
               for i in range(processes)]
    return [subprocess.Popen(command + (own if processes > 1 else []), cwd=ROOT, env=environment, stdout=subprocess.DEVNULL,
                             stderr=(beside / f"err{i}").open("w"), start_new_session=True)
            for i, own in enumerate(several)]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def draw_files(folder: Path, count: int, shape: tuple[int, ...] = (48, 48, 6)) -> list[str]:
    """Writes so many NIfTI files of noise; returns the config keys of a run on them."""
    folder.mkdir(parents=True)
    numbers = np.random.default_rng(0)
    for number in range(count):
        values = numbers.integers(1, 1000, shape).astype(np.int16)
        nibabel.Nifti1Image(values, np.eye(4)).to_filename(folder / f"sub-{number:03d}.nii.gz")
    return [f"--config.data.path={folder}"]


def end(workdir: Path, step: int) -> dict[str, str]:
    """Hashes of everything that the end of a run consists of: its last checkpoint, its next batches."""
    config = load_config(workdir)
    with open_checkpoints(config, workdir) as checkpoints:
        state, position = checkpoints.contents(step)
    hashes = {name: _digest(jax.tree.leaves(tree)) for name, tree in state.items()}
    stream = train_stream(load_splits(config, workdir)["train"], batch_size=config.batch_size,
                          patch=registry.frozen(config.data.patch),
                          ndim=config.data.ndim, seed=config.seed, foreground=config.data.foreground)
    stream.set_state(position)
    return hashes | {"next ten batches": _digest([array for _ in range(10) for array in next(stream).values()])}


def _digest(arrays: list[np.ndarray]) -> str:
    return hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()[:16]
