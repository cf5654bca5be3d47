"""Images on the host: records, and the regions of them that a split hands out."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np


@dataclass(frozen=True)
class Record:
    """One study or image on the host.

    `image` is `(H, W, C)` or `(D, H, W, C)` in its stored dtype; units = image * slope + intercept (HU for CT).
    `spacing_mm` has one entry per spatial axis, in the order of the axes; `affine` maps the array's voxel indices
    (axis order of `image`) to RAS mm where known. `id` names the study in logs and splits, `subject` is what a split
    never divides. `modality` is DICOM's ("CT", "MR", "US", …) and `units` what values are in ("HU"), empty where unknown;
    `contrasts` names the channels of images that hold several ("T1", "FLAIR"). `series` is what the files call the series,
    free text that may name a patient: for the screen, and written nowhere. `extras` holds what only some data sets have:
    `mask` (False: padding outside the scanned field), `label`, `kspace`, ….
    """

    image: np.ndarray
    id: str
    subject: str
    slope: float = 1.0
    intercept: float = 0.0
    spacing_mm: tuple[float, ...] = ()
    affine: np.ndarray | None = None
    modality: str = ""
    units: str = ""
    contrasts: tuple[str, ...] = ()
    series: str = ""
    extras: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def ndim(self) -> int:
        """Number of spatial axes: 2 or 3."""
        return self.image.ndim - 1

    def in_units(self, index: Any = ...) -> np.ndarray:
        """`image[index]` in physical units, `image * slope + intercept`, float32."""
        stored = np.asarray(self.image[index])
        exact = np.float64 if stored.dtype.kind in "iu" and stored.dtype.itemsize > 2 else np.float32
        values = np.array(stored, exact)
        np.multiply(values, self.slope, out=values)
        np.add(values, self.intercept, out=values)
        return values.astype(np.float32, copy=False)


@dataclass(frozen=True)
class Derivation:
    """What made a result from its source, for the headers of formats that say so: all of it free text, "" where unknown.

    `description` is what was done ("Noise reduced"), `algorithm` the task and network, `version` theirs, `identity` what
    names the trained parameters without doubt (a hash of the checkpoint).
    """

    description: str = ""
    algorithm: str = ""
    version: str = ""
    identity: str = ""

    @property
    def means(self) -> str:
        """Algorithm, version and identity, as far as they are known."""
        return ", ".join(part for part in (self.algorithm, self.version, self.identity) if part)

    @property
    def text(self) -> str:
        """All of it in one line, "" where nothing is known."""
        return f"{self.description} ({self.means})" if self.description and self.means else self.description or self.means


UNSAID = Derivation()
"""Of results about whose making nothing is said."""


@dataclass(frozen=True)
class Region:
    """A record, or the rows `[start, stop)` of its first axis: what a split hands out."""

    record: Record
    start: int
    stop: int

    @classmethod
    def whole(cls, record: Record) -> "Region":
        """All of a record."""
        return cls(record, 0, record.image.shape[0])

    @property
    def image(self) -> np.ndarray:
        """`(stop - start, ..., C)`, stored dtype, a view."""
        return self.record.image[self.start:self.stop]

    @property
    def mask(self) -> np.ndarray | None:
        """`(stop - start, ..., 1)` bool, or None where the record has none."""
        mask = self.record.extras.get("mask")
        return None if mask is None else mask[self.start:self.stop]


Units: TypeAlias = Callable[[np.ndarray], np.ndarray]
"""Values in other units."""

Splits: TypeAlias = dict[str, list[Region]]
"""The regions of "train", "val" and "test"."""
