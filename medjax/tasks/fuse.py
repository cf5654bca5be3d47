"""Fusion: from several contrasts of a subject one of them, cleaner than it was; any contrast may be missing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from medjax.classical._declared import NoiseModel, by_sample, methods
from medjax.physics.noise import Rician
from medjax.tasks._contrasts import channel_names, check_names
from medjax.tasks._restoration import Restoration
from medjax.types import Array, Batch, Example, Key, Output, Port, Prediction, Record, Reference, Splits, UserError


@dataclass(frozen=True)
class Fuse(Restoration):
    """The clean contrast `target` from all contrasts with Rician noise of `strength` (a fraction of the range).

    In training each contrast is missing (0 everywhere) with probability `missing`, but never all of them. A model is
    evaluated without the contrasts `absent`, which may be the target itself: then its like is made from the others.
    `contrasts` is filled from the data.
    """

    target: str = "FLAIR"
    strength: float = 0.1
    missing: float = 0.2
    absent: tuple[str, ...] = ()
    contrasts: tuple[str, ...] = ()

    keeps_format = False
    tileable = False  # a tile without signal would count as a missing contrast

    def __post_init__(self) -> None:
        if not 0 <= self.missing < 1 or self.strength < 0:
            raise UserError("config.task", f"missing={self.missing}, strength={self.strength}; give a probability below 1 "
                            "and a strength of at least 0")

    @property
    def inputs(self) -> tuple[str, ...]:  # type: ignore[override]
        """The contrasts."""
        return self.contrasts

    def out_channels(self, channels: int) -> int:
        """One contrast."""
        return 1

    def resolve_from_data(self, splits: Splits) -> dict[str, object]:
        """The channels' names. Raises UserError where a contrast is not there, or none would be left."""
        names = channel_names(splits)
        check_names("config.task.target", (self.target,), names)
        if self.absent:
            check_names("config.task.absent", self.absent, names)
        if set(self.absent) == set(names):
            raise UserError("config.task.absent", f"{', '.join(names)} are all there are; leave one")
        return {"contrasts": names}

    def example(self, key: Key, batch: Batch) -> Example:
        """Noisy contrasts, some of them missing, to the clean target."""
        return self._example(key, batch, lambda key, count: jax.random.bernoulli(key, 1 - self.missing, (count,)))

    def evaluation_example(self, key: Key, batch: Batch) -> Example:
        """As `example`, without the contrasts `absent`."""
        present = np.array([name not in self.absent for name in self.contrasts])
        return self._example(key, batch, lambda key, count: jnp.asarray(present))

    def _example(self, key: Key, batch: Batch, drawn: Callable[[Key, int], Array]) -> Example:
        clean, mask = self.unit(batch)

        def degrade(key: Key, image: Array) -> Array:
            noise_key, drop_key, keep_key = jax.random.split(key, 3)
            count = image.shape[-1]
            present = drawn(drop_key, count)
            kept = jnp.arange(count) == jax.random.randint(keep_key, (), 0, count)
            present = jnp.where(present.any(), present, kept)
            noisy = Rician(self.strength)(noise_key, image) if self.strength else image
            return noisy * present.reshape((1,) * (image.ndim - 1) + (count,))

        given = self.input(self.with_image(batch, self.per_sample(key, batch, degrade, clean)))
        return self.example_of(batch, given, clean[..., self._at:self._at + 1], mask)

    @property
    def _at(self) -> int:
        return self.contrasts.index(self.target)

    def references(self) -> dict[str, Reference]:
        """The noisy target and denoisers of it alone; where it is absent, another contrast and the mean of all."""
        if self.target in self.absent:
            others = [i for i, name in enumerate(self.contrasts) if name not in self.absent]
            return {"input": Reference(lambda example, _: example.input.image[..., others[0]:others[0] + 1]),
                    "average": Reference(by_sample(lambda x, _: x[..., others].mean(-1, keepdims=True)))}
        at, noise = slice(self._at, self._at + 1), NoiseModel("rician", self.strength)
        own = methods("denoise") if self.strength else {}

        def of_target(denoise: Callable[..., np.ndarray]) -> Callable[[np.ndarray, float], np.ndarray]:
            return lambda x, strength: denoise(x[..., at], noise, strength)

        return {"input": Reference(lambda example, _: example.input.image[..., at])} | {
            name: Reference(by_sample(of_target(fn)), strengths) for name, (fn, strengths) in own.items()}

    def exported_output(self, channels: int) -> Port:
        """The clean contrast, whose units are those of the training images."""
        return Port("fused", (), f"clean {self.target}, in the units of the training images", "{units}", (self.target,))

    def outputs(self, predictions: Sequence[Prediction], records: Sequence[Record]) -> list[Output]:
        """The clean contrast, whose units are those of the training images."""
        return self.nifti_outputs(predictions, records, self.target)
