"""Time series: the frames of 4-D volumes, cines and video as the first axis of volumes, for networks that go over them."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from absl import logging

from medjax.data.io import Study, discover
from medjax.data.sources.files import alike
from medjax.data.storage.cache import default_folder, unpack
from medjax.data.storage.mapped import Mapped
from medjax.types import Record, UserError

CACHE = "series"  # below that of the files, whose frames lie there one by one


@dataclass(frozen=True)
class Frames:
    """Every slice of the series in the file `path`, or in each file below the folder, as a record `(T, H, W, C)`.

    A 2-D cine, or a video, is one such record. In a folder the subject is that of the file (`medjax.data.io`), or what the
    table `subjects` (CSV with the columns `filename` and `patientid`) says. The slices of a single file count as subjects of
    their own, so that one scan can be split at all: the parts are then neighbours in one person, and say nothing about
    others.

    `length` > 0 cuts a series into pieces of that many frames, in a single file each a subject of its own too; of each slice
    at most `pieces` > 0 are taken, spread evenly over its time. `match` is a pattern of the names of the files that count
    ("*_L1.mp4"); `cache` is the folder that series are unpacked into, `~/.cache/medjax` if empty.
    """

    path: str = ""
    subjects: str = ""
    match: str = ""
    cache: str = ""
    length: int = 0
    pieces: int = 0

    def load(self) -> list[Record]:
        """The pieces, mapped from the cache. Where grey and colour are mixed, all are grey. Raises UserError."""
        if not self.path:
            raise UserError("config.data.source.path", "is empty; give a file with a series of frames, or a folder of them")
        root = Path(self.path).expanduser()
        found = [study for study in discover(root, self.subjects) if not self.match or study.paths[0].match(self.match)]
        if not found:
            raise UserError("config.data.source.match", f"{self.match!r} is the name of no series in {root}")
        folder = (Path(self.cache).expanduser() if self.cache else default_folder()) / CACHE
        stacks = alike(unpack([_Series(study) for study in found], folder))
        own = len(found) == 1 and not self.subjects
        pieces = [(stack, start, stop) for stack in stacks for start, stop in self._spans(stack.image.shape[0])]
        lacking = len(stacks) - len({stack.id for stack, _, _ in pieces})
        if not pieces:
            raise UserError("config.data.source.length", f"{self.length}; the longest series has "
                            f"{max(stack.image.shape[0] for stack in stacks)} frames")
        if lacking:
            logging.warning("%d of %d series are left out: they have fewer than %d frames", lacking, len(stacks),
                            self.length)
        return [_piece(stack, start, stop, own) for stack, start, stop in pieces]

    def _spans(self, count: int) -> list[tuple[int, int]]:
        """Where the pieces of a series of `count` frames begin and end."""
        size = self.length or count
        starts = list(range(0, count - size + 1, size))
        if 0 < self.pieces < len(starts):
            starts = [starts[int((i + 0.5) * len(starts) / self.pieces)] for i in range(self.pieces)]
        return [(start, start + size) for start in starts]


@dataclass(frozen=True)
class _Series:
    """A study whose frames are to be unpacked together, as a record `(T, H, W, C)` for each slice."""

    study: Study

    @property
    def paths(self) -> tuple[Path, ...]:
        return self.study.paths

    @property
    def id(self) -> str:
        return self.study.id

    @property
    def subject(self) -> str:
        return self.study.subject

    @property
    def series(self) -> str:
        return self.study.series

    def read(self) -> list[Record]:
        """The slices. Raises UserError where there are no frames, or frames of several sizes or scales."""
        frames = self.study.read()
        if len(frames) < 2 or len({(f.image.shape, f.slope, f.intercept) for f in frames}) > 1:
            raise UserError(self.paths[0], f"holds {len(frames)} frames; give a series of frames of one size "
                            "(config.data.source.match chooses among the files of a folder)")
        series, first = np.stack([frame.image for frame in frames]), frames[0]
        stacks = np.moveaxis(series, 1, 0) if first.ndim == 3 else series[None]
        spacing = first.spacing_mm and (1.0, *first.spacing_mm[-2:])
        return [replace(first, image=stack, id=f"{self.id}:z{z}", spacing_mm=spacing, affine=None, extras={})
                for z, stack in enumerate(stacks)]


def _piece(stack: Record, start: int, stop: int, own: bool) -> Record:
    """Frames `start` to `stop` of a slice, a subject of their own or of the file's."""
    name = f"{stack.id}t{start}"
    image = stack.image.rows(start, stop) if isinstance(stack.image, Mapped) else stack.image[start:stop]
    return replace(stack, image=image, id=name, subject=name if own else stack.subject, extras={})
