"""Judges a trained run and writes its report: python eval.py --workdir=runs/quickstart --split=test"""

from pathlib import Path

from absl import flags

from medjax import cli
from medjax.evaluation import evaluate_run

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
SPLIT = flags.DEFINE_enum("split", "test", ["train", "val", "test"], "Which part of the data.")
flags.mark_flag_as_required("workdir")


if __name__ == "__main__":
    cli.run(lambda: evaluate_run(Path(WORKDIR.value), SPLIT.value))
