"""Ranks runs on the same test patients: python -m medjax.compare runs/one runs/two --output=runs/comparison

Written are `ranking.json`, `ranking.csv` and `ranking.png`: means with intervals over patients, paired tests against the
best, and what each network costs; and `comparison.html`, one file with all of it, the images with the runs as layers, every
sample by two runs, and the curves of all trainings.
"""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from medjax import cli
from medjax.evaluation.ranking import Ranking, rank
from medjax.evaluation.run import shown_of
from medjax.files import atomic, write_atomically
from medjax.report import ranking, runs
from medjax.report.table import aligned, standing_cells
from medjax.train.log import read_curves
from medjax.train.run import load_config
from medjax.types import UserError

OUTPUT = flags.DEFINE_string("output", "comparison", "Folder of the results.")
SPLIT = flags.DEFINE_enum("split", "test", ["train", "val", "test"], "Which split of the data.")
PAGE = "comparison.html"
COSTS = ["parameters", "GFLOP", "ms", "MB"]


def main(args: Sequence[str]) -> None:
    """Ranks the runs that are named by their folders."""
    if len(args) < 2:
        raise UserError("medjax.compare", "give the folders of at least two runs")
    workdirs = [Path(arg) for arg in args]
    found = rank(workdirs, SPLIT.value)
    folder = Path(OUTPUT.value)
    folder.mkdir(parents=True, exist_ok=True)
    cells = cells_of(found)
    write_atomically(folder / "ranking.json", json.dumps(contents(found), indent=1))
    text = io.StringIO()
    csv.writer(text).writerows(cells)
    write_atomically(folder / "ranking.csv", text.getvalue())
    with atomic(folder / "ranking.png") as path:
        ranking.draw(path, found.standings, found.metric)
    _write_page(folder / PAGE, found, workdirs, cells)
    print(aligned(cells))
    if found.patients < 2:
        print("one patient: nothing is said of others, so there are no intervals and no tests")
    else:
        print(f"over {found.patients} patients: bootstrap intervals, paired permutation tests against the best (Holm)")
    print(f"written: {folder}; {folder / PAGE} opens in a browser, from disk")


def _write_page(path: Path, found: Ranking, workdirs: Sequence[Path], cells: Sequence[Sequence[str]]) -> None:
    """The comparison as one page."""
    by_name = {workdir.name: workdir for workdir in workdirs}
    configs = {run: load_config(by_name[run]) for run in found.between}
    config = next(iter(configs.values()))
    runs.write(path, task=config.task.name, split=SPLIT.value, names=found.names, patients=found.patients,
               data_range=tuple(config.data.range), units=config.data.domain.units, metrics=found.metrics, cells=cells,
               between=found.between, rows=found.rows, per_sample=found.per_sample,
               curves={run: read_curves(by_name[run]) for run in configs}, shown=shown_of(found.shown),
               configs={run: own.to_json(indent=1) for run, own in configs.items()})


def cells_of(found: Ranking) -> list[list[str]]:
    """The table: a line of heads, then the methods."""
    head, *lines = standing_cells(found.standings, found.metric, next(iter(found.standings)))
    rows = [[*head[:3], "best − row", head[4], *COSTS]]
    for line in lines:
        cost = found.costs.get(line[0])
        rows.append([*line, *(["–"] * 4 if cost is None else [
            f"{cost.parameters:,}", f"{cost.flops / 1e9:.3g}", f"{cost.seconds * 1e3:.3g}", f"{cost.memory / 1e6:.3g}"])])
    return rows


def contents(found: Ranking) -> dict[str, object]:
    """The ranking as JSON."""
    rows = [{"method": row, **standing.numbers,
             **(vars(found.costs[row]) if row in found.costs else {})} for row, standing in found.standings.items()]
    return {"metric": found.metric.name, "unit": found.metric.unit, "patients": found.patients, "methods": rows}


if __name__ == "__main__":
    cli.run_with_words(main)
