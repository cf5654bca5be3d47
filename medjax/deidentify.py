"""Removes from images what identifies patients: python -m medjax.deidentify --input=SCANS --output=RELEASE --key=KEYFILE

DICOM by the Basic Application Level Confidentiality Profile of PS3.15; NIfTI, NRRD, MetaImage and the sidecars of BIDS
without their texts. Replacements follow from the key, which is made where there is none: runs with one key agree. It is no
guarantee of anonymity: read the warnings, and look at the images.
"""

import csv
import io
import json
import os
import shlex
import sys
from collections import Counter
from pathlib import Path

import numpy as np
from absl import flags
from tqdm import tqdm

import medjax.data.io
from medjax import cli
from medjax.classical.affine import Grid
from medjax.classical.head import find_head
from medjax.data import face
from medjax.data.deidentify import Deidentifier, Done
from medjax.data.formats._dicom_blank import Blank, Box
from medjax.data.formats._dicom_profile import EDITION, Options, listed
from medjax.data.formats._removal import Removal
from medjax.data.head import templates
from medjax.data.key import Key
from medjax.files import move, staging, write_atomically
from medjax.report.table import aligned
from medjax.types import UserError

INPUT = flags.DEFINE_string("input", None, "A file, or a folder with all that is below it.", required=True)
OUTPUT = flags.DEFINE_string("output", None, "A new folder for the results.", required=True)
KEY = flags.DEFINE_string("key", None, "The file of the secret key, which is made where there is none; keep it apart from "
                          "the results.", required=True)
DATES = flags.DEFINE_bool("retain_dates", False, "Keep dates, all of a patient moved by one number of days; otherwise none.")
PATIENT = flags.DEFINE_bool("retain_patient", False, "Keep sex, age (above 89 years as 90), size and weight.")
DEVICE = flags.DEFINE_bool("retain_device", False, "Keep model, serial number, station and software of the device.")
DESCRIPTIONS = flags.DEFINE_bool("clean_descriptions", False, "Keep words of descriptions that are known terms; otherwise "
                                  "none.")
BLANK = flags.DEFINE_multi_string("blank", [], "X,Y,WIDTH,HEIGHT in pixels from the upper left: a box that becomes zero in "
                                  "every DICOM image; several times for several.")
OUTSIDE = flags.DEFINE_bool("blank_outside_regions", False, "Zero in ultrasound what lies outside of the regions that the "
                            "file names.")
DEFACE = flags.DEFINE_bool("deface", False, "Remove faces from volumes of heads (CT, MR); what none can be found in is left "
                           "out.")
TABLE = flags.DEFINE_string("table", "", "A file for the table from original to new identifiers, outside of the output; "
                            "otherwise there is none.")
LOG = "deidentify"
LISTED = 20  # warnings and files that are printed


def main() -> None:
    """De-identifies all files into a new folder, which appears when it is whole."""
    source, target, table = (Path(flag.value).expanduser() for flag in (INPUT, OUTPUT, TABLE))
    _check_paths(source, target, Path(KEY.value).expanduser(), table if TABLE.value else None)
    options = Options(DATES.value, PATIENT.value, DEVICE.value, DESCRIPTIONS.value, DEFACE.value)
    blank = Blank(tuple(map(_box, BLANK.value)), OUTSIDE.value)
    listed()
    key = Key.of(Path(KEY.value).expanduser())
    files = medjax.data.io.files_below(source) if source.is_dir() else [source]
    names: dict[Path, list[str]] = {}
    for file in files:
        names.setdefault(file.parent, []).append(file.name)
    with staging(target.parent) as folder:
        place = folder / "whole"
        place.mkdir()
        faces, sound = _faces(source, len(files)) if DEFACE.value else (None, ())
        work = Deidentifier(source if source.is_dir() else source.parent, place, key, options, blank, faces, sound)
        for file in tqdm(files, "de-identify", unit="file", dynamic_ncols=True):
            work.add(file, names[file.parent])
        _say_left_out(work.done)
        if not work.done.rows:
            raise UserError(source, "holds no file that can be de-identified")
        _write_log(place, work.done, options, blank)
        if TABLE.value:
            _write_table(table, work.done)
        move(place, target)
    _say(target, work.done)


def _faces(source: Path, files: int) -> tuple[dict[Path, Removal | UserError], set[Path]]:
    """What is removed of each image file, or why nothing can be, and the files that show nothing of a face."""
    known = [Grid(*template) for template in templates()]

    def locate(volume: np.ndarray, affine: np.ndarray) -> np.ndarray:
        return find_head(known, volume, affine)

    found: dict[Path, Removal | UserError] = {}
    sound: set[Path] = set()
    with tqdm(total=files, desc="find faces", unit="file", dynamic_ncols=True) as bar:
        for study, removal, tissue in face.removals(source, locate):
            found |= dict.fromkeys(study.paths, removal)
            sound |= set(study.paths) if not tissue else set()
            bar.update(len(study.paths))
    return found, sound


def _check_paths(source: Path, target: Path, key: Path, table: Path | None) -> None:
    if not source.exists():
        raise UserError(source, "no such file or folder")
    if target.exists():
        raise UserError(target, "is there already; name a new folder")
    if source.is_dir() and target.resolve().is_relative_to(source.resolve()):
        raise UserError(target, "lies inside the input; name a folder outside of it")
    for flag, path in (("--key", key), ("--table", table)):
        if path is not None and path.resolve().is_relative_to(target.resolve()):
            raise UserError(flag, f"{path} lies inside the output; keep it apart from what is given away")
    if table is not None and table.exists():
        raise UserError(table, "is there already; name a new file")


def _box(text: str) -> Box:
    parts = text.split(",")
    if len(parts) != 4 or not all(part.strip().isdecimal() for part in parts) or not all(map(int, parts[2:])):
        raise UserError("--blank", f"{text!r} is no box; give X,Y,WIDTH,HEIGHT in whole pixels, as in 0,0,200,40")
    x, y, width, height = map(int, parts)
    return x, y, width, height


def _say_left_out(done: Done) -> None:
    for problem in done.left_out[:LISTED]:
        print(problem if "left out" in str(problem) else f"left out: {problem}", file=sys.stderr)
    if len(done.left_out) > LISTED:
        print(f"left out: {len(done.left_out) - LISTED} more", file=sys.stderr)


def _write_log(folder: Path, done: Done, options: Options, blank: Blank) -> None:
    """The log as CSV, a file a line, and as JSON: no path or value of the input is in it."""
    columns = list(dict.fromkeys(name for row in done.rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval=0)
    writer.writeheader()
    writer.writerows(done.rows)
    write_atomically(folder / f"{LOG}.csv", text.getvalue())
    write_atomically(folder / f"{LOG}.json", json.dumps({
        "profile": f"DICOM PS3.15 {EDITION} Annex E", "options": dict(options.codes), "blank": blank.boxes,
        "blank_outside_regions": blank.outside, "deface": DEFACE.value, "patients": len(done.patients),
        "series": len(done.series), "left_out": len(done.left_out), "counts": done.counts, "files": done.rows}, indent=1))


def _write_table(path: Path, done: Done) -> None:
    """The table of identifiers, readable for its owner alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", newline="", encoding="utf-8",
                   errors="backslashreplace") as file:
        csv.writer(file).writerows([("kind", "original", "replacement"), *(
            (*original, new) for original, new in done.originals.items())])


def _say(target: Path, done: Done) -> None:
    kinds = Counter(str(row["kind"]) for row in done.rows)
    cells = [["", "count"], *([f"{kind} files", str(count)] for kind, count in sorted(kinds.items()))]
    if done.series:
        cells += [["DICOM patients", str(len(done.patients))], ["DICOM series", str(len(done.series))]]
    cells += [[f"attributes: {name}", str(count)] for name, count in done.counts.items()]
    faces = Counter(str(row["face"]) for row in done.rows if "face" in row)
    cells += [[f"files with faces {said}", str(count)] for said, count in sorted(faces.items())]
    warned = [row for row in done.rows if row["warnings"]]
    cells += [["files left out", str(len(done.left_out))], ["files with warnings", str(len(warned))]]
    print(aligned(cells))
    for row in warned[:LISTED]:
        print(f"look at: {row['file']}: {row['warnings']}")
    if len(warned) > LISTED:
        print(f"look at: {len(warned) - LISTED} more, in {target / LOG}.csv")
    print(f"written: {target}" + (f", {TABLE.value}" if TABLE.value else ""))
    print("this is no guarantee of anonymity: images may show faces and text; look at them" if not DEFACE.value else
          "this is no guarantee of anonymity: look at the images, whether faces are gone, and for text")
    print("next:\n" + _next_command(target, bool(warned)))


def _next_command(target: Path, warned: bool) -> str:
    """With warnings that which blanks a box, otherwise that which trains on the result."""
    if not warned:
        return f"python train.py --config=configs/quickstart.py --config.data.path={shlex.quote(str(target))}"
    paths = {"input": INPUT.value, "output": f"{target}_blanked", "key": KEY.value}
    return " ".join(["python -m medjax.deidentify", *(f"--{flag}={shlex.quote(path)}" for flag, path in paths.items()),
                     "--blank=X,Y,WIDTH,HEIGHT"])


if __name__ == "__main__":
    cli.run(main, keeps_memory=False)
