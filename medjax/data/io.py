"""Files to records: finds the studies under a file or folder, says whose they are, reads them one by one.

The formats are the modules of `medjax/data/formats` (see `medjax.types.Format`). The subject of a study, which a split
never divides, is the first of these that there is:

1. what a table given by the user says (CSV with the columns `filename` and `patientid`, see `medjax.data.subjects`),
2. a BIDS label `sub-XX` in the path,
3. what the file itself says (the PatientID of DICOM),
4. what an `index.csv` in the image's folder or the one above says (same columns),
5. the name of the file or series.
"""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import NamedTuple, cast

from absl import logging

from medjax import registry
from medjax.data.subjects import Subjects, text
from medjax.types import Format, Record, SeriesFormat, UserError

LISTED = 12  # names in a message
KINDS = {"image": "an image", "kspace": "complex k-space", "sinogram": "a sinogram"}
CONTRACT = ("SUFFIXES", "KIND", "accepts", "group", "read")


class Group(NamedTuple):
    """The files of a study, their format, who they say it is of, and what they call its series."""

    format: str
    paths: tuple[Path, ...]
    owner: str
    series: str


@dataclass(frozen=True)
class Study:
    """One image, volume or series that lies in files and has not been read yet.

    `format` is a key of `formats()`; `id` its name below the folder that was searched, without a suffix; `place` the
    path below that folder (of a series: its folder), where a result of the same name belongs; `series` what the files
    call the series, "" where they don't.
    """

    paths: tuple[Path, ...]
    format: str
    id: str
    subject: str
    place: Path
    series: str = ""

    @property
    def form(self) -> Format:
        """The module of its format."""
        return formats()[self.format]

    @property
    def suffix(self) -> str:
        """What the name of its file ends in (".nii.gz"), "" where its format has names without a suffix."""
        name = self.paths[0].name
        return name[len(_bare(name, self.format)):]

    def read(self) -> list[Record]:
        """Its records: one, or one per frame (4-D NIfTI, cine, video). Raises UserError, naming the file."""
        records = [replace(record, series=self.series) for record in self.form.read(self.paths, self.id, self.subject)]
        for record in records:
            if record.image.min() == record.image.max():
                logging.warning("%s: has the value %s everywhere", self.paths[0], record.image.flat[0])
        return records


@cache
def formats() -> dict[str, Format]:
    """The file formats by the names of their modules."""
    found = {}
    for key, module in registry.loaded("data.formats").items():
        lacking = [name for name in CONTRACT if not hasattr(module, name)]
        if lacking:
            raise UserError(module.__name__, f"is no file format: it has no {', '.join(lacking)}")
        found[key] = cast(Format, module)
    return found


def read(path: str | Path, kind: str = "image") -> list[Record]:
    """The records of a file, of a DICOM series in a folder, or of every study of `kind` below a folder. Raises UserError."""
    return [record for study in discover(path, kind=kind) for record in study.read()]


def discover(path: str | Path, subjects: str | Path = "", kind: str = "image", series: str = "") -> list[Study]:
    """The studies of `kind` "image", "kspace" or "sinogram" in a file or below a folder, in the order of their names.

    `subjects` is a CSV table with the columns `filename` and `patientid`; `series` takes those studies alone that have it
    in the name of their series, or as its number, or, where their format knows no series, in the name of their file. In a
    folder, files of other formats and kinds are passed over; no pixels are read. Raises UserError where there is nothing to
    read.
    """
    path = Path(path).expanduser()
    kinds = {module.KIND for module in formats().values()}
    if kind not in kinds:
        raise UserError("kind", f"unknown {kind!r}; choose from {', '.join(sorted(kinds))}")
    if not path.exists():
        raise UserError(path, "no such file or folder")
    table = Subjects(Path(subjects) if subjects else None)
    by_format: dict[str, list[Path]] = {}
    for file in files_below(path) if path.is_dir() else [path]:
        by_format.setdefault(_format(file), []).append(file)
    if not path.is_dir():
        by_format = {_checked(path, next(iter(by_format)), kind): [path]}
    groups = _groups(by_format, kind, series)
    if series and not groups:
        there = dict.fromkeys(_series_of(group) for group in _groups(by_format, kind, ""))
        raise UserError(path, f"no series has {series!r} in its name, or as its number; there is {_first(there)}")
    if not groups and path.is_dir():
        raise UserError(path, f"no {kind}s below this folder; give {_suffixes(kind)}")
    if not groups:  # its reader says what is wrong with it
        groups = [Group(next(iter(by_format)), (path,), "", "")]
    return sorted(_studies(groups, path if path.is_dir() else path.parent, table), key=lambda study: study.id)


def _groups(by_format: Mapping[str, Sequence[Path]], kind: str, series: str) -> list[Group]:
    """The files of `kind`, put together to studies, those of one series where it is given."""
    found = []
    for name, files in by_format.items():
        form = formats().get(name)
        if form is None or kind != form.KIND:
            continue
        if isinstance(form, SeriesFormat):
            found += [Group(name, *group) for group in form.group_series(files, series)]
        else:
            groups = [Group(name, *group, "") for group in form.group(files)]
            found += [group for group in groups if series.casefold() in _series_of(group).casefold()]
    return found


def _series_of(group: Group) -> str:
    """What a series is chosen by and listed as: its name, or that of the file."""
    return text(group.series or _bare(group.paths[0].name, group.format))


def _first(names: Iterable[str]) -> str:
    """The first of several names, and how many more there are."""
    several = list(names)
    more = f" and {len(several) - LISTED} more" if len(several) > LISTED else ""
    return (", ".join(several[:LISTED]) or "none") + more


def _studies(groups: Sequence[Group], root: Path, table: Subjects) -> list[Study]:
    """The groups of files with their names, which are unique, and their subjects."""
    places = _places(groups, root)
    whole = Path(os.path.normpath(root.absolute())).name
    names = [text(place.with_name(_bare(place.name, group.format)) if place.name else whole)
             for group, place in zip(groups, places, strict=True)]
    often = Counter(names)
    studies = []
    for (format_, paths, owner, series), place, name in zip(groups, places, names, strict=True):
        alone = place == paths[0].relative_to(root)
        subject = table.of(paths, owner, Path(name).name if alone else name)
        studies.append(Study(paths, format_, text(place) if often[name] > 1 else name, subject, place, series))
    _warn_of_one_name(studies)
    return studies


def _places(groups: Sequence[Group], root: Path) -> list[Path]:
    """Where the result of each group belongs below `root`: a file's own place, a series' folder where that is its alone."""
    first = [group.paths[0].relative_to(root) for group in groups]
    around = Counter(folder for place in first for folder in place.parents)
    places = []
    for (format_, paths, _, _), place in zip(groups, first, strict=True):
        files = {_bare(path.name, format_) for path in paths if _suffix(path.name, format_) is not None}
        if len(files) > 1:
            place = place.parent if around[place.parent] == 1 else place.with_name(_bare(place.name, format_))
        places.append(place)
    often = Counter(places)
    return [file if often[place] > 1 else place for file, place in zip(first, places, strict=True)]


def _warn_of_one_name(studies: Sequence[Study]) -> None:
    """Says where files of several folders count as one subject for their name alone."""
    alike: dict[str, set[Path]] = {}
    for study in studies:
        if study.subject == Path(study.id).name:
            alike.setdefault(study.subject, set()).add(study.paths[0].parent)
    name, folders = max(alike.items(), key=lambda item: len(item[1]), default=("", set()))
    if len(folders) > 1:
        logging.warning("%d folders have a %s, which counts as one subject; give a table of subjects if the folders are "
                        "patients", len(folders), name)


def files_below(folder: Path) -> list[Path]:
    """Every file below a folder in order, hidden ones left out. Links to folders are followed, each folder comes once."""
    def skip(error: OSError) -> None:
        logging.warning("%s: passed over, it can't be read: %s", error.filename, error.strerror)

    found, seen, waiting = [], set(), [folder]
    for start in waiting:  # folders before the links to them, so that a folder has its own name where it has one
        for parent, folders, names in os.walk(start, onerror=skip):
            stat = os.stat(parent)
            if (stat.st_dev, stat.st_ino) in seen:
                folders.clear()
                continue
            seen.add((stat.st_dev, stat.st_ino))
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            waiting += [Path(parent, name) for name in folders if Path(parent, name).is_symlink()]
            found += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(found)


@cache
def _by_suffix() -> list[tuple[str, str]]:
    """Suffixes and their formats in the order that a file is offered to them: the longest first, images last."""
    pairs = [(suffix, name) for name, module in formats().items() for suffix in module.SUFFIXES]
    return sorted(pairs, key=lambda pair: (-len(pair[0]), formats()[pair[1]].KIND == "image", pair[1]))


def _format(file: Path) -> str:
    """The name of the format that reads a file, "" for none."""
    name = file.name.lower()
    possible = dict.fromkeys(format_ for suffix, format_ in _by_suffix() if name.endswith(suffix))
    try:
        return next((format_ for format_ in possible if formats()[format_].accepts(file)), "")
    except OSError as error:
        raise UserError(file, f"can't be read: {error.strerror or error}") from error


def _checked(path: Path, format_: str, kind: str) -> str:
    """The format to read a single file of `kind` with. Raises UserError where none is, or the file holds another kind.

    A file that has the name of a format but not its contents is left to that format's reader, which says what is wrong.
    """
    name = path.name.lower()
    named = [other for suffix, other in _by_suffix() if suffix and name.endswith(suffix) and kind == formats()[other].KIND]
    if not format_ and not named:
        raise UserError(path, f"no reader for this kind of file; give {_suffixes(kind)}")
    found = formats()[format_ or named[0]].KIND
    if found != kind:
        raise UserError(path, f"holds {KINDS.get(found, found)} ({format_}); give {KINDS.get(kind, kind)}")
    return format_ or named[0]


def _suffix(name: str, format_: str) -> str | None:
    """What a file's name ends in of the suffixes of a format, the longest; None where it has none of them."""
    return max((s for s in formats()[format_].SUFFIXES if name.lower().endswith(s)), key=len, default=None)


def _bare(name: str, format_: str) -> str:
    """A file's name without the suffix of its format."""
    return name[:len(name) - len(_suffix(name, format_) or "")] or name


def _suffixes(kind: str) -> str:
    known = [suffix for module in formats().values() if kind == module.KIND for suffix in module.SUFFIXES if suffix]
    return ", ".join(dict.fromkeys(known)) or "another kind"
