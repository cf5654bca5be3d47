"""The contracts every floor shares: records on the host, batches and examples on the device, the training state."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, dataclass_transform

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
    never divides. `extras` holds what only some data sets have: `mask` (False: padding outside the scanned field),
    `label`, `kspace`, ….
    """

    image: np.ndarray
    id: str
    subject: str
    slope: float = 1.0
    intercept: float = 0.0
    spacing_mm: tuple[float, ...] = ()
    affine: np.ndarray | None = None
    modality: str = ""
    extras: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def ndim(self) -> int:
        """Number of spatial axes: 2 or 3."""
        return self.image.ndim - 1


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
