"""Images with a label map each: pairs of files that differ by a part of their path."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from medjax.data import io
from medjax.data.split import NAMES
from medjax.types import Record, UserError

MAX_POINTS = 4096
LOSSY = (".jpg", ".jpeg")


@dataclass(frozen=True)
class Pairs:
    """The images below `path` that match the pattern `images`, each with the file `labels`, its `*` the same.

    A pattern may have folders ("images/*.nii.gz", "sub-*/sub-*_T1w.nii.gz"); both have as many `*`.

    A record's extras: "label" `(*space, 1)` uint8, the index of the class; "foreground", the places of
    labelled voxels, around which `config.data.foreground` of the patches are drawn. `values` are what the files
    store for each class, in order ((0, 255) for black and white masks, of JPEG the nearest); () takes the stored numbers as
    indices. `parts` says what the first `*` is in the train, val and test part of the data set's makers ("" for a part that
    they did not make); () divides by subject.
    """

    path: str = ""
    images: str = "*_image.nii.gz"
    labels: str = "*_label.nii.gz"
    values: tuple[int, ...] = ()
    parts: tuple[str, ...] = ()

    def load(self) -> list[Record]:
        """The records, by name. Raises UserError for a missing or misfitting label map."""
        if self.images.count("*") != self.labels.count("*") or "**" in self.images:
            raise UserError("config.data.source.labels", f"{self.labels!r} and {self.images!r}, the pattern of the images, "
                            "need as many *, each within a name")
        folder = Path(self.path).expanduser()
        found = sorted(folder.glob(self.images)) if self.path and "*" in self.images else []
        if not found:
            raise UserError("config.data.path", f"nothing in {self.path!r} matches {self.images}; give the folder of "
                            "the images, and a pattern with a * (config.data.source.images)")
        return [self._record(folder, path) for path in found]

    def _record(self, folder: Path, path: Path) -> Record:
        place = path.relative_to(folder).as_posix()
        matched = re.fullmatch(re.escape(self.images).replace(r"\*", "([^/]*)"), place)
        assert matched is not None  # the path was found by the pattern
        stars = iter(matched.groups())
        beside = folder / re.sub(r"\*", lambda _: next(stars), self.labels)
        if not beside.exists():
            raise UserError(path, f"has no label map {beside.relative_to(folder)} (config.data.source.labels)")
        (image,), (label,) = io.read(path), io.read(beside)
        if image.image.shape[:-1] != label.image.shape[:-1]:
            raise UserError(beside, f"is {label.image.shape[:-1]} and its image {image.image.shape[:-1]}; give them on one "
                            "grid")
        classes = self._classes(beside, np.asarray(label.image)[..., :1])
        extras = image.extras | {"label": classes, "foreground": _spread(np.argwhere(classes[..., 0] > 0))}
        if self.parts:
            extras["part"] = np.array(self._part(matched[1]))
        before, after = self.images.partition("*")[0], self.images.rpartition("*")[2]
        name = place.removeprefix(before).removesuffix(after)
        # Files of one name in several folders are not of one subject.
        return replace(image, id=name, subject=name if image.subject == image.id else image.subject, extras=extras)

    def _part(self, star: str) -> str:
        if len(self.parts) != len(NAMES) or not star or star not in self.parts:
            raise UserError("config.data.source.parts", f"{self.parts}, but {star!r} is there; give what the first * of "
                            f"{self.images} is in train, val and test")
        return NAMES[self.parts.index(star)]

    def _classes(self, path: Path, stored: np.ndarray) -> np.ndarray:
        if not self.values:
            if not np.array_equal(stored, stored.astype(np.uint8)):
                raise UserError(path, "has labels that are no whole numbers from 0 to 255; give config.data.source.values")
            return stored.astype(np.uint8)
        if path.suffix.lower() in LOSSY:
            distance = np.abs(stored.astype(np.int32) - np.array(self.values, np.int32))
            return distance.argmin(-1, keepdims=True).astype(np.uint8)
        unknown = np.setdiff1d(stored, self.values)
        if unknown.size:
            raise UserError(path, f"has the value {unknown[0]}, which is none of config.data.source.values {self.values}")
        order = np.argsort(self.values)
        return order[np.searchsorted(self.values, stored, sorter=order)].astype(np.uint8)


def _spread(points: np.ndarray) -> np.ndarray:
    """At most `MAX_POINTS` of the points, spread evenly, int32."""
    return points[np.linspace(0, len(points) - 1, min(len(points), MAX_POINTS)).astype(int)].astype(np.int32)
