"""Commands as people type them, each in a process of its own, and a run small enough for a test."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SMALL = [
    "--config=configs/quickstart.py", "--config.model.width=4", "--config.model.depth=2", "--config.steps=6",
    "--config.batch_size=4", "--config.data.patch=(24,24)", "--config.log_every=1", "--config.eval_every=3",
    "--config.eval_samples=2", "--config.checkpoint_every=2", "--config.references=('median',)",
]
DRAWN = [SMALL[0] + ":source=phantoms", *SMALL[1:], "--config.data.source.kind=brain", "--config.data.source.shape=(40,40)",
         "--config.data.source.count=20"]
"""The same on phantoms, of which a test has two."""


def command(*args: str | Path, wait: bool = True):
    """The command in a process of its own, on one CPU device, compiled without optimization."""
    environment = os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=0", "JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen([sys.executable, *map(str, args)], cwd=ROOT, env=environment, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if not wait:
        return process
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err
