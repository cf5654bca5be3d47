"""Patches out of stored images: which images a region holds, and how a box of one is copied into a batch."""

import functools
import zlib
from collections.abc import Sequence

import numpy as np

from medjax.data.storage.mapped import Stored, mapped
from medjax.types import Record, Region, UserError

WHOLE = ("kspace", "maps")  # fields that can't be cut or padded: every sample is of the whole image

Place = tuple[int, int, Sequence[int]]
"""Of a box: its region, the image in it, the corner."""


class Images:
    """The images of some regions, as a pipeline reads them: volumes whole, or slice by slice with `ndim=2`.

    What lies on the image's grid goes with it (`fields`: `label`, …, and `mask`), and so do a record's numbers
    (`numbers`: `class`, …; scalars and vectors). To a worker process arrays in files are sent as the files' names.
    Raises UserError where the regions don't fit together or have too few axes.
    """

    def __init__(self, regions: Sequence[Region], ndim: int):
        if not regions:
            raise UserError("config.data", "a part of the split has no images; give more subjects or other fractions")
        for region in regions:
            _check(region, ndim, channels=regions[0].record.image.shape[-1])
        self.ndim = ndim
        self.dtype = np.result_type(*{r.record.image.dtype for r in regions})
        self.channels = regions[0].record.image.shape[-1]
        self.shapes = [(r.stop - r.start, *r.record.image.shape[1:])[r.record.ndim - ndim:-1] for r in regions]
        self.masked = any("mask" in r.record.extras for r in regions)
        fields, numbers, measured = _extras([r.record for r in regions])
        self._images = [mapped(r.record.image) or r.record.image for r in regions]
        masks = [r.record.extras.get("mask") for r in regions]
        self._masks = [mask if mask is None else mapped(mask) or mask for mask in masks]
        self._fields = {name: [mapped(e[name]) or e[name] for e in (r.record.extras for r in regions)] for name in fields}
        self.numbers = {name: np.stack([r.record.extras[name] for r in regions]) for name in numbers}
        self._measured = {name: [r.record.extras[name] for r in regions] for name in measured}
        self.names = [r.record.id for r in regions]
        self.slopes = np.array([r.record.slope for r in regions], np.float32)
        self.intercepts = np.array([r.record.intercept for r in regions], np.float32)
        self.spacings = np.array([r.record.spacing_mm[-ndim:] or (np.nan,) * ndim for r in regions], np.float32)
        self.starts = np.array([r.start for r in regions])
        self.counts = np.array([r.stop - r.start if r.record.ndim > ndim else 1 for r in regions])
        self._spans = [(r.start, r.stop) for r in regions]

    def image(self, region: int, index: int) -> np.ndarray:
        """Image `index` of a region, `(*space, C)`, a view."""
        return self._view(self._images[region], region, index)

    def mask(self, region: int, index: int) -> np.ndarray | None:
        """Its mask `(*space, 1)` bool, or None where the record has none."""
        mask = self._masks[region]
        return None if mask is None else self._view(mask, region, index)

    def whole(self, region: int, index: int) -> dict[str, np.ndarray]:
        """Image `index` of a region and what lies on its grid, as a batch of one, `(1, *space, C)` each: views."""
        arrays = {"image": self._images[region], **{name: arrays[region] for name, arrays in self._fields.items()}}
        mask = self._masks[region]
        return {name: self._view(array, region, index)[None]
                for name, array in (arrays if mask is None else {**arrays, "mask": mask}).items()}

    def check_whole(self, shape: Sequence[int]) -> None:
        """Raises UserError where boxes of `shape` would cut or pad k-space."""
        if not self._fields.keys() & set(WHOLE):
            return
        for name, size in zip(self.names, self.shapes, strict=True):
            if size != tuple(shape):
                raise UserError(name, f"k-space of {size} can't be cut or padded to {tuple(shape)}; give files of one size, "
                                "--config.data.patch='()', and a first axis that divides over config.mesh.space")

    def empty(self, rows: int, shape: Sequence[int]) -> dict[str, np.ndarray]:
        """Arrays for `image` and every field of a batch, their boxes of `shape`."""
        batch = {"image": np.empty((rows, *shape, self.channels), self.dtype)}
        for name, arrays in self._fields.items():
            dtype = np.result_type(*{a.dtype for a in arrays})
            batch[name] = np.empty((rows, *shape, arrays[0].shape[-1]), dtype)
        return batch

    def copy(self, batch: dict[str, np.ndarray], row: int, place: Place, patch: Sequence[int], first: int = 0) -> None:
        """Fills a row of `batch`, made by `empty`, with a box of size `patch` of an image, or its planes from `first` on."""
        region, index, corner = place
        copy_box(self.image(region, index), corner, batch["image"][row], patch, first)
        for name, arrays in self._fields.items():
            copy_box(self._view(arrays[region], region, index), corner, batch[name][row], patch, first)
        if "mask" in batch:
            copy_mask(self.mask(region, index), self.shapes[region], corner, batch["mask"][row], patch, first)

    def facts(self, places: Sequence[Place]) -> dict[str, np.ndarray]:
        """What a batch knows of its images beside their voxels: scale, id, voxel size, and the records' numbers."""
        which = [region for region, _, _ in places]
        return {
            "slope": self.slopes[which],
            "intercept": self.intercepts[which],
            "id": np.array([sample_id(self.name(*place)) for place in places], np.uint32),
            "spacing_mm": self.spacings[which],
        } | {name: values[which] for name, values in self.numbers.items()} | {
            name: np.stack([np.asarray(arrays[region]) for region in which]) for name, arrays in self._measured.items()}

    def name(self, region: int, index: int, corner: Sequence[int]) -> str:
        """A sample's name: the record's id, the slice, and where the box starts if not at the image's corner."""
        parts = [self.names[region]]
        sliced = self._images[region].ndim - 1 > self.ndim
        if sliced:
            parts.append(f"z{self.starts[region] + index}")
        elif self._spans[region][0]:
            parts.append(f"from{self._spans[region][0]}")
        if any(corner):
            parts.append("at" + ",".join(map(str, corner)))
        return ":".join(parts)

    def _view(self, array: np.ndarray | Stored, region: int, index: int) -> np.ndarray:
        start, stop = self._spans[region]
        return array[start + index] if array.ndim - 1 > self.ndim else array[start:stop]


def sample_id(name: str) -> int:
    """The uint32 that seeds a sample's noise: a hash of its name, the same on every machine."""
    return zlib.crc32(name.encode())


def copy_box(image: np.ndarray, corner: Sequence[int], out: np.ndarray, patch: Sequence[int], first: int = 0) -> None:
    """Copies a box of size `patch` at `corner` of `image` `(*space, C)`, or as many of its planes from `first` on as `out`
    has along the first axis.

    A smaller image lies in the middle of the box, and its edge goes on around it; planes beyond the box repeat its last.
    """
    planes = out.shape[0]
    if first + planes <= patch[0] and all(c + size <= n for c, size, n in zip(corner, patch, image.shape[:-1], strict=True)):
        start = corner[0] + first
        box = image[(slice(start, start + planes), *(slice(c, c + n) for c, n in zip(corner[1:], patch[1:], strict=True)))]
        # A row at a time is a quarter faster than a number at a time.
        a, b = (_rows(out), _rows(box)) if box.dtype == out.dtype else (out, box)
        a[...] = b
        return
    where = [at for at, _ in _indices(image.shape[:-1], corner, patch, first, planes)]
    out[...] = image[np.ix_(*where)]


def copy_mask(mask: np.ndarray | None, shape: Sequence[int], corner: Sequence[int], out: np.ndarray, patch: Sequence[int],
              first: int = 0) -> None:
    """As `copy_box` for a mask of an image of `shape`: False outside the image; without a mask all of it is True."""
    found = _indices(shape, corner, patch, first, out.shape[0])
    inside = functools.reduce(np.logical_and.outer, [valid for _, valid in found])[..., None]
    out[...] = inside if mask is None else inside & mask[np.ix_(*(at for at, _ in found))]


def _indices(shape: Sequence[int], corner: Sequence[int], patch: Sequence[int], first: int,
             planes: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each axis of a box the image's index of every voxel, and whether it lies in the image and in the box."""
    found = []
    for axis, (n, c, p) in enumerate(zip(shape, corner, patch, strict=True)):
        size = min(n - c, p)
        before = (p - size) // 2
        at = np.arange(first, first + planes) if axis == 0 else np.arange(p)
        offset = np.minimum(at, p - 1) - before
        found.append((c + np.clip(offset, 0, size - 1), (offset >= 0) & (offset < size) & (at < p)))
    return found


def _rows(box: np.ndarray) -> np.ndarray:
    """`(*space, C)` as `(..., 1)` rows of bytes, a view."""
    rows = box.reshape(*box.shape[:-2], -1)
    return rows.view((np.void, rows.shape[-1] * rows.itemsize))


def _extras(records: Sequence[Record]) -> tuple[list[str], list[str], list[str]]:
    """The names of what travels with the images: on their grid; as numbers of a record; as measured arrays of another grid
    (sinograms). All records must have the same.
    """
    fields, numbers, measured = [], [], []
    for name, value in records[0].extras.items():
        if name == "mask" or value.dtype.kind not in "biuf":
            continue
        if value.shape[:-1] == records[0].image.shape[:-1]:
            fields.append(name)
        elif value.ndim <= 1:
            numbers.append(name)
        elif value.ndim >= 3:
            measured.append(name)
    for record in records:
        lacking = [name for name in fields + numbers + measured if name not in record.extras]
        if lacking:
            raise UserError(record.id, f"has no {lacking[0]}, but {records[0].id} has; give it for all images or for none")
        for name in measured:
            if record.extras[name].shape != records[0].extras[name].shape:
                raise UserError(record.id, f"its {name} is {record.extras[name].shape}, that of {records[0].id} "
                                f"{records[0].extras[name].shape}; give scans of one size")
    return fields, numbers, measured


def _check(region: Region, ndim: int, channels: int) -> None:
    record = region.record
    if record.ndim < ndim:
        raise UserError("config.data.ndim", f"3, but {record.id} is a 2-D image; set it to 2 or give volumes")
    if record.image.shape[-1] != channels:
        raise UserError("config.data", f"{record.id} has {record.image.shape[-1]} channels, others have {channels}; "
                                       "give images of one kind")
