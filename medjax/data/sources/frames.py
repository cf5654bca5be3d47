"""Time series: the frames of a 4-D volume or of a cine as the first axis of volumes, for networks that recur over them."""

from dataclasses import dataclass, replace

import numpy as np

from medjax.data.io import read
from medjax.types import Record, UserError


@dataclass(frozen=True)
class Frames:
    """Every slice of the series in the file `path` as a record `(T, H, W, C)`; a 2-D cine is one such record.

    The slices of one file count as subjects of their own, so that a single scan can be split at all: the parts are then
    neighbours in one person, and say nothing about others. `length` > 0 cuts a series into pieces of that many frames,
    each a subject of its own too.
    """

    path: str = ""
    length: int = 0

    def load(self) -> list[Record]:
        """The series, slice by slice. Raises UserError where the file holds a single frame."""
        frames = read(self.path) if self.path else []
        if len(frames) < 2 or len({(f.image.shape, f.slope, f.intercept) for f in frames}) > 1:
            raise UserError("config.data.source.path", f"{self.path!r} holds {len(frames)} frames; give a file with a "
                            "series of frames of one size")
        series = np.stack([frame.image for frame in frames])
        first, name = frames[0], frames[0].id.rpartition("#")[0] or frames[0].id
        stacks = np.moveaxis(series, 1, 0) if first.ndim == 3 else series[None]
        size = self.length or len(frames)
        return [replace(first, image=stack[start:start + size], id=f"{name}:z{z}t{start}", subject=f"{name}:z{z}t{start}",
                        spacing_mm=(1.0, *first.spacing_mm[-2:]), affine=None, extras={})
                for z, stack in enumerate(stacks) for start in range(0, len(stack) - size + 1, size)]
