"""Anomaly maps: a network that has learned healthy images only shows what it can't make."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from medjax.classical._declared import by_sample, grid
from medjax.data.outputs import NiftiOutput, RowOutput, numbered
from medjax.measures import classification
from medjax.ops.separable import correlate_axis, gaussian_taps, pad_axis
from medjax.tasks._base import draw
from medjax.tasks._restoration import Restoration
from medjax.types import (
    Array,
    Batch,
    Example,
    Key,
    Metric,
    Output,
    Port,
    Prediction,
    Record,
    Reference,
    UserError,
    check_bounds,
)

TISSUE = 0.15  # lesions lie where images are brighter than this, in unit range
SMOOTHING = 1.5  # voxels; anomaly maps are smoothed by a Gaussian of this width
RADIUS = 4  # voxels; where the Gaussian is cut off


@dataclass(frozen=True)
class Anomaly(Restoration):
    """From an image make the healthy one; the anomaly map is how far the two differ.

    It learns from images as they are, with Gaussian noise of `sigma` (denoising autoencoder, Vincent et al., 2008) that is
    alike over about `grain` voxels: coarse noise makes it restore what looks like a lesion (Kascenas et al., 2022). It is
    evaluated on the same images with a lesion planted in each: an ellipsoid with a soft edge, half axes of `radius` voxels
    and brighter or darker than its surroundings by `contrast`, both drawn between bounds, in unit range.
    """

    sigma: float = 0.2
    grain: int = 16
    radius: tuple[float, float] = (4.0, 9.0)
    contrast: tuple[float, float] = (0.25, 0.5)

    keeps_format = False
    tileable = False
    has_intervals = False

    def __post_init__(self) -> None:
        check_bounds("config.task.radius", self.radius)
        check_bounds("config.task.contrast", self.contrast)
        if self.grain < 1:
            raise UserError("config.task.grain", f"{self.grain}; give a number of voxels of at least 1")

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """How well lesions are found, and how well the healthy image is made."""
        return (classification.AUROC, *super().metrics)

    def simulate(self, key: Key, batch: Batch, clean: Array) -> Batch:
        """Noisy healthy images."""
        if not self.sigma:
            return self.with_image(batch, clean)
        noisy = self.per_sample(key, batch, lambda k, x: x + self._noise(k, x.shape) * (x > 0), clean)
        return self.with_image(batch, noisy)

    def evaluation_example(self, key: Key, batch: Batch) -> Example:
        """Images with a planted lesion to healthy ones; the extras have the lesions' voxels."""
        clean, mask = self.unit(batch)
        sick, lesion = jax.vmap(self._plant)(self.keys(key, batch), clean, mask)
        return self.example_of(batch, self.input(self.with_image(batch, sick)), clean, mask, lesion=lesion)

    def _noise(self, key: Key, shape: tuple[int, ...]) -> Array:
        """Noise for one image: drawn on a grid `grain` times coarser, at a random place on it, and interpolated."""
        noise_key, place_key = jax.random.split(key)
        space = shape[:-1]
        coarse = jax.random.normal(noise_key, (*(-(-n // self.grain) + 1 for n in space), shape[-1]))
        fine = jax.image.resize(coarse, (*(n * self.grain for n in coarse.shape[:-1]), shape[-1]), "linear")
        start = jax.random.randint(place_key, (len(space),), 0, self.grain)
        return self.sigma * jax.lax.dynamic_slice(fine, (*start, 0), shape)

    def _plant(self, key: Key, image: Array, mask: Array) -> tuple[Array, Array]:
        """One image with a lesion in tissue, and where it is, `(*space, 1)` bool."""
        place_key, size_key, contrast_key, sign_key = jax.random.split(key, 4)
        tissue = (image.mean(-1) > TISSUE) & mask[..., 0]
        at = jnp.unravel_index(jax.random.categorical(place_key, jnp.where(tissue, 0.0, -1e9).reshape(-1)), tissue.shape)
        radii = jax.random.uniform(size_key, (self.ndim,), minval=self.radius[0], maxval=self.radius[1])
        squared = jnp.zeros(tissue.shape)
        for axis in range(self.ndim):
            place = jnp.arange(tissue.shape[axis]) - at[axis]
            squared += jnp.square(place / radii[axis]).reshape([-1 if a == axis else 1 for a in range(self.ndim)])
        share = jax.nn.sigmoid((1 - jnp.sqrt(squared)) * 8)[..., None]
        sign = jnp.where(jax.random.bernoulli(sign_key), 1.0, -1.0)
        sick = jnp.maximum(image + sign * draw(contrast_key, self.contrast) * share, 0)
        return sick, (share > 0.5) & mask

    def map(self, image: Array, healthy: Array, mask: Array | None = None) -> Array:
        """How far an image is from its healthy version, `(B, *space, 1)`: mean over channels, smoothed within the mask."""
        change = jnp.abs(image - healthy).mean(-1, keepdims=True)
        counts = jnp.ones_like(change) if mask is None else mask.astype(change.dtype)
        return _smooth(change * counts) / jnp.maximum(_smooth(counts), 1e-6)

    def measure(self, pred: Prediction, example: Example) -> dict[str, Array]:
        """AUROC of the anomaly map over the voxels that count, and how well the healthy image was made."""
        score = self.map(example.input.image, pred.image, example.mask)
        found = {"auroc": classification.auroc_map(score, example.extras["lesion"], example.mask)}
        return found | super().measure(pred, example)

    def references(self) -> dict[str, Reference]:
        """Healthy images without learning: an empty one (the map is the brightness), and a smoothed one."""
        return {"brightness": Reference(lambda example, _: jnp.zeros_like(example.input.image)),
                "smoothing": Reference(by_sample(lambda x, width: ndimage.gaussian_filter(x, (*(width,) * self.ndim, 0))),
                                       grid(1.5, 24.0, 5))}

    def render(self, example: Example, predictions: Mapping[str, Prediction]) -> dict[str, np.ndarray]:
        """The image with its lesion, the anomaly maps, and the lesion."""
        image, mask = jnp.asarray(example.input.image)[None], jnp.asarray(example.mask)[None]
        maps = {row: np.asarray(self.map(image, jnp.asarray(pred.image)[None], mask)[0])
                for row, pred in predictions.items()}
        maps = {row: m / max(float(m.max()), 1e-6) for row, m in maps.items()}
        everything: dict[str, Array | np.ndarray] = {"input": example.input.image, **maps,
                                                     "truth": np.asarray(example.extras["lesion"], np.float32)}
        return {row: self.in_units(picture) for row, picture in everything.items()}

    def exported_output(self, channels: int) -> Port:
        """The anomaly map."""
        return Port("anomaly", (), "anomaly map, as a part of the range of values")

    def exported(self, pred: Prediction, batch: Batch) -> Array:
        """The anomaly map."""
        return self.map(self.unit(batch)[0], pred.image)

    def outputs(self, predictions: Sequence[Prediction], records: Sequence[Record]) -> list[Output]:
        """The anomaly map, as a part of the range; the strongest and the mean anomaly."""
        found: list[Output] = []
        for number, (pred, record) in enumerate(zip(predictions, records, strict=True)):
            low, high = self.data_range
            image = jnp.asarray((record.in_units() - low) / (high - low))[None]
            mask = record.extras.get("mask")
            score = np.asarray(self.map(image, jnp.asarray(pred.image)[None],
                                        None if mask is None else jnp.asarray(mask)[None])[0])
            count = len(records)
            found += [NiftiOutput(score, record, numbered("anomaly", number, count)),
                      RowOutput({numbered("anomaly_max", number, count): float(score.max()),
                                 numbered("anomaly_mean", number, count): float(score.mean())})]
        return found


def _smooth(x: Array) -> Array:
    taps = gaussian_taps(SMOOTHING, RADIUS)
    for axis in range(1, x.ndim - 1):
        x = correlate_axis(pad_axis(x, RADIUS, RADIUS, axis, "constant"), taps, axis)
    return x
