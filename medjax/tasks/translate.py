"""Translation between modalities: one contrast of a subject from others."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from medjax.classical._declared import by_sample
from medjax.tasks._contrasts import channel_names, check_names
from medjax.tasks._restoration import Restoration
from medjax.types import (
    Array,
    Batch,
    Example,
    Key,
    NetworkInput,
    Output,
    Port,
    Prediction,
    Record,
    Reference,
    Region,
    Splits,
    UserError,
)

BINS = 64


@dataclass(frozen=True)
class Translate(Restoration):
    """The contrast `target` from the contrasts `source` of the same subject, on one grid.

    Unless `paired`, training shows source and target of different samples (for CycleGAN); evaluation always pairs them.
    `contrasts` and `curve` are filled from the data: the channels' names, and the mean target over training voxels by
    the value of the first source, which is the reference: what intensities alone can tell.
    """

    source: tuple[str, ...] = ("T1",)
    target: str = "FLAIR"
    paired: bool = True
    contrasts: tuple[str, ...] = ()
    curve: tuple[float, ...] = ()

    keeps_format = False

    @property
    def inputs(self) -> tuple[str, ...]:  # type: ignore[override]
        """The source contrasts."""
        return self.source

    def out_channels(self, channels: int) -> int:
        """One contrast."""
        return 1

    def resolve_from_data(self, splits: Splits) -> dict[str, object]:
        """The channels' names and the intensity curve. Raises UserError where a contrast is not there."""
        names = channel_names(splits)
        check_names("config.task.source", self.source, names)
        check_names("config.task.target", (self.target,), names)
        if self.target in self.source:
            raise UserError("config.task.target", f"{self.target!r} is among the sources {', '.join(self.source)}")
        return {"contrasts": names, "curve": self._curve(splits, names)}

    def _curve(self, splits: Splits, names: tuple[str, ...]) -> tuple[float, ...]:
        x, y = (np.concatenate([self._values(region, names.index(name)) for region in splits["train"]])
                for name in (self.source[0], self.target))
        at = np.clip(np.rint(x * (BINS - 1)), 0, BINS - 1).astype(int)
        count = np.bincount(at, minlength=BINS)
        mean = np.bincount(at, y, BINS) / np.maximum(count, 1)
        filled = np.interp(np.arange(BINS), np.flatnonzero(count), mean[count > 0])
        return tuple(float(v) for v in filled)

    def _values(self, region: Region, channel: int) -> np.ndarray:
        """Every seventh voxel of a channel, in unit range."""
        low, high = self.data_range
        record = region.record
        values = region.image[..., channel].ravel()[::7].astype(np.float32)
        return (values * np.float32(record.slope) + np.float32(record.intercept) - low) / (high - low)

    def _pick(self, image: Array, names: tuple[str, ...]) -> Array:
        return jnp.stack([image[..., self.contrasts.index(name)] for name in names], -1)

    def evaluation_example(self, key: Key, batch: Batch) -> Example:
        """Source to target of the same sample."""
        image, mask = self.unit(batch)
        given = self.input(self.with_image(batch, self._pick(image, self.source)))
        return self.example_of(batch, given, self._pick(image, (self.target,)), mask)

    def example(self, key: Key, batch: Batch) -> Example:
        """As `evaluation_example`; unpaired, the target (and the mask) is the next sample's."""
        example = self.evaluation_example(key, batch)
        if self.paired:
            return example
        return Example(example.input, jnp.roll(example.target, 1, 0), jnp.roll(example.mask, 1, 0), example.ids,
                       example.spacing_mm)

    def input(self, batch: Batch) -> NetworkInput:
        """The source contrasts."""
        return NetworkInput(self.unit(batch)[0])

    def references(self) -> dict[str, Reference]:
        """The first source as it is, and the mean target for each of its intensities."""
        levels = np.linspace(0, 1, len(self.curve))
        return {"input": Reference(lambda example, strength: example.input.image[..., :1]),
                "curve": Reference(by_sample(lambda x, _: np.interp(x[..., :1], levels, self.curve).astype(np.float32)))}

    def exported_output(self, channels: int) -> Port:
        """The translated contrast, whose units are those of the training images."""
        meaning = f"translated {self.target}, in the units of the training images"
        return Port("translated", (), meaning, "{units}", (self.target,))

    def outputs(self, predictions: Sequence[Prediction], records: Sequence[Record]) -> list[Output]:
        """The translated image, whose units are those of the training images' target."""
        return self.nifti_outputs(predictions, records, self.target)
