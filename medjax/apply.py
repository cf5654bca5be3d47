"""Applies a trained run to files: python -m medjax.apply --workdir=runs/mine --input=SERIES --output=RESULT

What is written follows from the task: images and series in the format that was read, label maps, a table, displacement
fields, reconstructions. Several contrasts: --input=T1:a.nii.gz --input=FLAIR:b.nii.gz --missing=T2. With --uncertainty=flips
a restoration has beside it RESULT_interval, the half-width of the interval that eval.py has calibrated. A reconstruction has
beside it RESULT_check.json, which says how far it is from the measurement; where that is more than noise explains a warning
is printed. With --removed a denoised image has beside it RESULT_removed: what was taken that noise does not explain.
"""

import hashlib
import json
import secrets
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from tqdm import tqdm

from medjax import cli
from medjax.data.results import Table
from medjax.files import write_atomically
from medjax.infer import inputs as reading
from medjax.infer import uncertainty
from medjax.infer.fit import CHECKS, RESCALE
from medjax.infer.inputs import Inputs
from medjax.infer.study import Application
from medjax.types import UserError

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the trained run.", required=True)
INPUT = flags.DEFINE_multi_string("input", None, "A file, a DICOM series in a folder, or a folder of images; NAME:PATH "
                                  "where the task takes several.", required=True)
OUTPUT = flags.DEFINE_string("output", None, "Where the result goes: a file for a file, a folder for a folder.",
                             required=True)
SERIES = flags.DEFINE_string("series", "", "Which series of a folder: a part of its name, or its number.")
MISSING = flags.DEFINE_list("missing", [], "Contrasts that there are not.")
RESCALING = flags.DEFINE_enum("rescale", "none", RESCALE, "How values are mapped to those of training; images come back in "
                              "their own units.")
NAMES = flags.DEFINE_bool("names", False, "Write the studies' own names into the table; otherwise pseudonyms.")
ACCEPT = flags.DEFINE_list("accept", [], f"Differences from the training images to accept: {', '.join(CHECKS)}.")
UNCERTAINTY = uncertainty.flag()
REMOVED = flags.DEFINE_bool("removed", False, "Of denoised images, also write what was taken from them, or added, that "
                            "noise does not explain.")


TABLE, MANIFEST = "results.csv", "apply.json"


def main() -> None:
    """Applies the run to every study, one by one; what is done stays, and the same command does the rest."""
    application = Application.restore(Path(WORKDIR.value), tuple(UNCERTAINTY.value), RESCALING.value, ACCEPT.value,
                                      REMOVED.value)
    task = application.run.task
    paths = reading.parse(INPUT.value, task)
    studies = reading.gather(paths, task, MISSING.value, SERIES.value)
    target, source = Path(OUTPUT.value).expanduser(), next(iter(paths.values()))
    if source.is_file() or (len(studies) == 1 and studies[0].main.place == Path(".")):
        _apply_to_one(application, studies[0], target)
    else:
        _apply_to_all(application, studies, target)


def _apply_to_one(application: Application, inputs: Inputs, target: Path) -> None:
    study = inputs.main
    if target.exists():
        raise UserError(target, "is there already; name a new file or folder")
    if application.run.task.keeps_format and len(study.paths) == 1 and not target.name.lower().endswith(study.form.SUFFIXES):
        raise UserError(target, f"the format is kept; give a name that ends in {study.suffix}")
    print("written: " + ", ".join(map(str, application.write(inputs, target, Table(), replace=False))))


def _apply_to_all(application: Application, studies: Sequence[Inputs], target: Path) -> None:
    done = Done(target, {"checkpoint": application.made_by.identity, "rescale": RESCALING.value,
                         "missing": sorted(MISSING.value), "accept": sorted(ACCEPT.value),
                         **({"uncertainty": UNCERTAINTY.value} if UNCERTAINTY.value else {}),
                         **({"removed": True} if REMOVED.value else {})})
    skipped = 0
    for inputs in tqdm(studies, desc="apply", unit="study", dynamic_ncols=True):
        if inputs.main.id in done:
            continue
        table = Table()
        try:
            application.write(inputs, target / inputs.main.place, table, replace=True)
        except UserError as error:
            skipped += 1
            tqdm.write(f"skipped: {error}", file=sys.stderr)
        else:
            done.add(inputs.main.id, table)
    done.table.write(target / TABLE)
    print(f"{len(studies) - skipped} of {len(studies)} studies written: {target}")
    if skipped:
        raise UserError(target, f"{skipped} of {len(studies)} studies were skipped (see above); the same command tries them "
                        "again")


class Done:
    """Which studies of a folder are done, by what run: kept beside the results, under pseudonyms."""

    def __init__(self, folder: Path, identity: Mapping[str, Any]):
        self._path = folder / MANIFEST
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        found: dict[str, Any] = {"salt": secrets.token_hex(16), "identity": digest, "rows": {}}
        if folder.exists():
            if not self._path.is_file():
                raise UserError(folder, "is there already, and not of this command; name a new folder")
            found = json.loads(self._path.read_text(encoding="utf-8"))
            if found["identity"] != digest:
                raise UserError(folder, "holds results of another run or of other flags; name a new folder")
        folder.mkdir(parents=True, exist_ok=True)
        self._found = found
        self.table = Table(found["rows"])
        self._write()

    def __contains__(self, name: str) -> bool:
        return self._key(name) in self._found["rows"]

    def add(self, name: str, table: Table) -> None:
        """Notes a study as done, with its row of the table."""
        row = table.rows.get(name, {})
        self._found["rows"][self._key(name)] = ({"name": name} if NAMES.value and row else {}) | row
        self._write()

    def _key(self, name: str) -> str:
        return hashlib.sha256(f"{self._found['salt']}:{name}".encode()).hexdigest()[:16]

    def _write(self) -> None:
        write_atomically(self._path, json.dumps(self._found, indent=1))


if __name__ == "__main__":
    cli.run(main, keeps_memory=False)  # what is freed between the steps of a study makes room for the next one
