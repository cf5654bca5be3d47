"""Anomaly maps: a network that has learned healthy images only shows what it can't make."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from medjax.measures import classification, image_quality
from medjax.ops.separable import correlate_axis, gaussian_taps, pad_axis
from medjax.tasks._restoration import Baseline, Restoration, draw
from medjax.types import Array, Batch, Example, Key, UserError

TISSUE = 0.15  # lesions lie where images are brighter than this, in unit range
SMOOTHING = 1.5  # voxels; anomaly maps are smoothed by a Gaussian of this width


@dataclass(frozen=True)
class Anomaly(Restoration):
    """From an image make the healthy one; the anomaly map is how far the two differ.

    It learns from images as they are, with Gaussian noise of `sigma` (denoising autoencoder, Vincent et al., 2008) that is
    alike over about `grain` voxels: coarse noise makes it mend what looks like a lesion (Kascenas et al., 2022). It is
    judged on the same images with a lesion planted in each: an ellipsoid with a soft edge, half axes of `radius` voxels
    and brighter or darker than its surroundings by `contrast`, both drawn between bounds, in unit range.
    """

    sigma: float = 0.2
    grain: int = 16
    radius: tuple[float, float] = (4.0, 9.0)
    contrast: tuple[float, float] = (0.25, 0.5)

    def __post_init__(self):
        for name in ("radius", "contrast"):
            bounds = getattr(self, name)
            if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1]:
                raise UserError(f"config.task.{name}", f"{bounds} is not a pair of bounds 0 < low <= high")
        if self.grain < 1:
            raise UserError("config.task.grain", f"{self.grain}; give a number of voxels of at least 1")

    def example(self, key: Key, batch: Batch) -> Example:
        """Noisy healthy images to healthy ones."""
        clean, mask = self.clean(batch)
        if not self.sigma:
            return Example(clean, clean, mask)
        return Example(self.per_sample(key, batch, lambda k, x: x + self._noise(k, x.shape) * (x > 0), clean), clean, mask)

    def trial(self, key: Key, batch: Batch) -> Example:
        """Images with a planted lesion to healthy ones; the context has the lesions' voxels."""
        clean, mask = self.clean(batch)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, batch["id"])
        sick, lesion = jax.vmap(self._plant)(keys, clean, mask)
        return Example(sick, clean, mask, {"lesion": lesion})

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

    def map(self, image: Array, healthy: Array) -> Array:
        """How far an image is from its healthy version, `(B, *space, 1)`: the mean over channels, smoothed."""
        change = jnp.abs(image - healthy).mean(-1, keepdims=True)
        taps = gaussian_taps(SMOOTHING, 4)
        for axis in range(1, change.ndim - 1):
            change = correlate_axis(pad_axis(change, 4, 4, axis, "edge"), taps, axis)
        return change

    def metrics(self, pred: Array, example: Example) -> dict[str, Array]:
        """AUROC of the anomaly map over the voxels that count, and how well the healthy image was made (dB)."""
        low, high = self.data_range
        found = {"psnr": image_quality.psnr(pred * (high - low), example.target * (high - low), high - low, example.mask)}
        score = self.map(example.input, pred)
        return {"auroc": classification.auroc_map(score, example.context["lesion"], example.mask)} | found

    def baselines(self) -> dict[str, Baseline]:
        """Healthy images without learning: an empty one (the map is the brightness), and a smoothed one."""
        return {"brightness": np.zeros_like,
                "smoothing": lambda x: ndimage.gaussian_filter(x, (*(6.0,) * self.ndim, 0))}

    def answers(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """The baselines; the image itself would give an empty map."""
        return {name: fn(x) for name, fn in self.baselines().items()}

    def pictures(self, example: Example, answers: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The image with its lesion, the anomaly maps, and the lesion."""
        low, high = self.data_range
        image = np.asarray(example.input)
        maps = {row: np.asarray(self.map(image[None], np.asarray(healthy)[None])[0]) for row, healthy in answers.items()}
        maps = {row: m / max(float(m.max()), 1e-6) for row, m in maps.items()}
        everything: dict[str, Any] = {"input": image, **maps, "truth": np.asarray(example.context["lesion"], np.float32)}
        return {row: picture * (high - low) + low for row, picture in everything.items()}
