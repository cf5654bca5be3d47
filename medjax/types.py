"""The contracts that every layer shares: records on the host, batches and examples on the device, the training state."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, dataclass_transform, runtime_checkable

import jax
import numpy as np

Array = jax.Array
Key = jax.Array
Params = Any  # a pytree of arrays
Batch = dict[str, Array]
"""Clean images on the device, as the pipeline streams them.

`image`      `(B, H, W, C)` or `(B, D, H, W, C)`, in the stored dtype
`slope`, `intercept`  `(B,)` float32: units = image * slope + intercept
`id`         `(B,)` uint32, names the sample: it seeds the noise that is put on it
`count`      `(B,)` float32: 1 for a sample, 0 for one that only fills a batch up
and what else the records carry: `mask` `(B, ..., 1)` bool (False where there is no tissue to judge), `label`, …
"""


class UserError(Exception):
    """Something the user gave is wrong; `where` is the file or key. The front doors print it as one line, exit code 2."""

    def __init__(self, where: object, problem: str):
        super().__init__(str(where), problem)  # both are kept, so that it can be sent from a process to another

    def __str__(self) -> str:
        return ": ".join(self.args)


@dataclass(frozen=True)
class Record:
    """One study or image on the host.

    `image` is `(H, W, C)` or `(D, H, W, C)` in its stored dtype; units = image * slope + intercept (HU for CT).
    `spacing_mm` has one entry per spatial axis, in the order of the axes; `affine` maps the array's voxel indices
    (axis order of `image`) to RAS mm where known. `id` names the study in logs and splits, `subject` is what a split
    never divides. `modality` is DICOM's ("CT", "MR", "US", …) and `units` what values are in ("HU"), empty where unknown;
    `contrasts` names the channels of images that hold several ("T1", "FLAIR"). `extras` holds what only some data sets
    have: `mask` (False: padding outside the scanned field), `label`, `kspace`, ….
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


@runtime_checkable
class Format(Protocol):
    """A file format: a module of `medjax/data/formats`, found there by its file alone.

    `SUFFIXES` are lower case with their dot (".nii.gz"; "" where files may have none), `KIND` what its records hold:
    "image", "kspace" or "sinogram".
    """

    SUFFIXES: tuple[str, ...]
    KIND: str

    def accepts(self, path: Path) -> bool:
        """Whether a file with one of the suffixes is of this format; looks inside where several formats share one."""

    def group(self, files: Sequence[Path]) -> list[tuple[tuple[Path, ...], str]]:
        """The files that make one study each, and whose it is ("" where no file says so). Raises UserError."""

    def read(self, paths: Sequence[Path], name: str, subject: str) -> list[Record]:
        """The records of a study: one, or one per frame. Raises UserError that names the file."""


@runtime_checkable
class WritableFormat(Format, Protocol):
    """A format that results are written in, with the header, grid and units of the study they were made from."""

    def write(self, target: Path, images: Sequence[np.ndarray], paths: Sequence[Path]) -> None:
        """`images` `(*space, C)` in physical units, one per record that `read(paths)` gives, with the source's dtype.

        Images of another size keep the field of view. Raises UserError.
        """

    def write_labels(self, target: Path, labels: Sequence[np.ndarray], names: Sequence[str], paths: Sequence[Path]) -> None:
        """Label maps `(*space)` uint8, one per record, on the source's grid; `names` of the classes, background first."""


def static(**kwargs):
    """A dataclass field that is part of a pytree's structure (hashable; a new value means a new compilation)."""
    return field(metadata={"static": True}, **kwargs)


@dataclass_transform(frozen_default=True, field_specifiers=(static,))
def pytree(cls):
    """A frozen dataclass whose fields are leaves of a pytree, but for those made with `static()`."""
    cls = dataclass(frozen=True)(cls)
    static_names = [f.name for f in dataclasses.fields(cls) if f.metadata.get("static")]
    leaves = [f.name for f in dataclasses.fields(cls) if not f.metadata.get("static")]
    return jax.tree_util.register_dataclass(cls, data_fields=leaves, meta_fields=static_names)


@pytree
class Example:
    """What a network is asked: from `input` make `target`; judge where `mask` is true; `context` is extra input."""

    input: Any
    target: Any
    mask: Any = None
    context: Any = None


@pytree
class State:
    """Everything a training run is, between two steps: one pytree, saved and restored whole."""

    step: Array
    params: dict[str, Params]
    variables: dict[str, Params]
    opt_state: dict[str, Any]
    ema: Params
    key: Key
