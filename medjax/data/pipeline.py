"""Records to batches: a pure function of the batch number, read ahead by grain, put on the devices by a thread.

Which patches make batch n follows from the seed and n alone. So the position of a stream is one number, and a stream
that goes on from it is bit-identical whatever the number of worker processes, before and after.
"""

import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

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
NamedBatch = dict[str, Any]  # a host batch, and `name`, a list of strings


@dataclass(frozen=True)
class Share:
    """What a process reads of every batch: the `row`-th of `rows` equal shares of its rows, and the `plane`-th of `planes`
    of the first spatial axis.
    """

    row: int = 0
    rows: int = 1
    plane: int = 0
    planes: int = 1

    def of_rows(self, size: int) -> slice:
        """Its rows of a batch of `size`."""
        count = size // self.rows
        return slice(self.row * count, (self.row + 1) * count)

    def of_planes(self, size: int) -> slice:
        """Its planes of an axis of `size`."""
        count = size // self.planes
        return slice(self.plane * count, (self.plane + 1) * count)


def train_stream(
    regions: Sequence[Region], *, batch_size: int, patch: Sequence[int] = (), ndim: int = 2, seed: int = 0,
    workers: int = 0, foreground: float = 0.0, multiple_of: int = 1, share: Share | None = None,
) -> "Stream":
    """An endless stream of random patches, `medjax.types.Batch` on the host.

    `patch` is the size of the box, `()` for whole images (padded to the largest). With `ndim=2` volumes are read slice by
    slice. Every slice (2-D) or box (3-D) comes once per epoch, in random order, at a random place; with probability
    `foreground` the place is drawn around a random point of tissue instead. An image that is smaller than the patch is
    padded with its edge, False in `mask`; so is the first axis of the patch, to a multiple of `multiple_of`.

    `batch_size` is the global one, of which the stream reads its `share`. `workers` reading processes, or threads with 0.
    Raises UserError.
    """
    return Stream(Patches(regions, batch_size, tuple(patch), ndim, seed, foreground, multiple_of, share or Share()), workers)


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

    def names(self, index: int) -> list[str]:
        """The names of the samples of batch `index` that are read here."""
        return self._patches.names(index)

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
            self._batches.close()  # type: ignore[attr-defined]  # grain's iterators, which have no types, can be closed
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
                 foreground_share: float, multiple_of: int, share: Share):
        if batch_size < 1 or batch_size % share.rows:
            raise UserError("config.batch_size", f"{batch_size}; give a multiple of the {share.rows} processes")
        if not 0 <= foreground_share <= 1:
            raise UserError("config.data.foreground", f"{foreground_share}; give a probability between 0 and 1")
        self.images = Images(regions, ndim)
        self.patch = _patch_shape(patch, self.images)
        planes = -(-self.patch[0] // multiple_of) * multiple_of
        self.images.check_whole((planes, *self.patch[1:]))
        self._planes = share.of_planes(planes)
        self.identity = {"seed": int(seed), "batch_size": int(batch_size)}
        self._share = foreground_share
        self._points = [_points(region) for region in regions] if foreground_share > 0 else []
        self._rows = share.of_rows(batch_size)
        self._boxes = np.array([max(1, round(np.prod(shape) / np.prod(self.patch))) for shape in self.images.shapes])
        self._ends = np.cumsum(self.images.counts * self._boxes)
        self._starts = self._ends - self.images.counts * self._boxes
        self._room = np.array(self.images.shapes) - self.patch
        self._padded = bool((self._room < 0).any()) or self.patch[0] % multiple_of != 0

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        _end_with_parent()

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, index: int) -> HostBatch:
        return self._batch(self._places(index))

    def names(self, index: int) -> list[str]:
        """The names of the samples of a batch."""
        return [self.images.name(*place) for place in self._places(index)]

    def _places(self, index: int) -> Iterator[Place]:
        """Where the patches of a batch are, one by one, so that a patch and its points are read at one time."""
        items, seed, size = int(self._ends[-1]), self.identity["seed"], self.identity["batch_size"]
        random = np.random.Generator(np.random.Philox(key=seed, counter=int(index) << 64))
        draws = random.random((size, 2 + self.images.ndim))[self._rows]
        numbers = range(index * size, (index + 1) * size)[self._rows]
        drawn = np.array([_shuffled(items, seed, number // items)[number % items] for number in numbers])
        regions = np.searchsorted(self._ends, drawn, side="right")
        indices = (drawn - self._starts[regions]) // self._boxes[regions]
        room = np.maximum(self._room[regions], 0)
        corners = np.minimum((draws[:, 2:] * (room + 1)).astype(int), room)
        for row, place in enumerate(zip(regions.tolist(), indices.tolist(), corners.tolist(), strict=True)):
            yield self.moved(place, draws[row])

    def moved(self, place: Place, draws: np.ndarray) -> Place:
        """The place, moved with the probability of tissue to where its patch has some in it."""
        points = self._points[place[0]] if draws[0] < self._share else None
        return place if points is None or not len(points) else self._around(points, place, draws)

    def _around(self, points: np.ndarray | Stored, place: Place, draws: np.ndarray) -> Place:
        """The place moved to where its patch has one of the points in it."""
        region, index, _ = place
        *slices, centre = _split_point(points[int(draws[1] * len(points))], self.images.ndim)
        corner = np.clip(centre - (draws[2:] * self.patch).astype(int), 0, np.maximum(self._room[region], 0))
        return region, slices[0] if slices else index, corner.tolist()

    def _batch(self, drawn: Iterator[Place]) -> HostBatch:
        images, rows = self.images, self._rows.stop - self._rows.start
        shape = (self._planes.stop - self._planes.start, *self.patch[1:])
        batch = images.empty(rows, shape)
        if images.masked or self._padded:
            batch["mask"] = np.empty((rows, *shape, 1), bool)
        places = []
        for row, place in enumerate(drawn):
            images.copy(batch, row, place, self.patch, self._planes.start)
            places.append(place)
        return batch | images.facts(places) | {"count": np.ones(rows, np.float32)}


def _end_with_parent() -> None:
    """Has a reading process end with the one that started it, however that ends: grain's would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        def wait() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=wait, daemon=True).start()


def whole_batch(record: Record, ndim: int, index: int = 0) -> HostBatch:
    """A record as a batch of one image, views of it: the record itself, or with `ndim=2` slice `index` of a volume."""
    images = Images([Region.whole(record)], ndim)
    return images.whole(0, index) | images.facts([(0, index, (0,) * ndim)]) | {"count": np.ones(1, np.float32)}


def eval_batches(regions: Sequence[Region], *, batch_size: int, ndim: int = 2, multiple_of: int = 1, limit: int = 0,
                 share: Share | None = None) -> "EvalBatches":
    """Every image of `regions` once, in order, in batches of one static shape; nothing is dropped.

    Images are padded with their edge to the largest (False in `mask`), the first axis to a multiple of `multiple_of`. The
    last batch is filled with repeats of `count` 0. Batches carry `name`, a list of strings (empty for a repeat), beside what
    training batches carry. Images whose mask is False all over are left out. `limit` > 0 takes that many samples only,
    evenly spread. Of the arrays, `share` is read. Raises UserError.
    """
    return EvalBatches(regions, batch_size, ndim, multiple_of, limit, share or Share())


class EvalBatches:
    """A finite, repeatable iterable of batches (see `eval_batches`); `len` counts batches, `samples` samples."""

    def __init__(self, regions: Sequence[Region], batch_size: int, ndim: int, multiple_of: int, limit: int, share: Share):
        self.images = Images(regions, ndim)
        largest = tuple(int(n) for n in np.max(self.images.shapes, axis=0))
        self.shape = (-(-largest[0] // multiple_of) * multiple_of, *largest[1:])
        self.images.check_whole(self.shape)
        corner = (0,) * ndim
        places: list[Place] = [(region, index, corner) for region, count in enumerate(self.images.counts.tolist())
                               for index in range(count) if self._counts(region, index)]
        if limit and limit < len(places):
            places = [places[int((i + 0.5) * len(places) / limit)] for i in range(limit)]
        if not places:
            raise UserError("config.data", "no image of this part of the split has anything inside its mask")
        self.samples = len(places)
        self._all, self._size, self._share = places, batch_size, share

    def __len__(self) -> int:
        return -(-self.samples // self._size)

    def __iter__(self) -> Iterator[NamedBatch]:
        for start in range(0, self.samples, self._size):
            numbers = range(start, start + self._size)
            places = [self._all[min(n, self.samples - 1)] for n in numbers]
            names = [self.images.name(*place) if n < self.samples else "" for n, place in zip(numbers, places, strict=True)]
            yield {**self._batch(places, np.array([n < self.samples for n in numbers], np.float32)), "name": names}

    def _counts(self, region: int, index: int) -> bool:
        mask = self.images.mask(region, index)
        return mask is None or bool(mask.any())

    def _batch(self, places: list[Place], count: np.ndarray) -> HostBatch:
        images, rows, planes = self.images, self._share.of_rows(self._size), self._share.of_planes(self.shape[0])
        mine = places[rows]
        shape = (planes.stop - planes.start, *self.shape[1:])
        batch = images.empty(len(mine), shape) | {"mask": np.empty((len(mine), *shape, 1), bool)}
        for row, place in enumerate(mine):
            images.copy(batch, row, place, self.shape, planes.start)
        return batch | images.facts(mine) | {"count": count[rows]}


@lru_cache(4)  # a batch may begin in one epoch and end in the next, for each of two streams
def _shuffled(items: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=seed, counter=(epoch, 0, 0, EPOCHS))).permutation(items)


def _patch_shape(patch: tuple[int, ...], images: Images) -> tuple[int, ...]:
    if not patch:
        return tuple(int(n) for n in np.max(images.shapes, axis=0))
    if len(patch) != images.ndim or min(patch) < 1:
        raise UserError("config.data.patch", f"{patch}; give {images.ndim} sizes, or () for whole images")
    return tuple(int(p) for p in patch)


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
