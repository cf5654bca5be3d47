"""Lossy compression: the image through a code of few bits, for networks with a narrow code (`autoencoder`)."""

from dataclasses import dataclass
from functools import partial

import numpy as np

from medjax.classical import compress as classical
from medjax.tasks._restoration import Baseline, Restoration
from medjax.types import Batch, Example, Key, UserError


@dataclass(frozen=True)
class Compress(Restoration):
    """The image itself. `rate` is what JPEG may take beside the model, in bits for a voxel.

    An autoencoder takes latent * bits / 2^(depth * ndim), before any entropy coding.
    """

    rate: float = 1.0

    def __post_init__(self):
        if self.rate <= 0:
            raise UserError("config.task.rate", f"{self.rate}; give bits for a voxel, above 0")

    def example(self, key: Key, batch: Batch) -> Example:
        """Images to themselves."""
        clean, mask = self.clean(batch)
        return Example(clean, clean, mask)

    def baselines(self) -> dict[str, Baseline]:
        """JPEG at the same rate, for pictures of one or three channels."""
        return {"jpeg": partial(classical.jpeg, rate=self.rate)} if self.ndim == 2 else {}

    def answers(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """The baselines; the input is what is asked for."""
        return {name: fn(x) for name, fn in self.baselines().items()}
