"""Files to records: finds the studies under a file or folder, says whose they are, reads them one by one.

NIfTI (`.nii`, `.nii.gz`), DICOM (a series in a folder, single and multi-frame files, with or without a suffix), PNG and
JPEG, `.npy`. The subject of a study, which a split never divides, is the first of these that there is:

1. what a table given by the user says (CSV with the columns `filename` and `patientid`),
2. a BIDS label `sub-XX` in the path,
3. the PatientID of a DICOM file,
4. what an `index.csv` in the image's folder or the one above says (same columns),
5. the name of the file or series.
"""

import csv
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from absl import logging

from medjax.data.formats import array, dicom, nifti, picture
from medjax.types import Record, UserError

FORMATS: dict[str, ModuleType] = {"nifti": nifti, "dicom": dicom, "picture": picture, "array": array}
BIDS_SUBJECT = re.compile(r"(?:^|[/_])(sub-[A-Za-z0-9]+)")


@dataclass(frozen=True)
class Study:
    """One image, volume or series that lies in files and has not been read yet.

    `format` is a key of `FORMATS`; `id` its name below the folder that was searched, without a suffix; `place` the
    path below that folder (of a series: its folder), where a result of the same name belongs.
    """

    paths: tuple[Path, ...]
    format: str
    id: str
    subject: str
    place: Path

    def read(self) -> list[Record]:
        """Its records: one, or one per frame (4-D NIfTI, cine). Raises UserError, naming the file."""
        records = FORMATS[self.format].read(self.paths, self.id, self.subject)
        for record in records:
            if record.image.min() == record.image.max():
                logging.warning("%s: has the value %s everywhere", self.paths[0], record.image.flat[0])
        return records


def read(path: str | Path) -> list[Record]:
    """The records of a file, of a DICOM series in a folder, or of every image below a folder. Raises UserError."""
    return [record for study in discover(path) for record in study.read()]


def discover(path: str | Path, subjects: str | Path = "") -> list[Study]:
    """The studies in a file or below a folder, in the order of their names; nothing but DICOM headers is read.

    `subjects` is a CSV table with the columns `filename` and `patientid`. Files with other suffixes are passed over in
    a folder. Raises UserError where there is nothing to read.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise UserError(path, "no such file or folder")
    table = _Subjects(Path(subjects) if subjects else None)
    files = [path] if path.is_file() else _files(path)
    root = path if path.is_dir() else path.parent
    kinds = {file: _format(file) for file in files}
    if path.is_file() and kinds[path] == "":
        raise UserError(path, f"no reader for this kind of file; give {_suffixes()} or DICOM")
    studies = [Study((file,), kind, _stem(file.relative_to(root)), table.of(file), file.relative_to(root))
               for file, kind in kinds.items() if kind not in ("", "dicom")]
    studies += _series([file for file, kind in kinds.items() if kind == "dicom"], root, table)
    if not studies:
        raise UserError(path, f"no images below this folder; give {_suffixes()} or DICOM files")
    return sorted(studies, key=lambda study: study.id)


class _Subjects:
    """Whose image a file is."""

    def __init__(self, given: Path | None):
        self._given = None if given is None else _table(given)
        self._where = given
        self._beside: dict[Path, Mapping[str, str]] = {}

    def of(self, file: Path, patient: str = "", fallback: str = "") -> str:
        if self._given is not None:
            if file.name not in self._given:
                raise UserError(self._where, f"has no row for {file.name}; give every image a filename and patientid")
            return self._given[file.name]
        bids = BIDS_SUBJECT.findall(file.resolve().as_posix())[-1:]
        found = [*bids, patient, self._index(file.parent).get(file.name, ""), fallback, _stem(Path(file.name))]
        return next(name for name in found if name)

    def _index(self, folder: Path) -> Mapping[str, str]:
        if folder not in self._beside:
            tables = [f / "index.csv" for f in (folder, folder.parent) if (f / "index.csv").is_file()]
            self._beside[folder] = _table(tables[0], optional=True) if tables else {}
        return self._beside[folder]


def _table(path: Path, optional: bool = False) -> dict[str, str]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(path, f"can't be read as a CSV table: {error}") from error
    if rows and {"filename", "patientid"} <= set(rows[0]):
        return {Path(row["filename"]).name: row["patientid"] for row in rows if row["patientid"]}
    if optional:
        return {}
    raise UserError(path, "needs the columns filename and patientid")


def _series(files: Sequence[Path], root: Path, subjects: _Subjects) -> list[Study]:
    """DICOM files as studies: the slices of a series together, multi-frame files and single images by themselves."""
    groups = dicom.group(files) if files else []
    per_folder = Counter(group[0].parent for group, _ in groups)
    studies = []
    for group, patient in groups:
        place = group[0].relative_to(root)
        if len(group) > 1:
            place = place.parent if per_folder[group[0].parent] == 1 else place.with_suffix("")
        name = _stem(place) if place != Path(".") else root.name
        studies.append(Study(group, "dicom", name, subjects.of(group[0], patient, name), place))
    return studies


def _files(folder: Path) -> list[Path]:
    """Every file below a folder, hidden ones left out, in order."""
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(parent, name) for name in sorted(names) if not name.startswith(".")]
    return found


def _format(file: Path) -> str:
    """The key of `FORMATS` that reads a file, "" for none: by its suffix, or by the DICOM marker inside."""
    name = file.name.lower()
    for format_, module in FORMATS.items():
        if name.endswith(tuple(suffix for suffix in module.SUFFIXES if suffix)):
            return format_
    return "dicom" if dicom.accepts(file) else ""


def _stem(path: Path) -> str:
    """A path without the suffix of a format."""
    name = path.as_posix()
    suffixes = sorted((s for m in FORMATS.values() for s in m.SUFFIXES), key=len, reverse=True)
    cut = next((s for s in suffixes if name.lower().endswith(s)), "")
    return name[:len(name) - len(cut)]


def _suffixes() -> str:
    return ", ".join(s for m in FORMATS.values() if m is not dicom for s in m.SUFFIXES)
