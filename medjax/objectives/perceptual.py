"""SRGAN (Ledig et al., 2017) and ESRGAN (Wang et al., 2018): adversarial learning with a perceptual loss."""

from dataclasses import dataclass, field

import jax.numpy as jnp

from medjax.measures.losses import sample_mean
from medjax.models.features import Features
from medjax.objectives.adversarial import Adversarial
from medjax.types import Array, Example, Mean, UserError


@dataclass(frozen=True)
class Perceptual(Adversarial):
    """As `adversarial`, and `loss` may name "perceptual": the distance between a trained network's features of two images.

    The network is that of the run in `config.features_workdir`, which has learned on medical images by any task. The
    distance is the mean absolute difference of its activations (Johnson et al., 2016), each layer's divided by its mean
    activation on the target, so that every layer counts. Outside the mask both images are 0.
    """

    loss: str = "l1 + 0.1*perceptual"
    features: Features = field(kw_only=True)

    def offered(self, made: Array, example: Example) -> dict[str, Mean]:
        """What the task offers, and "perceptual". Raises UserError where no network was named."""
        if self.features.network is None:
            raise UserError("config.features_workdir", "is not set, and the perceptual loss uses the network of another "
                            "run; train one, say configs/quickstart.py, and give its folder")
        visible = (jnp.where(example.mask, image, 0) for image in (made, example.target))
        layers = zip(*(self.features.network(image) for image in visible), strict=True)
        distances = []
        for m, t in layers:
            axes = tuple(range(1, m.ndim))
            distances.append(jnp.abs(m - t).mean(axes) / (jnp.abs(t).mean(axes) + 1e-6))
        mean = sum(distances[1:], distances[0]) / len(distances)
        return super().offered(made, example) | {"perceptual": sample_mean(mean, example.mask)}
