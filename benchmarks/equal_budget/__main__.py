"""The command: measures cases, and writes what was found."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from tqdm import tqdm

from benchmarks.equal_budget import results
from benchmarks.equal_budget.cases import CASES
from benchmarks.equal_budget.measure import measure
from medjax import cli
from medjax.files import write_atomically
from medjax.types import UserError

SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds, of the weights and of the order of samples.")
STEPS = flags.DEFINE_integer("steps", 0, "Steps of a training; 0 for the case's own.", lower_bound=0)
SIZE = flags.DEFINE_enum("size", "full", ["full", "tiny"], "tiny: built-in data and small networks, to see that it runs.")
DATA = flags.DEFINE_string("data", "../shared/data", "The folder of real scans.")
PYTHON = flags.DEFINE_string("peer_python", "", "The Python that has the peer; else MEDJAX_PEER_PYTHON, else that of "
                             "`make peers`.")
RESULTS = flags.DEFINE_string("results", str(results.FOLDER), "The folder that results go to, a file each case.")
TABLES = flags.DEFINE_bool("tables", False, "Writes the tables only.")
TINY_STEPS = 2


def main(words: Sequence[str]) -> None:
    """Measures the cases named, or all; seeds that a file of results has are replaced, others kept."""
    if TABLES.value:
        write_atomically(results.PAGE, results.page())
        print(f"written: {results.PAGE}")
        return
    for name in words:
        if name not in CASES:
            raise UserError(name, f"unknown case; choose from {', '.join(CASES)}")
    tiny = SIZE.value == "tiny"
    todo = [(name, int(seed)) for name in words or CASES for seed in SEEDS.value]
    with tempfile.TemporaryDirectory() as common:
        for name, seed in tqdm(todo, desc="trainings", unit="pair"):
            steps = STEPS.value or (TINY_STEPS if tiny else CASES[name].steps)
            found = measure(CASES[name], seed, steps, tiny, Path(DATA.value), PYTHON.value, Path(common))
            path = Path(RESULTS.value) / f"{name}.json"
            whole = results.with_seed(path, CASES[name], steps, seed, found)
            path.parent.mkdir(parents=True, exist_ok=True)
            results.save(path, whole)
            tqdm.write(results.table({name: whole}))
    print(f"written: {RESULTS.value}; next: python -m benchmarks.equal_budget --tables")


if __name__ == "__main__":
    cli.run_with_words(main)
