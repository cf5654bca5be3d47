"""Trains a config: python train.py --config=configs/quickstart.py --workdir=runs/quickstart"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from medjax import cli, sweep
from medjax.evaluation import evaluate_run
from medjax.train import processes
from medjax.train.loop import train

CONFIG = config_flags.DEFINE_config_file("config", help_string="The run: configs/<run>.py, or configs/<run>.py:model=edsr.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; the same folder again goes on from where it was.")
SWEEP = flags.DEFINE_string("sweep", "", "A grid of values to compare: 'optim.lr=1e-3,3e-4;model.width=16,32'.")
PROCESSES = flags.DEFINE_enum("processes", "off", processes.MODES, "auto: join the processes of a SLURM, GKE or TPU job.")
COORDINATOR = flags.DEFINE_string("coordinator", "", "HOST:PORT of process 0, where nothing tells it.")
COUNT = flags.DEFINE_integer("process_count", 0, "How many processes there are, with --coordinator.")
INDEX = flags.DEFINE_integer("process_index", -1, "Which of them this is, with --coordinator.")
flags.mark_flags_as_required(["config", "workdir"])


def main() -> None:
    processes.join(PROCESSES.value, COORDINATOR.value, COUNT.value, INDEX.value)
    workdir = Path(WORKDIR.value)
    if SWEEP.value:
        sweep.run(CONFIG.value, SWEEP.value, workdir)
        return
    train(CONFIG.value, workdir)
    if not processes.several():
        evaluate_run(workdir)
    elif processes.speaks():
        print(f"trained; to judge it: python eval.py --workdir={workdir}")


if __name__ == "__main__":
    cli.run(main)
