"""CT slices at full dose and at a quarter of it, as files of two channels: the pairs that CT networks learn from.

    python -m benchmarks.equal_budget.lowdose --config=configs/ct_lowdose.py:source=files,model=unet \
        --config.data.path=SCANS --folder=FOLDER --size=256

Each slice of the config's scans is simulated whole by its task, as noise depends on all that a ray goes through, and its
middle of `size` pixels is written to FOLDER/NAME.npy, `(size, size, 2)` int16 in HU, low dose first; FOLDER/subjects.csv
says whose it is.
"""

import csv
from pathlib import Path

import jax
import numpy as np
from absl import flags
from ml_collections import config_flags

from medjax import cli
from medjax.data.pipeline import eval_batches
from medjax.train.evaluator import EVAL_SEED
from medjax.train.run import build_task, load_splits, resolve

CONFIG = config_flags.DEFINE_config_file("config", help_string="Whose data and task are taken.")
FOLDER = flags.DEFINE_string("folder", None, "Where the files go.", required=True)
SIZE = flags.DEFINE_integer("size", 256, "Pixels a side of what is kept.")
SUBJECTS = "subjects.csv"


def main() -> None:
    """Writes the files."""
    config, folder = CONFIG.value, Path(FOLDER.value)
    folder.mkdir(parents=True)
    config.data.fractions = (1.0, 0.0, 0.0)
    splits = load_splits(config)
    config = resolve(config, splits)
    task = build_task(config)
    simulated = jax.jit(task.example)
    low, high = config.data.range
    rows = []
    for number, region in enumerate(splits["train"]):
        for index, batch in enumerate(eval_batches([region], batch_size=1, ndim=2)):
            del batch["name"]
            example = simulated(jax.random.key(EVAL_SEED), batch)
            pair = np.concatenate([np.asarray(example.input.image), np.asarray(example.target)], -1)[0]
            first = [max(n - SIZE.value, 0) // 2 for n in pair.shape[:2]]
            kept = pair[first[0]:first[0] + SIZE.value, first[1]:first[1] + SIZE.value]
            name = f"{number:03d}-{index:03d}.npy"
            np.save(folder / name, np.clip(np.rint(kept * (high - low) + low), -1024, 3071).astype(np.int16))
            rows.append((name, region.record.subject))
    with (folder / SUBJECTS).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("filename", "patientid"), *rows])


if __name__ == "__main__":
    cli.run(main)
