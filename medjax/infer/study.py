"""A trained run on a study: from its files to the files of its results."""

from collections.abc import Collection
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from medjax.data.normalise import Units, normalised
from medjax.data.results import StudyDestination, Table, stem
from medjax.files import move, staging
from medjax.infer import inputs as reading
from medjax.infer import uncertainty
from medjax.infer.fit import CHECKS, fitted
from medjax.infer.inputs import Inputs
from medjax.infer.predict import Predict, derivation, make_predict
from medjax.infer.progress import Progress
from medjax.train.run import Run
from medjax.types import Derivation, Output, Record, UserError, check_choice


@dataclass(frozen=True)
class Application:
    """A trained run with the settings that it is applied with; `made_by` goes into the headers of results.

    `rescale` and `accept` are said at `medjax.infer.fit.fitted`. `progress` is told of the records of a study, their slices
    and tiles.
    """

    run: Run
    predict: Predict
    made_by: Derivation
    rescale: str = "none"
    accept: Collection[str] = ()
    progress: Progress = field(default_factory=Progress)

    @classmethod
    def restore(cls, workdir: Path, asked: uncertainty.Asked = (), rescale: str = "none",
                accept: Collection[str] = ()) -> "Application":
        """The run in `workdir` with its best checkpoint and the uncertainty that is `asked` for. Raises UserError."""
        run, state = uncertainty.restore(workdir, asked)
        for name in accept:
            check_choice("--accept", name, CHECKS)
        progress = Progress()
        predict = make_predict(run, state, progress)
        if asked:
            predict = uncertainty.with_intervals(predict, run, state, workdir, asked)
        return cls(run, predict, derivation(run, state), rescale, accept, progress)

    def write(self, inputs: Inputs, target: Path, table: Table, replace: bool) -> list[Path]:
        """Writes all outputs of a study, or none; returns their paths. Raises UserError.

        With `replace` the rows are left in the table, and files of that name are replaced; else they are a file beside.
        """
        outputs, to_source = self._outputs(inputs)
        with staging(target.parent) as folder:
            destination = StudyDestination(inputs.main, folder / target.name, table, to_source, self.made_by)
            for output in outputs:
                output.write(destination)
            if table.rows and not replace:
                table.write(folder / (stem(target, inputs.main) + ".csv"))
            made = sorted(folder.iterdir())
            taken = [target.with_name(path.name) for path in made if target.with_name(path.name).exists()]
            if taken and not replace:
                raise UserError(taken[0], "is there already; name a new file or folder")
            return [move(path, target.with_name(path.name)) for path in made]

    def _outputs(self, inputs: Inputs) -> tuple[list[Output], dict[str, Units]]:
        """What is to be written of a study, and the way back to the units of each record. The records are let go of."""
        run = self.run
        records: list[Record] = []
        to_source: dict[str, Units] = {}
        for record in _arranged(run, reading.read(inputs, run.config, run.task)):
            normal, to_units = normalised(record, run.config.data.normalise)
            fitting, back = fitted(run.config, normal, self.rescale, self.accept)
            records.append(fitting)
            to_source[record.id] = partial(_back, to_units, back)
        bar = tqdm(self.progress.parts(records), "images", len(records), unit="image", leave=False,
                   disable=len(records) < 2, dynamic_ncols=True)
        return run.task.outputs([self.predict(record) for record in bar], records), to_source


def _arranged(run: Run, records: list[Record]) -> list[Record]:
    """The records as the task takes them. Raises UserError where each has a scale of its own and the task divides them."""
    found, how = run.task.arrange(records), run.config.data.normalise
    if how != "none" and [record.id for record in found] != [record.id for record in records]:
        raise UserError("config.data.normalise", f"{how}, but {run.config.task.name} divides a study otherwise than its "
                        "files do, so results can't go back to their units; train with none")
    return found


def _back(to_units: Units, to_values: Units, image: np.ndarray) -> np.ndarray:
    """An image in the run's units in those of its file."""
    return to_units(to_values(image))
