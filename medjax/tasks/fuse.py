"""Fusion: from several contrasts of a subject one of them, cleaner than it was; any contrast may be missing."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from medjax.classical import denoise
from medjax.data.split import Splits
from medjax.physics.noise import Rician
from medjax.tasks._contrasts import channel_names, check_names
from medjax.tasks._restoration import Baseline, Restoration
from medjax.types import Array, Batch, Example, Key, UserError


@dataclass(frozen=True)
class Fuse(Restoration):
    """The clean contrast `target` from all contrasts with Rician noise of `strength` (a fraction of the range).

    In training each contrast is missing (0 everywhere) with probability `missing`, but never all of them. A model is
    judged without the contrasts `absent`, which may be the target itself: then its like is made from the others.
    `contrasts` is filled from the data.
    """

    target: str = "FLAIR"
    strength: float = 0.1
    missing: float = 0.2
    absent: tuple[str, ...] = ()
    contrasts: tuple[str, ...] = ()

    def __post_init__(self):
        if not 0 <= self.missing < 1 or self.strength < 0:
            raise UserError("config.task", f"missing={self.missing}, strength={self.strength}; give a probability below 1 "
                            "and a strength of at least 0")

    def outputs(self, channels: int) -> int:
        """One contrast."""
        return 1

    def settled(self, splits: Splits) -> dict[str, Any]:
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

    def trial(self, key: Key, batch: Batch) -> Example:
        """As `example`, without the contrasts `absent`."""
        there = np.array([name not in self.absent for name in self.contrasts])
        return self._example(key, batch, lambda key, count: jnp.asarray(there))

    def _example(self, key: Key, batch: Batch, drawn: Any) -> Example:
        clean, mask = self.clean(batch)

        def degrade(key: Key, image: Array) -> Array:
            noise_key, drop_key, keep_key = jax.random.split(key, 3)
            count = image.shape[-1]
            there = drawn(drop_key, count)
            there = jnp.where(there.any(), there, jnp.arange(count) == jax.random.randint(keep_key, (), 0, count))
            noisy = Rician(self.strength)(noise_key, image) if self.strength else image
            return noisy * there.reshape((1,) * (image.ndim - 1) + (count,))

        at = self.contrasts.index(self.target)
        return Example(self.per_sample(key, batch, degrade, clean), clean[..., at:at + 1], mask)

    def baselines(self) -> dict[str, Baseline]:
        """Library denoisers of the target alone, and the mean of the contrasts."""
        if self.target in self.absent:
            return {"average": lambda x: self._present(x).mean(-1, keepdims=True)}
        own = {"nlm": denoise.nlm, "tv": denoise.tv, "wavelet": denoise.wavelet} if self.strength else {}
        return {name: (lambda x, fn=fn: fn(self._own(x))) for name, fn in own.items()}

    def answers(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """The noisy target, or another contrast where it is absent, and every baseline's answer."""
        shown = self._present(x)[..., :1] if self.target in self.absent else self._own(x)
        return {"input": shown} | {name: fn(x) for name, fn in self.baselines().items()}

    def _own(self, x: np.ndarray) -> np.ndarray:
        at = self.contrasts.index(self.target)
        return x[..., at:at + 1]

    def _present(self, x: np.ndarray) -> np.ndarray:
        return x[..., [i for i, name in enumerate(self.contrasts) if name not in self.absent]]
