"""Batches of patients who are drawn by chance, each on their own: what differential privacy is counted for.

Which patients a batch has follows from a secret seed and its number, so a stream resumes bit for bit, as `pipeline`'s do.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from medjax.data.crops import Place
from medjax.data.pipeline import HostBatch, Patches, Share, Stream
from medjax.types import Region


@dataclass(frozen=True)
class Drawing:
    """Each patient is in a batch with probability `rate`, by `samples` rows.

    A batch has room for `chunks` times `width` patients, of which the first chunks are filled first; those beyond are left
    out, and `count` is 0 in rows without a patient. Rows are dealt out to the chunks in turn, so that each chunk lies on as
    many devices as the whole: row `(i * chunks + chunk) * samples + j` is the j-th of the chunk's i-th patient. `seed`
    must stay secret where privacy is counted.
    """

    rate: float
    samples: int
    chunks: int
    width: int
    seed: int = field(repr=False)

    @property
    def rows(self) -> int:
        """The rows of a batch."""
        return self.chunks * self.width * self.samples


def patient_stream(regions: Sequence[Region], drawing: Drawing, *, patch: Sequence[int] = (), ndim: int = 2, seed: int = 0,
                   workers: int = 0, foreground: float = 0.0, multiple_of: int = 1, share: Share | None = None) -> Stream:
    """An endless stream of batches of drawn patients; the rest as `pipeline.train_stream`.

    A row is a random slice (2-D) or box (3-D) of the patient, at a random place. Raises UserError.
    """
    return Stream(_Drawn(regions, drawing, tuple(patch), ndim, seed, foreground, multiple_of, share or Share()), workers)


class _Drawn(Patches):
    """Random access to the batches of `patient_stream`."""

    def __init__(self, regions: Sequence[Region], drawing: Drawing, patch: tuple[int, ...], ndim: int, seed: int,
                 foreground_share: float, multiple_of: int, share: Share):
        super().__init__(regions, drawing.rows, patch, ndim, seed, foreground_share, multiple_of, share)
        self._drawing = drawing
        patients = sorted({region.record.subject for region in regions})
        self._of = [np.array([i for i, region in enumerate(regions) if region.record.subject == patient])
                    for patient in patients]

    def __getitem__(self, index: int) -> HostBatch:
        drawn = self._drawn(index)
        fill: Place = next((place for place in drawn if place is not None), (0, 0, (0,) * self.images.ndim))
        batch = self._batch(fill if place is None else place for place in drawn)
        return batch | {"count": np.array([place is not None for place in drawn], np.float32)}

    def names(self, index: int) -> list[str]:
        """The names of the samples of a batch."""
        return [self.images.name(*place) for place in self._drawn(index) if place is not None]

    def _drawn(self, index: int) -> list[Place | None]:
        """The place of each row that is read here, None where it has no patient."""
        drawing = self._drawing
        random = np.random.Generator(np.random.Philox(key=drawing.seed, counter=int(index) << 64))
        chosen = random.permutation(np.flatnonzero(random.random(len(self._of)) < drawing.rate))
        draws = random.random((len(self._of), drawing.samples, 3 + self.images.ndim))
        places: list[Place | None] = []
        for row in range(self._rows.start, self._rows.stop):
            slot, sample = divmod(row, drawing.samples)
            at, chunk = divmod(slot, drawing.chunks)
            number = chunk * drawing.width + at
            places.append(self._place(chosen[number], draws[chosen[number], sample]) if number < len(chosen) else None)
        return places

    def _place(self, patient: int, draws: np.ndarray) -> Place:
        """One of the patient's slices or boxes, each as often as another."""
        regions = self._of[patient]
        boxes = self._boxes[regions]
        ends = np.cumsum(self.images.counts[regions] * boxes)
        item = int(draws[0] * ends[-1])
        which = int(np.searchsorted(ends, item, side="right"))
        region = int(regions[which])
        index = (item - (int(ends[which - 1]) if which else 0)) // int(boxes[which])
        room = np.maximum(self._room[region], 0)
        corner = np.minimum((draws[3:] * (room + 1)).astype(int), room).tolist()
        return self.moved((region, index, corner), draws[1:])
