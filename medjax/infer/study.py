"""A trained run on a study: from its files to the files of its results."""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from medjax.data.results import StudyDestination, Table, stem
from medjax.files import move, staging
from medjax.infer import inputs as reading
from medjax.infer import uncertainty
from medjax.infer.consistency import Check, Limits, limits_of, warn, with_residuals
from medjax.infer.fit import CHECKS
from medjax.infer.inputs import Inputs
from medjax.infer.predict import Predict, derivation, make_predict
from medjax.infer.progress import Progress
from medjax.infer.removed import RemovedOutput, with_removed
from medjax.train.run import Run
from medjax.types import Derivation, Output, Units, UserError, check_choice


@dataclass(frozen=True)
class Application:
    """A trained run with the settings that it is applied with; `made_by` goes into the headers of results.

    `rescale` and `accept` are said at `medjax.infer.fit.fitted`. With `removed` what a denoiser took away beyond noise is
    written, too. Above `limits` a reconstruction is warned of. `progress` is told of the records of a study, their slices
    and tiles.
    """

    run: Run
    predict: Predict
    made_by: Derivation
    rescale: str = "none"
    accept: Collection[str] = ()
    removed: bool = False
    limits: Limits | None = None
    progress: Progress = field(default_factory=Progress)

    @classmethod
    def restore(cls, workdir: Path, asked: uncertainty.Asked = (), rescale: str = "none",
                accept: Collection[str] = (), removed: bool = False) -> "Application":
        """The run in `workdir` with its best checkpoint and the uncertainty that is `asked` for. Raises UserError."""
        run, state = uncertainty.restore(workdir, asked)
        for name in accept:
            check_choice("--accept", name, CHECKS)
        progress = Progress()
        predict = make_predict(run, state, progress)
        if asked:
            predict = uncertainty.with_intervals(predict, run, state, workdir, asked)
        limits = limits_of(run.task, workdir)
        if limits is not None:
            predict = with_residuals(predict, run)
        if removed:
            predict = with_removed(predict, run)
        return cls(run, predict, derivation(run, state), rescale, accept, removed, limits, progress)

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
        records, to_source = reading.prepared(run, inputs, self.rescale, self.accept)
        bar = tqdm(self.progress.parts(records), "images", len(records), unit="image", leave=False,
                   disable=len(records) < 2, dynamic_ncols=True)
        predictions = [self.predict(record) for record in bar]
        checks: list[Output] = [RemovedOutput(predictions)] if self.removed else []
        if self.limits is not None and (check := Check.of(predictions, self.limits)) is not None:
            warn(check, inputs.main.id)
            checks.append(check)
        return [*run.task.outputs(predictions, records), *checks], to_source
