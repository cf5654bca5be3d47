"""Registration: the displacement that brings one image of a subject onto another, learned on known deformations."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from medjax.classical._declared import by_sample, methods
from medjax.data.outputs import NiftiOutput, numbered
from medjax.measures import regions
from medjax.measures.losses import differences, masked_mean, mean_of
from medjax.ops.displacement import integrate, jacobian_determinant, warp
from medjax.ops.separable import correlate_axis
from medjax.tasks._base import TaskBase, check_spacing
from medjax.tasks._contrasts import channel_names, check_names
from medjax.types import (
    Array,
    Batch,
    Example,
    Key,
    Mean,
    Metric,
    Output,
    Port,
    Prediction,
    Record,
    Reference,
    Splits,
)

WINDOW = 9


@dataclass(frozen=True)
class Register(TaskBase):
    """The displacement field (voxels) that brings a moving image onto a fixed one.

    The moving image is the contrast `moving` (the first, if empty) of the fixed image's subject, turned by up to `turn`
    degrees about each axis, shifted by up to `shift` voxels and bent by a smooth random velocity of about `bend` voxels
    that varies over `period` voxels. So the true displacement is known; it is used to evaluate, and to learn from only with
    the loss "supervised". `contrasts` is filled from the data.
    """

    fixed: str = ""
    moving: str = ""
    turn: float = 5.0
    shift: float = 3.0
    bend: float = 2.0
    period: int = 16
    contrasts: tuple[str, ...] = ()

    inputs = ("moving", "fixed")
    tileable = False
    metrics = (Metric("registration_error", unit="{length}", lower_is_better=True),
               Metric("folds", unit="%", lower_is_better=True), Metric("correlation", "local correlation", decimals=4))

    def out_channels(self, channels: int) -> int:
        """A displacement along every axis."""
        return self.ndim

    def resolve_from_data(self, splits: Splits) -> dict[str, object]:
        """The contrasts' names. Raises UserError where a contrast is not there, or some voxel sizes are not known."""
        names = channel_names(splits)
        check_names("config.task", [name for name in (self.fixed, self.moving) if name] or names, names)
        check_spacing(splits, "distances in mm need", some=True)
        return {"contrasts": names}

    def example(self, key: Key, batch: Batch) -> Example:
        """Moving and fixed image, stacked, to the displacement in voxels."""
        image, mask = self.unit(batch)
        fixed, still = (self._contrast(image, name) for name in (self.fixed, self.moving))
        velocity = self.per_sample(key, batch, self._velocity, fixed)
        moving = warp(still, integrate(-velocity))
        given = self.input(self.with_image(batch, jnp.concatenate([moving, fixed], -1)))
        return self.example_of(batch, given, integrate(velocity), mask)

    def _contrast(self, image: Array, name: str) -> Array:
        at = self.contrasts.index(name) if name else 0
        return image[..., at:at + 1]

    def _velocity(self, key: Key, image: Array) -> Array:
        """A random turn, shift and bend of an image `(*space, 1)`, as a stationary velocity `(*space, n)` in voxels."""
        n, space = self.ndim, image.shape[:-1]
        turn_key, shift_key, bend_key = jax.random.split(key, 3)
        angles = jnp.deg2rad(self.turn) * jax.random.uniform(turn_key, (n, n), minval=-1)
        generator = jnp.triu(angles, 1) - jnp.triu(angles, 1).T
        grid = jnp.stack(jnp.meshgrid(*(jnp.arange(s) - (s - 1) / 2 for s in space), indexing="ij"), -1)
        shift = self.shift * jax.random.uniform(shift_key, (n,), minval=-1)
        coarse = tuple(-(-s // self.period) + 1 for s in space)
        bend = jax.image.resize(self.bend * jax.random.normal(bend_key, (*coarse, n)), (*space, n), "cubic")
        return jnp.matmul(grid, generator.T, precision="highest") + shift.reshape((1,) * n + (n,)) + bend

    def losses(self, pred: Array, example: Example) -> dict[str, Mean]:
        """Between the warped and the fixed image "mse" or "ncc" (1 - squared local correlation: contrasts may differ);
        "smooth", the displacement's mean squared differences; "supervised", its mean distance from the true one in voxels.
        """
        moving, fixed = example.input.image[..., :1], example.input.image[..., 1:2]
        warped = warp(moving, pred)
        correlation, whole = local_correlation(warped, fixed, example.mask)
        distance = jnp.sqrt(jnp.square(pred - example.target).sum(-1, keepdims=True) + 1e-6)
        return {"mse": masked_mean(jnp.square(warped - fixed), example.mask),
                "ncc": masked_mean(1 - correlation, whole),
                "smooth": mean_of(*(masked_mean(jnp.square(d), both) for d, both in differences(pred, example.mask))),
                "supervised": masked_mean(distance, example.mask)}

    def measure(self, pred: Prediction, example: Example) -> dict[str, Array]:
        """Per sample: the mean distance from the true displacement in mm (in voxels where their size is not known), on
        tissue (a tenth of the range or more); the part of voxels in % where space folds; the local correlation of the
        warped and the fixed image. NaN for images without tissue.
        """
        moving, fixed = example.input.image[..., :1], example.input.image[..., 1:2]
        tissue = example.mask & (fixed > 0.1)
        spacing = jnp.where(jnp.isnan(example.spacing_mm), 1.0, example.spacing_mm)
        spacing = spacing.reshape(-1, *(1,) * self.ndim, self.ndim)
        distance = jnp.sqrt(jnp.square((pred.image - example.target) * spacing).sum(-1, keepdims=True))
        folded = (jacobian_determinant(pred.image) <= 0)[..., None]
        correlation, whole = local_correlation(warp(moving, pred.image), fixed, example.mask)
        return {"registration_error": _sample_means(distance, tissue),
                "folds": 100 * _sample_means(folded.astype(jnp.float32), _inner(example.mask)),
                "correlation": _sample_means(correlation, whole & tissue.any(tuple(range(1, tissue.ndim)), keepdims=True))}

    def references(self) -> dict[str, Reference]:
        """No displacement, and registration without training."""
        def of_pair(register: Callable[..., np.ndarray]) -> Callable[[np.ndarray, float], np.ndarray]:
            return lambda x, strength: register(x[..., 1], x[..., 0], strength)

        found = {name: Reference(by_sample(of_pair(fn)), strengths)
                 for name, (fn, strengths) in methods("register").items() if self.ndim == 2 or name != "tvl1"}
        return {"input": Reference(lambda example, _: jnp.zeros_like(example.target))} | found

    def render(self, example: Example, predictions: Mapping[str, Prediction]) -> dict[str, np.ndarray]:
        """The moving image, as every displacement warps it, and the fixed one."""
        moving = jnp.asarray(example.input.image)[None, ..., :1]
        images = {row: warp(moving, jnp.asarray(pred.image)[None])[0] for row, pred in predictions.items()}
        return {row: self.in_units(image) for row, image in {**images, "truth": example.input.image[..., 1:2]}.items()}

    def exported_output(self, channels: int) -> Port:
        """The displacement field."""
        return Port("displacement", (), "displacement from each voxel of the fixed image to its place in the moving one, "
                    "along the array's axes", "voxels", tuple("dhw"[-self.ndim:]))

    def exported(self, pred: Prediction, batch: Batch) -> Array:
        """The displacement field in voxels."""
        return pred.image

    def outputs(self, predictions: Sequence[Prediction], records: Sequence[Record]) -> list[Output]:
        """The moving image on the fixed one's grid, and the displacement field: vectors in mm along the file's axes (LPS,
        as ITK and ANTs have them) from each voxel of the fixed image to its place in the moving one.
        """
        found: list[Output] = []
        for i, (pred, record) in enumerate(zip(predictions, records, strict=True)):
            moving, displacement = jnp.asarray(record.in_units((..., slice(0, 1)))), jnp.asarray(pred.image)
            if self.ndim == record.ndim:
                warped = np.asarray(warp(moving[None], displacement[None])[0])
            else:  # slice by slice
                warped = np.asarray(warp(moving, displacement))
            field = _in_mm(np.asarray(pred.image), record)
            found += [NiftiOutput(warped, record, numbered("warped", i, len(records))),
                      NiftiOutput(field, record, numbered("displacement", i, len(records)), vectors=True)]
        return found


def local_correlation(one: Array, other: Array, mask: Array | None = None) -> tuple[Array, Array]:
    """The squared correlation of two images `(B, *space, 1)` in windows of 9 voxels (Avants et al., 2008), 0 … 1, and which
    of the windows lie wholly inside the mask.
    """
    def mean(x: Array) -> Array:
        for axis in range(1, x.ndim - 1):
            size = min(WINDOW, x.shape[axis])
            x = correlate_axis(x, jnp.full((size,), 1 / size), axis)
        return x

    m1, m2 = mean(one), mean(other)
    covariance = mean(one * other) - m1 * m2
    variances = (mean(one**2) - m1**2) * (mean(other**2) - m2**2)
    share = mean(jnp.ones_like(one) if mask is None else mask.astype(one.dtype))
    return jnp.square(covariance) / (variances + 1e-5), share > 1 - 0.5 / WINDOW ** (one.ndim - 2)


def _sample_means(values: Array, counts: Array) -> Array:
    axes = tuple(range(1, values.ndim))
    return jnp.where(counts.any(axes), jnp.where(counts, values, 0).sum(axes) / jnp.maximum(counts.sum(axes), 1), jnp.nan)


def _inner(mask: Array) -> Array:
    """Voxels of the mask that have all neighbours across a face in it."""
    return mask & ~jax.vmap(regions.surface)(mask[..., 0])[..., None]


def _in_mm(displacement: np.ndarray, record: Record) -> np.ndarray:
    """Voxels along the array's axes as mm along them; slices of a volume, registered one by one, stay in their plane."""
    lacking = record.ndim - displacement.shape[-1]
    whole = np.pad(displacement, [(0, 0)] * record.ndim + [(lacking, 0)])
    return (whole * np.asarray(record.spacing_mm or (1.0,) * record.ndim)).astype(np.float32)
