"""medjax's side: trains a config as `train.py` does, without the evaluation after it; or predicts the test inputs.

    python -m benchmarks.equal_budget.side --config=… --workdir=RUN
    python -m benchmarks.equal_budget.side --workdir=RUN --predict=PREDICTIONS.npy --test=66
"""

import json
import time
from pathlib import Path

import jax
from absl import flags
from ml_collections import config_flags

from medjax import cli
from medjax.train.loop import train

IMPORTED = time.time()

CONFIG = config_flags.DEFINE_config_file("config", help_string="The run, as train.py has it.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
PREDICT = flags.DEFINE_string("predict", "", "The file that predictions of the test images go to, in place of training.")
TEST = flags.DEFINE_integer("test", 0, "Test images at most; 0 for all.")


def predict(workdir: Path, target: Path, test: int) -> None:
    """Saves what the trained network makes of the test images, in the order of `pairs.py`."""
    import numpy as np  # here, as training, which is timed, needs none of this

    from medjax.data.pipeline import eval_batches
    from medjax.train.evaluator import EVAL_SEED
    from medjax.train.run import load_splits, restore_best
    from medjax.train.step import make_predict

    run, state = restore_best(workdir)
    splits = load_splits(run.config, workdir)
    program = jax.jit(make_predict(run.task, run.objective))
    found = []
    for batch in eval_batches(splits["test"], batch_size=1, ndim=run.config.data.ndim, limit=test):
        del batch["name"]
        found.append(np.asarray(program(state, batch, jax.random.key(EVAL_SEED))[1].image))
    np.save(target, np.concatenate(found))


def main() -> None:
    workdir = Path(WORKDIR.value)
    if PREDICT.value:
        predict(workdir, Path(PREDICT.value), TEST.value)
        return
    state = train(CONFIG.value, workdir)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    marks = {"imported": IMPORTED, "trained": time.time(), "parameters": parameters}
    (workdir / "marks.json").write_text(json.dumps(marks), encoding="utf-8")


if __name__ == "__main__":
    cli.run(main)
