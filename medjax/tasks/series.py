"""Slice stacks and time series: denoising, and super-resolution of every frame with the help of its neighbours."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from medjax.classical import interpolate
from medjax.classical._declared import by_sample
from medjax.data.outputs import ImageOutput
from medjax.measures._declared import measure
from medjax.physics.optics import Decimate
from medjax.tasks._restoration import INTERVAL, WIDTHS, half_widths
from medjax.tasks.denoise import Denoise
from medjax.types import Array, Batch, Example, Key, Output, Prediction, Record, Reference, UserError, check_choice


@dataclass(frozen=True)
class Series(Denoise):
    """The clean frames of `(B, T, H, W, C)` from noisy ones, that are also decimated by `factor` within each frame.

    `frames` are the "slices" of a volume, or the "times" of a series of images. SSIM is the mean over frames, so a series
    may have as few as one wants.
    """

    factor: int = 1
    frames: str = "slices"

    tileable = False  # every frame may matter to every other

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ndim != 3:
            raise UserError("config.data.ndim", "a series has frames along its first axis; set it to 3")
        if self.factor not in (1, 2, 3, 4):
            raise UserError("config.task.factor", f"{self.factor} is not 1, 2, 3 or 4")
        check_choice("config.task.frames", self.frames, ("slices", "times"))

    @property
    def noise_alone(self) -> bool:  # type: ignore[override]
        """Not where frames are made finer, nor of times, whose files hold images of another shape."""
        return self.factor == 1 and self.frames == "slices"

    @property
    def flip_axes(self) -> tuple[int, ...]:
        """Those of a frame: the order of frames has a meaning."""
        return (1, 2)

    @property
    def scale(self) -> tuple[int, ...]:
        """Every frame grows by the factor."""
        return (1, self.factor, self.factor)

    def clean(self, batch: Batch) -> tuple[Array, Array]:
        """The frames, cut to a multiple of the factor."""
        image, mask = self.unit(batch)
        height, width = (size - size % self.factor for size in image.shape[2:4])
        return image[:, :, :height, :width], mask[:, :, :height, :width]

    def simulate(self, key: Key, batch: Batch, clean: Array) -> Batch:
        """Coarse, noisy frames."""
        return super().simulate(key, batch, clean if self.factor == 1 else Decimate(factor=self.scale)(clean))

    def measure(self, pred: Prediction, example: Example) -> dict[str, Array]:
        """As any restoration's, with SSIM frame by frame."""
        def frames(x: Array) -> Array:
            return x.reshape(-1, *x.shape[2:])

        others = replace(self, measures=tuple(name for name in self.measures if name != "ssim"))
        found = super(Series, others).measure(pred, example)
        if "ssim" in self.measures:
            each = measure(("ssim",), pred=frames(pred.image), target=frames(example.target), data_range=1.0,
                           mask=frames(example.mask))
            found["ssim"] = jnp.nanmean(each["ssim"].reshape(pred.image.shape[:2]), 1)
        return {name: found[name] for name in self.measures}

    def references(self) -> dict[str, Reference]:
        """Denoisers of the whole stack, the means of three and of all frames; enlarged by cubic convolution."""
        enlarge = partial(interpolate.bicubic, factor=self.scale)
        own: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
            "three-frames": lambda x, _: ndimage.uniform_filter1d(x, size=3, axis=0, mode="nearest"),
            "all-frames": lambda x, _: np.broadcast_to(x.mean(0, keepdims=True), x.shape)}
        found = super().references() | {name: Reference(by_sample(fn)) for name, fn in own.items()}
        if self.factor == 1:
            return found

        def enlarged(reference: Reference) -> Reference:
            def run(example: Example, strength: float) -> Array:
                return jnp.asarray(np.stack([enlarge(x) for x in np.asarray(reference.run(example, strength))]))

            return Reference(run, reference.strengths)

        return {name: found[name] if name == "input" else enlarged(found[name]) for name in found}

    def on_target_grid(self, image: Array) -> Array:
        """The frames, every pixel repeated."""
        return jax.numpy.repeat(jax.numpy.repeat(image, self.factor, 2), self.factor, 3)

    def arrange(self, records: Sequence[Record]) -> list[Record]:
        """A volume as it is; of a series of images or volumes, each slice with its times as first axis."""
        if self.frames == "slices":
            return list(records)
        if len(records) < 2 or len({(r.image.shape, r.slope, r.intercept) for r in records}) > 1:
            raise UserError(records[0].id, f"holds {len(records)} frames; the model takes a series of frames of one size")
        series = np.stack([np.asarray(record.image) for record in records])
        first = records[0]
        stacks = np.moveaxis(series, 1, 0) if first.ndim == 3 else series[None]
        names = [f"{first.id}:z{z}" for z in range(len(stacks))] if first.ndim == 3 else [first.id]
        spacing = first.spacing_mm and (1.0, *first.spacing_mm[-2:])
        return [replace(first, image=stack, id=name, spacing_mm=spacing, affine=None, extras={})
                for name, stack in zip(names, stacks, strict=True)]

    def outputs(self, predictions: Sequence[Prediction], records: Sequence[Record]) -> list[Output]:
        """The restored frames, as the study has them."""
        if self.frames == "slices":
            return super().outputs(predictions, records)
        planes = records[0].id.endswith(":z0")  # the name is that of `arrange`

        def by_time(stacks: Sequence[np.ndarray]) -> list[np.ndarray]:
            times = np.moveaxis(np.stack(stacks), 1, 0)  # (times, slices, H, W, C)
            return list(times if planes else times[:, 0])

        found: list[Output] = [ImageOutput(by_time([self.in_units(pred.image) for pred in predictions]))]
        widths = half_widths(predictions, records)
        return [*found, ImageOutput(by_time(widths), INTERVAL, WIDTHS)] if widths else found
