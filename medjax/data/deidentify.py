"""Files without what identifies a patient, below a new folder and under names that follow from a key.

DICOM goes to `<patient>/<study>/<series>/<instance>.dcm`; other files keep their folders, each name replaced.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from medjax.data import sidecars
from medjax.data.formats import dicom, metaimage, nifti, nrrd
from medjax.data.formats._dicom_blank import NO_BLANK, Blank
from medjax.data.formats._dicom_deidentify import deidentified
from medjax.data.formats._dicom_profile import Options
from medjax.data.formats._dicom_save import save
from medjax.data.formats._removal import Removal
from medjax.data.key import Key
from medjax.types import UserError

VOLUMES: dict[str, Callable[[Path, Path, Removal | None], None]] = {
    suffix: write for suffixes, write in ((nifti.SUFFIXES, nifti.write_bare), (nrrd.SUFFIXES, nrrd.write_bare),
                                          (metaimage.SUFFIXES, metaimage.write_bare)) for suffix in suffixes}
BASIC = Options()
HEADERS = (".nhdr", ".mhd")
VALUES = (".raw", ".zraw", ".gz")  # files of values beside these headers
BIDS_FOLDERS = {"anat", "func", "dwi", "fmap", "perf", "pet"}
BIDS_SUFFIXES = {"T1w", "T2w", "PDw", "T2starw", "FLAIR", "inplaneT1", "inplaneT2", "T1map", "T2map", "angio", "bold",
                 "sbref", "dwi", "asl", "m0scan", "epi", "phasediff", "magnitude1", "magnitude2", "phase1", "phase2",
                 "fieldmap", "pet", "dseg", "mask", "label"}
BIDS_KEYS = {"sub", "ses", "task", "acq", "ce", "trc", "rec", "dir", "run", "mod", "echo", "flip", "inv", "mt", "part",
             "space", "desc", "label", "res", "den", "hemi", "recording"}
NUMBERED = {"run", "echo", "inv", "flip"}


@dataclass
class Done:
    """What was done: `rows` of the log, with paths below the output; `originals`, of which the log has none."""

    rows: list[dict[str, str | int]] = field(default_factory=list)
    left_out: list[UserError] = field(default_factory=list)
    originals: dict[tuple[str, str], str] = field(default_factory=dict)
    series: set[Path] = field(default_factory=set)
    patients: set[str] = field(default_factory=set)

    @property
    def counts(self) -> Counter[str]:
        """Sums of the counts of all files."""
        return Counter({name: sum(int(row.get(name, 0)) for row in self.rows) for row in self.rows for name in row
                        if isinstance(row[name], int)})


@dataclass
class Deidentifier:
    """Writes files of the folder `source` below `target`.

    Where there are `faces`, only files are written that it has: with what is removed of them, or the reason why they are
    left out. `sound` are those in which there was nothing to remove.
    """

    source: Path
    target: Path
    key: Key
    options: Options = BASIC
    blank: Blank = NO_BLANK
    faces: Mapping[Path, Removal | UserError] | None = None
    sound: Collection[Path] = ()
    done: Done = field(default_factory=Done)

    def add(self, path: Path, beside: Sequence[str]) -> None:
        """Writes one file, or notes why it is left out; `beside` are the names of the files in its folder."""
        try:
            self._add(path, beside)
        except UserError as error:
            self.done.left_out.append(error)

    def _add(self, path: Path, beside: Sequence[str]) -> None:
        name = path.name.lower()
        suffix = next((s for s in sorted((*VOLUMES, *sidecars.SUFFIXES), key=len, reverse=True) if name.endswith(s)), None)
        if suffix in VOLUMES:
            self._volume(path, suffix)
        elif suffix is not None and _has_image(path.name[:-len(suffix)], beside):
            target = self._place(path, suffix)
            removed = sidecars.write_bare(target, path)
            self._note(target, "sidecar", Counter({"removed": removed}))
        elif suffix is None and dicom.accepts(path):
            self._dicom(path)
        elif not (name.endswith(VALUES) and any(other.lower().endswith(HEADERS) for other in beside)):
            raise UserError(path, "left out: not a kind of file whose texts are known")

    def _face(self, path: Path) -> Removal | None:
        """What is removed of a file; None where faces stay. Raises UserError where it isn't known."""
        if self.faces is None:
            return None
        face = self.faces.get(path, UserError(path, "is no image in which a face could be found"))
        if isinstance(face, UserError):
            raise UserError(path, f"left out: {face.args[1]}")
        return face

    def _dicom(self, path: Path) -> None:
        found = deidentified(path, self.key, self.options, replace(self.blank, removal=self._face(path)))
        patient, study = self.key.pseudonym("patient", found.patient), self.key.pseudonym("study", found.study)
        place = path.parent.relative_to(self.source).as_posix()  # readers take one folder for one series
        series = self.key.pseudonym("series", f"{place}\0{found.series}")
        target = self.target / patient / study / series / f"{self.key.pseudonym('instance', found.instance)}.dcm"
        if target.exists():
            raise UserError(path, "left out: a duplicate of another instance in its folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        save(target, found.dataset)
        self._note(target, "DICOM", found.counts, found.warnings, self._said(path))
        self.done.series.add(target.parent)
        self.done.patients.add(patient)
        self.done.originals |= {("patient", found.patient): patient} | {
            (kind, uid): self.key.uid(uid) for kind, uid in (
                ("study", found.study), ("series", found.series), ("instance", found.instance)) if uid}

    def _volume(self, path: Path, suffix: str) -> None:
        face = self._face(path)
        target = self._place(path, suffix)
        VOLUMES[suffix](target, path, face)
        self._note(target, "volume", Counter(), face=self._said(path))

    def _place(self, path: Path, suffix: str) -> Path:
        """Where a file goes that isn't DICOM; its folder is made. Raises UserError where another file has that name."""
        folders = [self._renamed(part) for part in path.parent.relative_to(self.source).parts]
        target = self.target.joinpath(*folders, self._renamed(path.name[:-len(suffix)]) + suffix)
        if target.exists():
            raise UserError(path, "left out: another file has the same name but for its case")
        target.parent.mkdir(parents=True, exist_ok=True)
        self.done.originals["file", path.relative_to(self.source).as_posix()] = target.relative_to(self.target).as_posix()
        return target

    def _renamed(self, name: str) -> str:
        """A name of a file without its suffix, or of a folder: entities of BIDS keep their keys, all else is replaced."""
        if name in BIDS_FOLDERS:
            return name
        *entities, last = name.split("_")
        if "-" in last:
            entities, last = [*entities, last], ""
        pairs = [entity.partition("-") for entity in entities]
        if not pairs or pairs[0][0] not in ("sub", "ses") or not {key for key, _, _ in pairs} <= BIDS_KEYS:
            return self.key.pseudonym("name", name)
        kept = [f"{key}-{self._label(key, value)}" for key, _, value in pairs]
        suffix = [last if last in BIDS_SUFFIXES else self.key.pseudonym("name", last)] if last else []
        return "_".join([*kept, *suffix])

    def _label(self, key: str, value: str) -> str:
        number = key in NUMBERED and re.fullmatch(r"\d{1,3}", value)
        return value if number else self.key.pseudonym(f"bids {key}", value)

    def _said(self, path: Path) -> str:
        """What was done to a face, for the log."""
        return "" if self.faces is None else "not shown" if path in self.sound else "removed"

    def _note(self, target: Path, kind: str, counts: Counter[str], warnings: Sequence[str] = (), face: str = "") -> None:
        self.done.rows.append({"file": target.relative_to(self.target).as_posix(), "kind": kind, **counts,
                               **({"face": face} if face else {}), "warnings": "; ".join(warnings)})


def _has_image(stem: str, beside: Sequence[str]) -> bool:
    return any(other[:-len(suffix)] == stem for other in beside for suffix in VOLUMES if other.lower().endswith(suffix))
