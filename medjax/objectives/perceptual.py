"""SRGAN (Ledig et al., 2017) and ESRGAN (Wang et al., 2018): adversarial learning with a perceptual loss."""

from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp

from medjax.objectives.adversarial import Adversarial
from medjax.types import Array, Example, UserError


@dataclass(frozen=True)
class Perceptual(Adversarial):
    """As `adversarial`, and `loss` may name "perceptual": the distance between what a trained network sees in two images.

    The network is that of the run in `config.features_workdir`, which has learnt on medical images by any task. The
    distance is the mean absolute difference of its activations (Johnson et al., 2016), each layer's divided by its mean
    activation on the target, so that every layer has a say.
    """

    loss: str = "l1 + 0.1*perceptual"
    features: Any = field(kw_only=True)

    def __post_init__(self):
        super().__post_init__()
        if self.features is None:
            raise UserError("config.features_workdir", "is not set, and the perceptual loss looks through the network of "
                            "another run; train one, say configs/quickstart.py, and give its folder")

    def losses(self, made: Array, example: Example) -> dict[str, Array]:
        """What the task offers, and "perceptual"."""
        layers = zip(self.features(made), self.features(example.target), strict=True)
        distances = [jnp.abs(m - t).mean() / (jnp.abs(t).mean() + 1e-6) for m, t in layers]
        return super().losses(made, example) | {"perceptual": sum(distances) / len(distances)}
