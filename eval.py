"""Evaluates a trained run and writes its report: python eval.py --workdir=runs/quickstart --split=test"""

from pathlib import Path

from absl import flags

from medjax import cli
from medjax.evaluation.run import evaluate_run
from medjax.train import distributed

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
SPLIT = flags.DEFINE_enum("split", "test", ["train", "val", "test"], "Which split of the data.")
NAMES = flags.DEFINE_bool("names", False, "Write the names of files into tables and report; otherwise pseudonyms.")
JOIN = distributed.joining()


def main() -> None:
    JOIN()
    evaluate_run(Path(WORKDIR.value), SPLIT.value, names=NAMES.value)


if __name__ == "__main__":
    cli.run(main)
