"""Notes what a run trains on and what its test people give: the pairs that a peer gets.

    python -m benchmarks.equal_budget.pairs --config=… --folder=FOLDER --test=66
"""

import json
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from absl import flags
from ml_collections import config_flags

from medjax import cli, registry
from medjax.data.augment import Augment
from medjax.data.pipeline import eval_batches
from medjax.physics.mri import Cartesian
from medjax.physics.sampling import ComplexChannels
from medjax.train.evaluator import EVAL_SEED
from medjax.train.layouts import OneRun
from medjax.train.loop import open_stream
from medjax.train.run import Config, assemble, load_splits, resolve
from medjax.train.step import step_keys
from medjax.types import Array, Batch, Example, Key, Measurement

CONFIG = config_flags.DEFINE_config_file("config", help_string="The run, as train.py has it.")
FOLDER = flags.DEFINE_string("folder", None, "Where the pairs go.", required=True)
TEST = flags.DEFINE_integer("test", 0, "Test images at most; 0 for all.")
PEOPLE = "people.json"


def record(config: Config, folder: Path, test: int) -> None:
    """Writes the examples of every step of `config` to `folder/train`, and those of its test images to `folder/test`."""
    splits = load_splits(config)
    config = resolve(config, splits)
    run = assemble(config)
    augment = Augment(**registry.frozen(config.augment))

    @jax.jit
    def drawn(step: Array, batch: Batch) -> Example:
        example_key, augment_key, _ = step_keys(jax.random.PRNGKey(config.seed), step)
        return run.task.example(example_key, augment(augment_key, batch))

    @jax.jit
    def tested(key: Key, batch: Batch) -> Example:
        return run.task.evaluation_example(key, batch)

    train = Arrays(folder / "train", config.steps * config.batch_size)
    with open_stream(run, config, splits, OneRun(run)) as stream:
        for step in range(config.steps):
            train.add(arrays_of(drawn(np.int32(step), next(stream))))
    images = eval_batches(splits["test"], batch_size=1, ndim=config.data.ndim, limit=test)
    held_out = Arrays(folder / "test", images.samples)
    people = []
    subjects = {region.record.id: region.record.subject for region in splits["test"]}
    for batch in images:
        (name,) = batch.pop("name")
        people.append(subjects[max((known for known in subjects if name.startswith(known)), key=len)])
        held_out.add(arrays_of(tested(jax.random.key(EVAL_SEED), batch)))
    (folder / "test" / PEOPLE).write_text(json.dumps(people), encoding="utf-8")


def arrays_of(example: Example) -> dict[str, np.ndarray]:
    """An example's arrays by the names that peers know them by, `(B, …)` each."""
    found = {"input": example.input.image, "target": example.target, "mask": example.mask}
    context = example.input.context
    if isinstance(context, Measurement):
        found["y"] = context.y
        if isinstance(context.operator, ComplexChannels) and isinstance(context.operator.operator, Cartesian):
            found |= {"maps": context.operator.operator.maps, "sampled": context.operator.operator.mask}
    return {name: np.asarray(array) for name, array in found.items()}


class Arrays:
    """Arrays of `count` rows in files of a folder, filled batch by batch."""

    def __init__(self, folder: Path, count: int):
        folder.mkdir(parents=True)
        self._folder, self._count, self._row = folder, count, 0
        self._files: dict[str, np.ndarray] = {}

    def add(self, batch: Mapping[str, np.ndarray]) -> None:
        """Writes the next rows."""
        for name, array in batch.items():
            if name not in self._files:
                self._files[name] = np.lib.format.open_memmap(self._folder / f"{name}.npy", "w+", array.dtype,
                                                              (self._count, *array.shape[1:]))
            self._files[name][self._row:self._row + len(array)] = array
        self._row += len(next(iter(batch.values())))


def main() -> None:
    record(CONFIG.value, Path(FOLDER.value), TEST.value)


if __name__ == "__main__":
    cli.run(main)
