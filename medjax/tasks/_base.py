"""What all tasks share: unit range, masks, random numbers by sample, and what most of them answer alike."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from medjax.measures.summary import mean_of_numbers
from medjax.ops.resample import nearest
from medjax.types import (
    Array,
    Batch,
    Example,
    Key,
    Metric,
    NetworkInput,
    Operator,
    Output,
    Port,
    Prediction,
    Record,
    Reference,
    Splits,
    UserError,
    Value,
)


@dataclass(frozen=True)
class TaskBase:
    """A task on images in unit range: `data_range` (low, high), in physical units and fixed for a run, goes to 0 … 1.

    Subclasses say what measured data is to a network (`input`) and what it is to learn (`example`).
    """

    data_range: tuple[float, float]
    ndim: int


    kind = "image"
    tileable = True
    keeps_format = False


    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the images that make one input."""
        return ("image",)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """None."""
        return ()

    @property
    def scale(self) -> tuple[int, ...]:
        """How many target voxels there are for an input voxel, per spatial axis."""
        return (1,) * self.ndim

    @property
    def input_ndim(self) -> int:
        """The number of spatial axes of what `input` takes."""
        return self.ndim

    def out_channels(self, channels: int) -> int:
        """How many channels the network makes of images with `channels`."""
        return channels

    def resolve_from_data(self, splits: Splits) -> dict[str, object]:
        """Config values of the task that follow from the data. Raises UserError where the data doesn't fit the task."""
        return {}

    def input(self, batch: Batch) -> NetworkInput:
        """The images in unit range."""
        return NetworkInput(self.unit(batch)[0])

    if TYPE_CHECKING:  # defined by subclasses alone: one that lacks it is named when it is built
        def example(self, key: Key, batch: Batch) -> Example: ...

    def evaluation_example(self, key: Key, batch: Batch) -> Example:
        """As `example`."""
        return self.example(key, batch)

    def summarise(self, samples: Sequence[Mapping[str, Value]]) -> dict[str, Value]:
        """The means of the samples' metrics, over those that are a number."""
        return {name: mean_of_numbers([sample[name] for sample in samples]) for name in samples[0]}

    def references(self) -> dict[str, Reference]:
        """None."""
        return {}

    def on_target_grid(self, image: Array) -> Array:
        """The input image as it is."""
        return image

    def arrange(self, records: Sequence[Record]) -> list[Record]:
        """The records of a study as the task takes them: as they are."""
        return list(records)

    def operators(self, record: Record) -> Operator | None:
        """None: the task knows its own operator, or needs none."""
        return None

    def outputs(self, predictions: Sequence[Prediction], records: Sequence[Record]) -> list[Output]:
        """Nothing can be written: raises UserError."""
        raise UserError("--workdir", f"a run of {type(self).__name__} makes nothing of a file")

    def exported_inputs(self, channels: int, size: Sequence[int | str]) -> tuple[Port, ...]:
        """The image; several images that make one input are its channels."""
        names = self.inputs if self.inputs[0] != "image" else ()
        return (Port("image", (*size, len(names) or channels), "image in physical units", "{units}", tuple(names),
                     self._random_image),)

    def _random_image(self, random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return random.uniform(*self.data_range, shape)

    def exported_output(self, channels: int) -> Port:
        """Nothing can be exported: raises UserError."""
        raise UserError("--workdir", f"a run of {type(self).__name__} can't be exported: its result is no array that one "
                        "input alone gives")

    def exported(self, pred: Prediction, batch: Batch) -> Array:
        """The prediction's image in physical units."""
        low, high = self.data_range
        return pred.image * (high - low) + low

    def unit(self, batch: Batch) -> tuple[Array, Array]:
        """The batch's images in unit range, and the mask of voxels that count, `(B, *space, 1)`."""
        row = (slice(None),) + (None,) * (batch["image"].ndim - 1)
        units = batch["image"].astype(jnp.float32) * batch["slope"][row] + batch["intercept"][row]
        low, high = self.data_range
        counts = jnp.broadcast_to(batch["count"][row] > 0, (*units.shape[:-1], 1))
        return (units - low) / (high - low), counts & batch["mask"] if "mask" in batch else counts

    def in_units(self, image: np.ndarray | Array) -> np.ndarray:
        """Unit range in physical units."""
        return self.into_units(np.array(image, np.float32))

    def into_units(self, image: np.ndarray | Array) -> np.ndarray:
        """As `in_units`, in the array's own place where it may be written to: volumes are large."""
        low, high = self.data_range
        units = np.require(image, np.float32, "W")
        units *= np.float32(high - low)
        units += np.float32(low)
        return units

    def with_image(self, batch: Batch, unit: Array) -> dict[str, Array]:
        """The batch as if `unit`, images in unit range, had been measured; a mask of another grid is left out."""
        low, high = self.data_range
        rows = jnp.ones(unit.shape[0], jnp.float32)
        kept = {name: array for name, array in batch.items()
                if name != "mask" or array.shape[:-1] == unit.shape[:-1]}
        return kept | {"image": unit, "slope": rows * (high - low), "intercept": rows * low}

    def example_of(self, batch: Batch, given: NetworkInput, target: Array, mask: Array, **extras: Array) -> Example:
        """The example of a batch, with its samples' ids and voxel sizes."""
        return Example(given, target, mask, batch["id"], spacing_of(batch, self.ndim), extras)

    def keys(self, key: Key, batch: Batch) -> Key:
        """A key for each sample, from its id: whatever the order and the number of devices, the same."""
        return jax.vmap(jax.random.fold_in, (None, 0))(key, batch["id"])

    def per_sample(self, key: Key, batch: Batch, fn: Callable[[Key, Array], Array], images: Array) -> Array:
        """`fn(key, image)` on every image, with the sample's own key."""
        return jax.vmap(fn)(self.keys(key, batch), images)


def whole_sizes(size: Sequence[int | str], why: str) -> tuple[int, ...]:
    """The sizes of an image that a program is exported for. Raises UserError, with the reason, for those that are free."""
    sizes = tuple(n for n in size if isinstance(n, int))
    if len(sizes) != len(size):
        raise UserError("--size", f"is needed, for {why}: give the sizes of the image, e.g. --size=256,256")
    return sizes


def spacing_of(batch: Batch, ndim: int) -> Array:
    """The voxel sizes `(B, ndim)` in mm, NaN where unknown."""
    if "spacing_mm" not in batch:
        return jnp.full((batch["image"].shape[0], ndim), jnp.nan)
    return batch["spacing_mm"][:, -ndim:].astype(jnp.float32)


def check_spacing(splits: Splits, why: str, some: bool = False) -> bool:
    """Whether the records' voxel sizes are known.

    Raises UserError where a record has none; with `some` only where others have one.
    """
    records = [region.record for regions in splits.values() for region in regions]
    lacking = [record for record in records if not record.spacing_mm]
    if lacking and not (some and len(lacking) == len(records)):
        raise UserError("config.data.spacing_mm", f"{lacking[0].id} has no voxel size, which {why}; give it for images that "
                        "have none, e.g. --config.data.spacing_mm='(0.8,0.8)'")
    return not lacking


def on_coarser_grid(example: Example, factors: Sequence[int]) -> Example:
    """The example on a grid that is `factors` times coarser, each voxel the nearest one (as nnU-Net's labels).

    Sizes are rounded up, and what lies beyond the edge does not count. The input image comes along where it has the
    target's grid, the context stays.
    """
    image, same = example.input.image, example.input.image.shape[:-1] == example.target.shape[:-1]
    given = replace(example.input, image=nearest(image, factors) if same else image)
    return replace(example, input=given, target=nearest(example.target, factors), mask=nearest(example.mask, factors))


def draw(key: Key, bounds: tuple[float, float]) -> Array:
    """A strength between the bounds; equal bounds fix it."""
    return jax.random.uniform(key, (), minval=bounds[0], maxval=bounds[1])


def check_shape(pred: Array, target: Array) -> None:
    """Raises UserError where a model's output is of another kind than the task's target."""
    if pred.shape != target.shape:
        kind, wanted = ("x".join(map(str, array.shape[1:])) for array in (pred, target))
        raise UserError("config.model.name", f"the model gives {kind} for a sample where the task has {wanted}; classifiers "
                        "give one vector for an image, other models an image")
