"""Records to batches: a pure function of the batch number, read ahead by grain, put on the devices by a thread.

Which patches make batch n follows from the seed and n alone. So the position of a stream is one number, and a stream
that goes on from it is bit-identical whatever the number of worker processes, before and after.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache

import grain
import numpy as np
from absl import flags

from medjax.data.crops import Images, Place
from medjax.data.statistics import foreground, value_range
from medjax.data.storage.mapped import Stored, mapped
from medjax.data.values import one_line
from medjax.types import Record, Region, UserError

__all__ = ["Stream", "eval_batches", "train_stream", "value_range", "whole_batch"]

ENDLESS = 1 << 40
EPOCHS = 1 << 63  # the last word of the random counter: batches count below it, epochs from it
HostBatch = dict[str, np.ndarray]

def train_stream(
    regions: Sequence[Region], *, batch_size: int, patch: Sequence[int] = (), ndim: int = 2, seed: int = 0,
    workers: int = 0, foreground: float = 0.0, multiple_of: int = 1, process_index: int = 0, process_count: int = 1,
) -> "Stream":
    """An endless stream of random patches, `medjax.types.Batch` on the host.

    `patch` is the size of the box, `()` for whole images (padded to the largest, rounded up to `multiple_of`). With
    `ndim=2` volumes are read slice by slice. Every slice (2-D) or box (3-D) comes once per epoch, in random order, at
    a random place; with probability `foreground` the place is drawn around a random point of tissue instead. An image
    that is smaller than the patch is padded with its edge, False in `mask`.

    `batch_size` is the global one; of `process_count` processes each gets its own `batch_size / process_count` rows.
    `workers` reading processes, or threads with 0. Raises UserError.
    """
    patches = Patches(regions, batch_size, tuple(patch), ndim, seed, foreground, multiple_of, process_index,
                      process_count)
    return Stream(patches, workers)


class Stream:
    """An iterator whose state is the number of batches that were taken from it."""

    def __init__(self, patches: "Patches", workers: int = 0):
        if workers and not flags.FLAGS.is_parsed():  # grain's processes read absl flags
            flags.FLAGS.mark_as_parsed()
        self._patches = patches
        self._workers = workers
        self._taken = 0
        self._batches: Iterator[HostBatch] | None = None

    def __iter__(self) -> "Stream":
        return self

    def __next__(self) -> HostBatch:
        if self._batches is None:
            self._batches = self._read_from(self._taken)
        try:
            batch = next(self._batches)
        except RuntimeError as error:
            if "Worker process was terminated" not in str(error):
                raise
            raise UserError("config.data.workers", f"{one_line(error).partition('. ')[0]}: it was killed, for want of "
                            "memory perhaps, or a file was cut off under it; try fewer workers") from error
        self._taken += 1
        return batch

    def first(self) -> HostBatch:
        """Batch 0, without moving: the shapes and dtypes of all of them."""
        return self._patches[0]

    def get_state(self) -> dict[str, int]:
        """The position, to be saved as JSON with a checkpoint."""
        return {"batches": self._taken, **self._patches.identity}

    def set_state(self, state: dict[str, int]) -> None:
        """Goes to a saved position. Raises UserError if it belongs to another batch size or seed."""
        for key, value in self._patches.identity.items():
            if state[key] != value:
                raise UserError(f"config.{key}", f"{value}, but the checkpoint's data was read with {state[key]}")
        self.close()
        self._taken = state["batches"]

    def close(self) -> None:
        """Ends the reading threads and processes; the position stays."""
        if self._batches is not None:
            self._batches.close()
        self._batches = None

    def _read_from(self, start: int) -> Iterator[HostBatch]:
        batches = grain.MapDataset.source(self._patches)[start:]
        if not self._workers:
            return iter(batches.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)))
        one_thread = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
        processes = grain.MultiprocessingOptions(num_workers=self._workers, per_worker_buffer_size=2)
        return iter(batches.to_iter_dataset(one_thread).mp_prefetch(processes))


class Patches:
    """Random access to batches: `patches[n]` is batch n of the endless stream (see `train_stream`)."""

    def __init__(self, regions: Sequence[Region], batch_size: int, patch: tuple[int, ...], ndim: int, seed: int,
                 foreground_share: float, multiple_of: int, process_index: int, process_count: int):
        if batch_size < 1 or batch_size % process_count:
            raise UserError("config.batch_size", f"{batch_size}; give a multiple of the {process_count} processes")
        if not 0 <= foreground_share <= 1:
            raise UserError("config.data.foreground", f"{foreground_share}; give a probability between 0 and 1")
        self.images = Images(regions, ndim)
        self.patch = _patch_shape(patch, self.images, multiple_of)
        self.identity = {"seed": int(seed), "batch_size": int(batch_size)}
        self._share = foreground_share
        self._points = [_points(region) for region in regions] if foreground_share > 0 else []
        rows = batch_size // process_count
        self._rows = slice(process_index * rows, (process_index + 1) * rows)
        self._boxes = np.array([max(1, round(np.prod(shape) / np.prod(self.patch))) for shape in self.images.shapes])
        self._ends = np.cumsum(self.images.counts * self._boxes)
        self._starts = self._ends - self.images.counts * self._boxes
        self._room = np.array(self.images.shapes) - self.patch
        self._padded = bool((self._room < 0).any())

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, index: int) -> HostBatch:
        seed, size = self.identity["seed"], self.identity["batch_size"]
        random = np.random.Generator(np.random.Philox(key=seed, counter=int(index) << 64))
        draws = random.random((size, 2 + self.images.ndim))[self._rows]
        numbers = range(index * size, (index + 1) * size)[self._rows]
        return self._batch(self._places(numbers, draws))

    def _places(self, numbers: Sequence[int], draws: np.ndarray) -> Iterator[Place]:
        """Where the patches of these samples are, one by one, so that a patch and its points are read at one time."""
        items, seed = int(self._ends[-1]), self.identity["seed"]
        drawn = np.array([_shuffled(items, seed, number // items)[number % items] for number in numbers])
        regions = np.searchsorted(self._ends, drawn, side="right")
        indices = (drawn - self._starts[regions]) // self._boxes[regions]
        room = np.maximum(self._room[regions], 0)
        corners = np.minimum((draws[:, 2:] * (room + 1)).astype(int), room)
        for row, place in enumerate(zip(regions.tolist(), indices.tolist(), corners.tolist(), strict=True)):
            points = self._points[place[0]] if draws[row, 0] < self._share else ()
            yield self._around(points, place, draws[row]) if len(points) else place

    def _around(self, points: np.ndarray | Stored, place: Place, draws: np.ndarray) -> Place:
        """The place moved to where its patch has one of the points in it."""
        region, index, _ = place
        *slices, centre = _split_point(points[int(draws[1] * len(points))], self.images.ndim)
        corner = np.clip(centre - (draws[2:] * self.patch).astype(int), 0, np.maximum(self._room[region], 0))
        return region, slices[0] if slices else index, corner.tolist()

    def _batch(self, drawn: Iterator[Place]) -> HostBatch:
        images, rows = self.images, self._rows.stop - self._rows.start
        batch = images.empty(rows, self.patch)
        if images.masked or self._padded:
            batch["mask"] = np.empty((rows, *self.patch, 1), bool)
        places = []
        for row, place in enumerate(drawn):
            images.copy(batch, row, *place)
            places.append(place)
        return batch | images.facts(places) | {"count": np.ones(rows, np.float32)}


def eval_batches(
    regions: Sequence[Region], *, batch_size: int, ndim: int = 2, multiple_of: int = 1,
    limit: int = 0, process_index: int = 0, process_count: int = 1,
) -> "EvalBatches":
    """Every image of `regions` once, in order, in batches of one static shape; nothing is dropped.

    Images are padded with their edge to the largest, rounded up to `multiple_of` (False in `mask`). The last batch is filled
    with repeats of `count` 0. Batches carry `name`, a list of strings, beside what training batches carry. Images whose
    mask is False all over are left out. `limit` > 0 takes that many samples only, evenly spread. Raises UserError.
    """
    return EvalBatches(regions, batch_size, ndim, multiple_of, limit, process_index, process_count)


def whole_batch(record: Record, ndim: int, index: int = 0) -> HostBatch:
    """A record as a batch of one image, all of it: the record itself, or with `ndim=2` slice `index` of a volume."""
    images = Images([Region.whole(record)], ndim)
    place = (0, index, (0,) * ndim)
    batch = images.empty(1, images.shapes[0])
    if images.masked:
        batch["mask"] = np.empty((1, *images.shapes[0], 1), bool)
    images.copy(batch, 0, *place)
    return batch | images.facts([place]) | {"count": np.ones(1, np.float32)}


class EvalBatches:
    """A finite, repeatable iterable of batches (see `eval_batches`); `len` counts batches, `samples` samples."""

    def __init__(self, regions: Sequence[Region], batch_size: int, ndim: int, multiple_of: int, limit: int,
                 process_index: int, process_count: int):
        self.images = Images(regions, ndim)
        self.shape = _round_up(np.max(self.images.shapes, axis=0), multiple_of)
        corner = (0,) * ndim
        places = [(region, index, corner) for region, count in enumerate(self.images.counts.tolist())
                  for index in range(count) if self._counts(region, index)]
        if limit and limit < len(places):
            places = [places[int((i + 0.5) * len(places) / limit)] for i in range(limit)]
        if not places:
            raise UserError("config.data", "no image of this part of the split has anything inside its mask")
        self.samples = len(places)
        self._all = places
        self._size = batch_size
        rows = batch_size // process_count
        self._rows = slice(process_index * rows, (process_index + 1) * rows)

    def __len__(self) -> int:
        return -(-self.samples // self._size)

    def __iter__(self) -> Iterator[HostBatch]:
        for start in range(0, self.samples, self._size):
            numbers = range(start, start + self._size)[self._rows]
            yield self._batch([self._all[min(n, self.samples - 1)] for n in numbers],
                              np.array([n < self.samples for n in numbers], np.float32))

    def _counts(self, region: int, index: int) -> bool:
        mask = self.images.mask(region, index)
        return mask is None or bool(mask.any())

    def _batch(self, places: list[Place], count: np.ndarray) -> HostBatch:
        images = self.images
        batch = images.empty(len(places), self.shape) | {"mask": np.empty((len(places), *self.shape, 1), bool)}
        for row, place in enumerate(places):
            images.copy(batch, row, *place)
        names = [images.name(*place) for place in places]
        return batch | images.facts(places) | {"count": count, "name": names}


@lru_cache(4)  # a batch may begin in one epoch and end in the next, for each of two streams
def _shuffled(items: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=seed, counter=(epoch, 0, 0, EPOCHS))).permutation(items)


def _patch_shape(patch: tuple[int, ...], images: Images, multiple_of: int) -> tuple[int, ...]:
    if not patch:
        return _round_up(np.max(images.shapes, axis=0), multiple_of)
    if len(patch) != images.ndim or min(patch) < 1:
        raise UserError("config.data.patch", f"{patch}; give {images.ndim} sizes, or () for whole images")
    return tuple(int(p) for p in patch)


def _round_up(shape: Sequence[int], multiple_of: int) -> tuple[int, ...]:
    return tuple(-(-int(n) // multiple_of) * multiple_of for n in shape)


def _points(region: Region) -> np.ndarray | Stored:
    """The tissue points of a region, their first index counted from its start; those of a whole record stay in its file."""
    points = foreground(region.record)
    if (region.start, region.stop) == (0, region.record.image.shape[0]):
        return mapped(points) or points
    inside = (points[:, 0] >= region.start) & (points[:, 0] < region.stop)
    return points[inside] - np.eye(1, points.shape[1], dtype=points.dtype) * region.start


def _split_point(point: np.ndarray, ndim: int) -> tuple:
    """A point of a volume as (slice, place in it), of an image as (place,)."""
    return (int(point[0]), point[1:]) if len(point) > ndim else (point,)
