"""What every restoration task shares: units, losses, metrics, and judging only what counts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from medjax.data.split import Splits
from medjax.measures import image_quality, losses
from medjax.types import Array, Batch, Example, Key, UserError

Baseline = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Restoration:
    """From a degraded image make the clean one.

    Networks see images in unit range: `data_range` (low, high), in physical units and fixed for a run, goes to 0 … 1.
    Subclasses say how an image is degraded and what classical methods make of it.
    """

    data_range: tuple[float, float]
    ndim: int

    @property
    def scale(self) -> tuple[int, ...]:
        """How many target voxels there are for an input voxel, per spatial axis."""
        return (1,) * self.ndim

    def outputs(self, channels: int) -> int:
        """How many channels the network makes of images with `channels`."""
        return channels

    def settled(self, splits: Splits) -> dict[str, Any]:
        """Config values of the task that follow from the data. Raises UserError where the data doesn't fit the task."""
        return {}

    def trial(self, key: Key, batch: Batch) -> Example:
        """The example that a model is judged on, where that is not what it learns from."""
        return self.example(key, batch)

    def clean(self, batch: Batch) -> tuple[Array, Array]:
        """The batch's images in unit range, and the mask of voxels that count, `(B, *space, 1)`."""
        row = (slice(None),) + (None,) * (batch["image"].ndim - 1)
        units = batch["image"].astype(jnp.float32) * batch["slope"][row] + batch["intercept"][row]
        low, high = self.data_range
        counts = jnp.broadcast_to(batch["count"][row] > 0, (*units.shape[:-1], 1))
        return (units - low) / (high - low), counts & batch["mask"] if "mask" in batch else counts

    def per_sample(self, key: Key, batch: Batch, fn: Callable[[Key, Array], Array], images: Array) -> Array:
        """`fn(key, image)` on every image, keyed by the sample's id: whatever the device count or order, the same."""
        return jax.vmap(lambda i, image: fn(jax.random.fold_in(key, i), image))(batch["id"], images)

    def losses(self, pred: Array, example: Example) -> dict[str, Array]:
        """Every loss a restoration may be trained on; what the objective does not use is never computed under jit.

        SSIM is among them where its window fits in the patch.
        """
        check_shape(pred, example.target)
        return {name: fn(pred, example.target, example.mask) for name, fn in losses.RESTORATION.items()
                if name != "ssim" or image_quality.ssim_fits(pred)}

    def metrics(self, pred: Array, example: Example) -> dict[str, Array]:
        """Per-sample PSNR (dB), SSIM, NMSE and MSE (squared physical units), judged in physical units."""
        low, high = self.data_range
        pred, target = (image * (high - low) + low for image in (pred, example.target))
        return {
            "psnr": image_quality.psnr(pred, target, high - low, example.mask),
            "ssim": image_quality.ssim(pred, target, high - low, example.mask),
            "nmse": image_quality.nmse(pred, target, example.mask),
            "mse": image_quality.mse(pred, target, example.mask),
        }

    def summary(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """A data set's metrics from those of its samples: their means. What is no number is a table, shown apart."""
        return {name: float(np.mean([sample[name] for sample in samples])) for name in samples[0]}

    def answers(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """What the model is compared with, for one input: the input as it is, and every baseline's answer."""
        return {"input": np.asarray(self.show(x[None])[0])} | {name: fn(x) for name, fn in self.baselines().items()}

    def compared(self, example: Example) -> dict[str, np.ndarray]:
        """`answers` to one example, for tasks whose classical methods need more than the input."""
        return self.answers(np.asarray(example.input))

    def pictures(self, example: Example, answers: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Answers to one example ("input", baselines, "model") and the truth, as images to look at, in physical units."""
        low, high = self.data_range
        return {row: np.asarray(image) * (high - low) + low for row, image in {**answers, "truth": example.target}.items()}

    def show(self, x: Array) -> Array:
        """The input on the target's grid: what a reader compares with."""
        return x


def check_shape(pred: Array, target: Array) -> None:
    """Raises UserError where a model's answer is of another kind than the task's target."""
    if pred.shape != target.shape:
        kind, wanted = ("x".join(map(str, array.shape[1:])) for array in (pred, target))
        raise UserError("config.model.name", f"the model gives {kind} for a sample where the task has {wanted}; classifiers "
                        "give one answer for an image, other models an image")


def draw(key: Key, bounds: tuple[float, float]) -> Array:
    """A strength between the bounds; equal bounds fix it."""
    return jax.random.uniform(key, (), minval=bounds[0], maxval=bounds[1])
