"""Lossy compression: the image through a code of few bits, for networks with a narrow code (`autoencoder`)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from medjax.classical._declared import by_sample, methods
from medjax.tasks._restoration import Restoration
from medjax.types import Reference, UserError


@dataclass(frozen=True)
class Compress(Restoration):
    """The image itself. `rate` is what other methods may take beside the model, in bits for a voxel.

    An autoencoder takes latent * bits / 2^(depth * ndim), before any entropy coding.
    """

    rate: float = 1.0

    tileable = False  # a code of a part is not a part of the code

    def __post_init__(self) -> None:
        if self.rate <= 0:
            raise UserError("config.task.rate", f"{self.rate}; give bits for a voxel, above 0")

    def references(self) -> dict[str, Reference]:
        """Codecs at the same rate, for pictures of one or three channels; the input is what is asked for."""
        if self.ndim != 2:
            return {}

        def at_rate(codec: Callable[..., np.ndarray]) -> Callable[[np.ndarray, float], np.ndarray]:
            return lambda x, _: codec(x, self.rate)

        return {name: Reference(by_sample(at_rate(fn)), strengths) for name, (fn, strengths) in methods("compress").items()}
