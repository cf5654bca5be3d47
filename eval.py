"""Evaluates a trained run and writes its report: python eval.py --workdir=runs/quickstart --split=test"""

from pathlib import Path

from absl import flags

from medjax import cli
from medjax.evaluation.run import evaluate_run
from medjax.infer import uncertainty
from medjax.infer.fit import CHECKS
from medjax.train import distributed

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
DATA = flags.DEFINE_string("data", "", "A file or folder to evaluate on instead of the run's own data.")
SERIES = flags.DEFINE_string("series", None, "--data: which series of a folder; that of the run by default, \"\" for all.")
ACCEPT = flags.DEFINE_list("accept", [], f"--data: differences from the training images to accept: {', '.join(CHECKS)}.")
SPLIT = flags.DEFINE_enum("split", "test", ["train", "val", "test"], "Which split of the data.")
NAMES = flags.DEFINE_bool("names", False, "Write the names of files into tables and report; otherwise pseudonyms.")
MEMBERSHIP = flags.DEFINE_bool("membership", False, "Also measure how well training patients are told from test patients.")
UNCERTAINTY = uncertainty.flag()
JOIN = distributed.joining()


def main() -> None:
    JOIN()
    evaluate_run(Path(WORKDIR.value), SPLIT.value, names=NAMES.value,
                 data=Path(DATA.value).expanduser() if DATA.value else None, accept=ACCEPT.value, series=SERIES.value,
                 asked=tuple(UNCERTAINTY.value), members=MEMBERSHIP.value)


if __name__ == "__main__":
    cli.run(main)
