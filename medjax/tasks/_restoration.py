"""What every restoration shares: losses, metrics and pictures of images that are compared with a clean one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import jax.numpy as jnp
import numpy as np

from medjax.data.outputs import ImageOutput, NiftiOutput, numbered
from medjax.measures import image_quality, losses
from medjax.measures._declared import measure, metrics_of
from medjax.tasks._base import TaskBase, check_shape, on_coarser_grid
from medjax.types import Array, Batch, Example, Key, Mean, Metric, Output, Port, Prediction, Record, Reference

HALF_WIDTH = "half_width"  # among the extras of a prediction: of its interval, in physical units
INTERVAL = "interval"  # what outputs with it are called
WIDTHS = "Half-width of the interval"
LEAST_CONTRAST = 0.05  # of the data's range, between the least and the greatest value of an image that shows something


@dataclass(frozen=True)
class Restoration(TaskBase):
    """From a degraded image the clean one.

    `measures` names the metrics (`medjax/measures`) that compare the two, in physical units.
    """

    measures: tuple[str, ...] = field(default=("psnr", "ssim", "nmse", "mse"), kw_only=True)

    keeps_format = True
    has_intervals = True  # whether what is compared with the truth is what `outputs` writes
    on_coarser_grid = staticmethod(on_coarser_grid)
    noise_alone = False  # whether `simulate` adds noise and does nothing else, on the grid of the image

    @property
    def flip_axes(self) -> tuple[int, ...]:
        """The spatial axes, 0 the first, along which a flipped image is as likely to be measured as the image."""
        return tuple(range(self.ndim))

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Those of `measures`."""
        return metrics_of(self.measures)

    def clean(self, batch: Batch) -> tuple[Array, Array]:
        """The batch's images in unit range as they should be restored, and the mask of voxels that count."""
        return self.unit(batch)

    def simulate(self, key: Key, batch: Batch, clean: Array) -> Batch:
        """The batch as if it had been measured degraded. Subclasses say how."""
        return self.with_image(batch, clean)

    def example(self, key: Key, batch: Batch) -> Example:
        """Degraded images to clean ones."""
        clean, mask = self.clean(batch)
        return self.example_of(batch, self.input(self.simulate(key, batch, clean)), clean, mask)

    def losses(self, pred: Array, example: Example) -> dict[str, Mean]:
        """Every loss a restoration may be trained on; what the objective does not use is never computed under jit.

        SSIM is among them where its window fits in the patch.
        """
        check_shape(pred, example.target)
        return {name: fn(pred, example.target, example.mask) for name, fn in losses.RESTORATION.items()
                if name != "ssim" or image_quality.ssim_fits(pred)}

    def compared(self, image: Array) -> Array:
        """A predicted or true image `(B, *space, C)` as it is compared: as it is."""
        return image

    def measure(self, pred: Prediction, example: Example) -> dict[str, Array]:
        """The metrics of each sample, in physical units; NaN where the truth shows nothing (`LEAST_CONTRAST`).

        An empty slice at the end of a volume is restored by any method, without an error, and has no PSNR.
        """
        low, high = self.data_range
        truth = self.compared(example.target)
        image, target = (x * (high - low) + low for x in (self.compared(pred.image), truth))
        found = measure(self.measures, **example.extras, pred=image, target=target, data_range=high - low,
                        data_low=low, mask=example.mask)
        axes = tuple(range(1, target.ndim))
        contrast = jnp.max(truth, axes, where=example.mask, initial=-jnp.inf) - jnp.min(
            truth, axes, where=example.mask, initial=jnp.inf)
        return {name: jnp.where(contrast >= LEAST_CONTRAST, value, jnp.nan) for name, value in found.items()}

    def references(self) -> dict[str, Reference]:
        """The input as it is."""
        return {"input": Reference(lambda example, strength: self.on_target_grid(example.input.image))}

    def render(self, example: Example, predictions: Mapping[str, Prediction]) -> dict[str, np.ndarray]:
        """The images, and the truth."""
        images = {row: self.in_units(pred.image) for row, pred in predictions.items()}
        return images | {"truth": self.in_units(example.target)}

    def exported_output(self, channels: int) -> Port:
        """The restored image."""
        return Port("restored", (), "restored image in physical units", "{units}", as_input=True)

    def outputs(self, predictions: Sequence[Prediction], records: Sequence[Record]) -> list[Output]:
        """The restored images; padding outside the scanned field stays what it was."""
        images = [self.into_units(pred.image) for pred in predictions]
        for image, record in zip(images, records, strict=True):
            mask = record.extras.get("mask")
            if mask is not None and image.shape == record.image.shape:
                np.copyto(image, record.in_units(), where=~mask)
        return [ImageOutput(images), *([ImageOutput(widths, INTERVAL, WIDTHS)]
                                       if (widths := half_widths(predictions, records)) else [])]

    def nifti_outputs(self, predictions: Sequence[Prediction], records: Sequence[Record], name: str = "",
                      source_units: bool = False) -> list[Output]:
        """The images as NIfTI files, for tasks that don't keep the format; the rest as `NiftiOutput` has it."""
        images = [self.in_units(self.compared(jnp.asarray(pred.image)[None])[0]) for pred in predictions]
        widths = half_widths(predictions, records)
        found: list[Output] = []
        for i, record in enumerate(records):
            found.append(NiftiOutput(images[i], record, numbered(name, i, len(records)), source_units=source_units))
            if widths:
                called = f"{name}_{INTERVAL}" if name else INTERVAL
                found.append(NiftiOutput(widths[i], record, numbered(called, i, len(records)), source_units=source_units,
                                         difference=True))
        return found


def half_widths(predictions: Sequence[Prediction], records: Sequence[Record]) -> list[np.ndarray]:
    """Of the predictions' intervals, `(*space, C)` in physical units, 0 outside the scanned field; [] without them."""
    found = [np.asarray(pred.extras[HALF_WIDTH]) for pred in predictions if HALF_WIDTH in pred.extras]
    masks = [record.extras.get("mask") for record in records]
    return [np.where(mask, width, 0) if mask is not None and mask.shape[:-1] == width.shape[:-1] else width
            for width, mask in zip(found, masks, strict=False)]
