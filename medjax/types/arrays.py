"""Images on the device: batches, examples, predictions, means, operators; and the training state.

`B` is the batch, `*space` one, two or three spatial axes, `C` channels.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, dataclass_transform, runtime_checkable

import jax

Array = jax.Array
Key = jax.Array
Tree: TypeAlias = Any  # a pytree: JAX has no narrower type for one
Params: TypeAlias = dict[str, Tree]
Variables: TypeAlias = dict[str, Tree]
Batch: TypeAlias = Mapping[str, Array]
"""Images on the device, as the pipeline streams them.

`image`      `(B, *space, C)`, in the stored dtype
`slope`, `intercept`  `(B,)` float32: units = image * slope + intercept
`id`         `(B,)` uint32, names the sample: it seeds whatever is random about it
`count`      `(B,)` float32: 1 for a sample, 0 for one that only fills a batch up
`spacing_mm` `(B, n)` float32, the voxel size along each spatial axis; NaN where unknown
and what else the records carry: `mask` `(B, *space, 1)` bool (False where nothing is to be counted), `label`, `kspace`, …;
`operator`, a pytree of arrays, where the images were measured by one
"""


def static(**kwargs: Any) -> Any:
    """A dataclass field that is part of a pytree's structure (hashable; a new value means a new compilation)."""
    return field(metadata={"static": True}, **kwargs)


@dataclass_transform(frozen_default=True, field_specifiers=(static,))
def pytree(cls: type) -> Any:
    """A frozen dataclass whose fields are leaves of a pytree, but for those made with `static()`."""
    cls = dataclass(frozen=True)(cls)
    cls.__no_type_check__ = True  # type: ignore[attr-defined]  # JAX makes them of placeholders, too
    static_names = [f.name for f in dataclasses.fields(cls) if f.metadata.get("static")]
    leaves = [f.name for f in dataclasses.fields(cls) if not f.metadata.get("static")]
    return jax.tree_util.register_dataclass(cls, data_fields=leaves, meta_fields=static_names)


@runtime_checkable
class Operator(Protocol):
    """A linear forward model `y = A(x)` of a scanner; images are `(B, *space, C)`, of norm about 1 where networks use it.

    Implementations are frozen dataclass pytrees: tables, maps and masks are leaves, geometry is static.
    """

    def __call__(self, x: Array) -> Array:
        """What the scanner measures of the image `x`."""

    def adjoint(self, y: Array) -> Array:
        """The exact transpose (conjugate transpose for complex data)."""

    def init(self, y: Array) -> Array:
        """A first image from the measurement, the network's input: FBP, zero-filled, interpolated."""


@pytree
class Measurement:
    """What was measured of an image: `y`, by `operator`; `coils` `(B, coils, *space)` are MRI's low-resolution images."""

    operator: Operator
    y: Array
    coils: Array | None = None


Context: TypeAlias = Measurement | Array | None
"""What a network may know beside its input image: a measurement, or `(B, *space, 0)`, whose shape is the grid to fill."""


@pytree
class NetworkInput:
    """What a network is given: `image` `(B, *space, C)` in unit range, and the `context`."""

    image: Array
    context: Context = None


@pytree
class Example:
    """An input with its target: from `input` make `target`; only where `mask` `(B, *space, 1)` is true does it count.

    `ids` `(B,)` uint32 seed what is random about a sample; `spacing_mm` `(B, n)` is NaN where unknown. `extras` holds what
    else is known of the truth (the voxels of a planted lesion).
    """

    input: NetworkInput
    target: Array
    mask: Array
    ids: Array
    spacing_mm: Array
    extras: Mapping[str, Array] = field(default_factory=dict)


@pytree
class Prediction:
    """What a method makes of an input: `image` `(B, *space, C)` (logits, displacements, … as the task says).

    `std` is its standard deviation where the method gives one; `samples` `(S, B, *space, C)` are draws.
    """

    image: Array
    std: Array | None = None
    samples: Array | None = None
    extras: Mapping[str, Array] = field(default_factory=dict)


@pytree
class CoarseOutput:
    """What a network makes of an input on a grid that is `factors` times coarser along each axis of space.

    `image` `(B, *coarse, C)`, whose sizes are those of the target over the factors, rounded up.
    """

    image: Array
    factors: tuple[int, ...] = static()


@pytree
class Mean:
    """A mean that adds up: `total` over what counts, and how much that is. What is padded is in neither."""

    total: Array
    count: Array

    @property
    def value(self) -> Array:
        """The mean; 0 where nothing counts."""
        return self.total / jax.numpy.where(self.count > 0, self.count, 1)

    def times(self, weight: float) -> "Mean":
        """The mean of `weight` times the values."""
        return Mean(self.total * weight, self.count)


@pytree
class State:
    """Everything a training run is, between two steps: one pytree, saved and restored whole.

    `params`, `variables` (batch statistics, …) and `opt_state` are by player; `ema` has the averaged params and variables
    of the players that predict, and nothing where none are averaged.
    """

    step: Array
    params: dict[str, Params]
    variables: dict[str, Variables]
    opt_state: dict[str, Tree]
    ema: dict[str, dict[str, Tree]]
    key: Key

    def for_use(self) -> tuple[dict[str, Params], dict[str, Variables]]:
        """The params and variables to predict with: the averaged ones where there are any."""
        averaged = {player: found["params"] for player, found in self.ema.items()}
        variables = {player: self.variables[player] | found["variables"] for player, found in self.ema.items()}
        return self.params | averaged, self.variables | variables
