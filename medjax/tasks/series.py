"""Slice stacks and time series: denoising, and super-resolution of every frame with the help of its neighbours."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
from scipy import ndimage

from medjax.classical import interpolate
from medjax.measures import image_quality
from medjax.physics.optics import Decimate
from medjax.tasks._restoration import Baseline, draw
from medjax.tasks.denoise import NOISES, Denoise
from medjax.types import Array, Batch, Example, Key, UserError


@dataclass(frozen=True)
class Series(Denoise):
    """The clean frames of `(B, T, H, W, C)` from noisy ones, that are also decimated by `factor` within each frame.

    Frames are slices or times. SSIM is the mean over frames, so a series may have as few as one wants.
    """

    factor: int = 1

    def __post_init__(self):
        super().__post_init__()
        if self.ndim != 3:
            raise UserError("config.data.ndim", "a series has frames along its first axis; set it to 3")
        if self.factor not in (1, 2, 3, 4):
            raise UserError("config.task.factor", f"{self.factor} is not 1, 2, 3 or 4")

    @property
    def scale(self) -> tuple[int, ...]:
        """Every frame grows by the factor."""
        return (1, self.factor, self.factor)

    def example(self, key: Key, batch: Batch) -> Example:
        """Noisy, coarse frames to clean, fine ones, cut to a multiple of the factor."""
        fine, mask = (self._cut(image) for image in self.clean(batch))
        coarse = fine if self.factor == 1 else Decimate(factor=self.scale)(fine)

        def degrade(key: Key, image: Array) -> Array:
            strength_key, noise_key = jax.random.split(key)
            return NOISES[self.noise](draw(strength_key, self.strength))(noise_key, image)

        return Example(self.per_sample(key, batch, degrade, coarse), fine, mask)

    def _cut(self, x: Array) -> Array:
        height, width = (size - size % self.factor for size in x.shape[2:4])
        return x[:, :, :height, :width]

    def metrics(self, pred: Array, example: Example) -> dict[str, Array]:
        """As any restoration's, with SSIM frame by frame."""
        def frames(x: Array) -> Array:
            return x.reshape(-1, *x.shape[2:])

        similarity = image_quality.ssim(frames(pred), frames(example.target), 1.0, frames(example.mask))
        low, high = self.data_range
        return {"psnr": image_quality.psnr(pred, example.target, 1.0, example.mask),
                "ssim": similarity.reshape(pred.shape[:2]).mean(1),
                "nmse": image_quality.nmse(pred, example.target, example.mask),
                "mse": image_quality.mse(pred, example.target, example.mask) * (high - low) ** 2}

    def baselines(self) -> dict[str, Baseline]:
        """Denoisers of the whole stack, the means of three and of all frames; enlarged by cubic convolution."""
        enlarge = partial(interpolate.bicubic, factor=self.scale)

        def then(fn: Baseline) -> Baseline:
            return lambda x: enlarge(fn(x)) if self.factor > 1 else fn(x)

        three: Callable[[np.ndarray], np.ndarray] = partial(ndimage.uniform_filter1d, size=3, axis=0, mode="nearest")
        own = {"three_frames": three, "all_frames": lambda x: np.broadcast_to(x.mean(0, keepdims=True), x.shape)}
        return {name: then(fn) for name, fn in {**super().baselines(), **own}.items()}

    def show(self, x: Array) -> Array:
        """The frames, every pixel repeated."""
        return x.repeat(self.factor, 2).repeat(self.factor, 3)
