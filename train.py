"""Trains a config: python train.py --config=configs/quickstart.py --workdir=runs/quickstart"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from medjax import cli, sweep
from medjax.evaluation.run import evaluate_run
from medjax.train import distributed
from medjax.train.loop import train
from medjax.train.profile import parse_steps

CONFIG = config_flags.DEFINE_config_file("config", help_string="The run: configs/<run>.py, or configs/<run>.py:model=edsr.")
flags.mark_flag_as_required("config")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; a run that is there is resumed.", required=True)
SWEEP = flags.DEFINE_string("sweep", "", "A grid of values to compare: 'optim.lr=1e-3,3e-4;seed=0..4'.")
SIDE_BY_SIDE = flags.DEFINE_bool("side_by_side", False, "--sweep: seeds and learning rates in one program, a device each.")
PROFILE = flags.DEFINE_string("profile", "", "FIRST-LAST: trace these steps into workdir/profile.")
JOIN = distributed.joining()


def main() -> None:
    JOIN()
    workdir = Path(WORKDIR.value)
    if SWEEP.value:
        sweep.run(CONFIG.value, SWEEP.value, workdir, SIDE_BY_SIDE.value)
        return
    train(CONFIG.value, workdir, parse_steps(PROFILE.value))
    evaluate_run(workdir, again=False)


if __name__ == "__main__":
    cli.run(main)
