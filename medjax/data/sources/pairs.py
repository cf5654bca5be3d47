"""Images with a label map each: pairs of files that differ by a part of their name."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from medjax.data import io
from medjax.types import Record, UserError

MAX_POINTS = 4096


@dataclass(frozen=True)
class Pairs:
    """The images of `path` that match the pattern `images`, each with the file `labels`, its `*` the same.

    A volume's extras: "label" `(*space, 1)` uint8, the index of the class; "foreground", the places of
    labelled voxels, around which `config.data.foreground` of the patches are drawn. `values` are what the files
    store for each class, in order ((0, 255) for black and white masks); () takes the stored numbers as indices.
    """

    path: str = ""
    images: str = "*_image.nii.gz"
    labels: str = "*_label.nii.gz"
    values: tuple[int, ...] = ()

    def load(self) -> list[Record]:
        """The records, by name. Raises UserError for a missing or misfitting label map."""
        folder = Path(self.path).expanduser()
        found = sorted(folder.glob(self.images)) if self.path and "*" in self.images else []
        if not found:
            raise UserError("config.data.source.path", f"nothing in {self.path!r} matches {self.images}; give the folder of "
                            "the images, and a pattern with a *")
        return [self._record(folder, path) for path in found]

    def _record(self, folder: Path, path: Path) -> Record:
        before, after = self.images.split("*")
        name = path.relative_to(folder).as_posix().removeprefix(before).removesuffix(after)
        beside = folder / self.labels.replace("*", name)
        if not beside.exists():
            raise UserError(path, f"has no label map {beside.name} (config.data.source.labels)")
        (image,), (label,) = io.read(path), io.read(beside)
        if image.image.shape[:-1] != label.image.shape[:-1]:
            raise UserError(beside, f"is {label.image.shape[:-1]} and its image {image.image.shape[:-1]}; give them on one "
                            "grid")
        classes = self._classes(beside, np.asarray(label.image)[..., :1])
        extras = image.extras | {"label": classes, "foreground": _spread(np.argwhere(classes[..., 0] > 0))}
        return replace(image, id=name, extras=extras)

    def _classes(self, path: Path, stored: np.ndarray) -> np.ndarray:
        if not self.values:
            if not np.array_equal(stored, stored.astype(np.uint8)):
                raise UserError(path, "has labels that are no whole numbers from 0 to 255; give config.data.source.values")
            return stored.astype(np.uint8)
        unknown = np.setdiff1d(stored, self.values)
        if unknown.size:
            raise UserError(path, f"has the value {unknown[0]}, which is none of config.data.source.values {self.values}")
        order = np.argsort(self.values)
        return order[np.searchsorted(self.values, stored, sorter=order)].astype(np.uint8)


def _spread(points: np.ndarray) -> np.ndarray:
    """At most `MAX_POINTS` of the points, spread evenly, int32."""
    return points[np.linspace(0, len(points) - 1, min(len(points), MAX_POINTS)).astype(int)].astype(np.int32)
