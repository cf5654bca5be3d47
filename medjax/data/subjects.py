"""Whose image a file is: from a table, from its place, from what it says, from its name."""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medjax.types import UserError

BIDS_SUBJECT = re.compile(r"(?:^|[/_])(sub-[A-Za-z0-9]+)")
COLUMNS = ("filename", "patientid")
INDEX = "index.csv"


def text(name: str | Path) -> str:
    """A name that can be written everywhere: bytes of a file name that are no UTF-8 stand there as "\\udcfc"."""
    return str(name).encode("utf-8", "backslashreplace").decode()


def write_index(folder: Path, pattern: str) -> None:
    """Writes `index.csv` with the subject of every file in `folder` whose name fits: the first group of `pattern`."""
    rows = [(path.name, found[1]) for path in sorted(folder.iterdir()) if (found := re.match(pattern, path.name))]
    with (folder / INDEX).open("x", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *rows])


class Subjects:
    """The subject of each study, in the order of `medjax.data.io`.

    A row of the table `given` names a file, or the folder of a series, by its name or by as many folders above as make it
    unique ("p1/T1.nii.gz"). Raises UserError for a study without a row, and for a row that more than one study has.
    """

    def __init__(self, given: Path | None):
        self._given = None if given is None else _Table.read(given)
        self._taken: dict[str, Path] = {}
        self._beside: dict[Path, _Table] = {}

    def of(self, paths: Sequence[Path], owner: str, fallback: str) -> str:
        """The subject of the study in `paths`; `owner` is who its files name, `fallback` the name of the study."""
        if self._given is not None:
            return text(self._from_table(self._given, paths))
        bids = BIDS_SUBJECT.findall(paths[0].absolute().as_posix())[-1:]  # the name it has here, wherever a link leads
        return text(next(name for name in (*bids, owner, self._from_index(paths), fallback) if name))

    def _from_table(self, table: "_Table", paths: Sequence[Path]) -> str:
        row, path = table.find(paths)
        if row is None:
            raise UserError(table.path, f"has no row for {text(paths[0].name)}; give every image a filename and patientid")
        other = self._taken.setdefault(row, path)
        if other != path:
            raise UserError(table.path, f"its row {row} fits {text(other)} and {text(path)}; name the folders too, as in "
                            f"{text('/'.join(path.parts[-2:]))}")
        return table.rows[row]

    def _from_index(self, paths: Sequence[Path]) -> str:
        folder = paths[0].parent
        if folder not in self._beside:
            there = [place / INDEX for place in (folder, folder.parent) if (place / INDEX).is_file()]
            self._beside[folder] = _Table.read(there[0], optional=True) if there else _Table(folder / INDEX)
        row, _ = self._beside[folder].find(paths)
        return "" if row is None else self._beside[folder].rows[row]


@dataclass(frozen=True)
class _Table:
    """The patients in a CSV file by "folder/name", with as many folders as its rows have."""

    path: Path
    rows: dict[str, str] = field(default_factory=dict)
    depth: int = 0

    @classmethod
    def read(cls, path: Path, optional: bool = False) -> "_Table":
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                lines = list(csv.DictReader(file))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise UserError(path, f"can't be read as a CSV table: {error}") from error
        if not lines or not set(COLUMNS) <= set(lines[0]):
            if optional:
                return cls(path)
            raise UserError(path, f"needs the columns {' and '.join(COLUMNS)}")
        rows: dict[str, str] = {}
        for line in lines:
            name, patient = (line[column] or "" for column in COLUMNS)
            row = "/".join(part for part in Path(name).parts if part not in ("/", "."))
            if row and patient and rows.setdefault(row, patient) != patient:
                raise UserError(path, f"has rows of different patients for {row}; name the folders too, as in p1/{row}")
        return cls(path, rows, max((row.count("/") + 1 for row in rows), default=0))

    def find(self, paths: Sequence[Path]) -> tuple[str | None, Path]:
        """The row with the most folders that fits one of the files, or the folder of several, and which of them it is."""
        for path in [*paths, paths[0].parent] if len(paths) > 1 else paths:
            parts = path.absolute().parts[1:]
            for start in range(max(0, len(parts) - self.depth), len(parts)):
                row = "/".join(parts[start:])
                if row in self.rows:
                    return row, path.absolute()
        return None, paths[0]
