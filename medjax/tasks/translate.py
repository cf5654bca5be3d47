"""Translation between modalities: one contrast of a subject from others."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from medjax.data.split import Splits
from medjax.tasks._contrasts import channel_names, check_names
from medjax.tasks._restoration import Baseline, Restoration
from medjax.types import Array, Batch, Example, Key, UserError

BINS = 64


@dataclass(frozen=True)
class Translate(Restoration):
    """The contrast `target` from the contrasts `source` of the same subject, on one grid.

    Unless `paired`, training shows source and target of different samples (for CycleGAN); judging always pairs them.
    `contrasts` and `curve` are filled from the data: the channels' names, and the mean target over training voxels by
    the value of the first source, which is the baseline: what intensities alone can tell.
    """

    source: tuple[str, ...] = ("T1",)
    target: str = "FLAIR"
    paired: bool = True
    contrasts: tuple[str, ...] = ()
    curve: tuple[float, ...] = ()

    def outputs(self, channels: int) -> int:
        """One contrast."""
        return 1

    def settled(self, splits: Splits) -> dict[str, Any]:
        """The channels' names and the intensity curve. Raises UserError where a contrast is not there."""
        names = channel_names(splits)
        check_names("config.task.source", self.source, names)
        check_names("config.task.target", (self.target,), names)
        if self.target in self.source:
            raise UserError("config.task.target", f"{self.target!r} is among the sources {', '.join(self.source)}")
        return {"contrasts": names, "curve": self._curve(splits, names)}

    def _curve(self, splits: Splits, names: tuple[str, ...]) -> tuple[float, ...]:
        x, y = (np.concatenate([self._unit(region, names.index(name)) for region in splits["train"]])
                for name in (self.source[0], self.target))
        at = np.clip(np.rint(x * (BINS - 1)), 0, BINS - 1).astype(int)
        count = np.bincount(at, minlength=BINS)
        mean = np.bincount(at, y, BINS) / np.maximum(count, 1)
        filled = np.interp(np.arange(BINS), np.flatnonzero(count), mean[count > 0])
        return tuple(float(v) for v in filled)

    def _unit(self, region: Any, channel: int) -> np.ndarray:
        low, high = self.data_range
        values = region.image[..., channel].ravel()[::7].astype(np.float32)
        return (values * np.float32(region.record.slope) + np.float32(region.record.intercept) - low) / (high - low)

    def _pick(self, image: Array, names: tuple[str, ...]) -> Array:
        return jnp.stack([image[..., self.contrasts.index(name)] for name in names], -1)

    def trial(self, key: Key, batch: Batch) -> Example:
        """Source to target of the same sample."""
        image, mask = self.clean(batch)
        return Example(self._pick(image, self.source), self._pick(image, (self.target,)), mask)

    def example(self, key: Key, batch: Batch) -> Example:
        """As `trial`; unpaired, the target (and the mask) is the next sample's."""
        example = self.trial(key, batch)
        if self.paired:
            return example
        return Example(example.input, jnp.roll(example.target, 1, 0), jnp.roll(example.mask, 1, 0))

    def baselines(self) -> dict[str, Baseline]:
        """The mean target for each intensity of the first source."""
        grid = np.linspace(0, 1, BINS)
        return {"curve": lambda x: np.interp(x[..., :1], grid, self.curve).astype(np.float32)}

    def answers(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """The first source as it is, and the curve's answer."""
        return {"input": x[..., :1]} | {name: fn(x) for name, fn in self.baselines().items()}
