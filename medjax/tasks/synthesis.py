"""Synthesis: new images from noise, like those of a data set."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from medjax.measures import sets
from medjax.models.features import random_network
from medjax.tasks._restoration import Restoration
from medjax.types import Array, Batch, Example, Key, UserError


@dataclass(frozen=True)
class Synthesis(Restoration):
    """From `noise` normal numbers an image of `size` voxels along every axis, like the data set's.

    Data set images are padded to a square (a cube) with 0 and brought to that size. What is made has no true answer: it is
    judged as a set, by the Fréchet distance to the true images in the codes of a network, that of the run in
    `config.features_workdir` or, without one, a fixed random network. Distances compare only under one network and one
    number of images.
    """

    noise: int = 100
    size: int = 64
    features: Any = field(kw_only=True)

    def __post_init__(self):
        if self.noise < 1 or self.size < 8:
            raise UserError("config.task", f"noise={self.noise}, size={self.size}; give at least 1 number and 8 voxels")

    def example(self, key: Key, batch: Batch) -> Example:
        """Noise `(B, noise)` and true images; `context` `(B, *space, 0)` is the grid to fill."""
        image, mask = self.clean(batch)
        image = self._sized(image)
        mask = jnp.broadcast_to(mask.any(tuple(range(1, mask.ndim)), keepdims=True), (*image.shape[:-1], 1))
        noise = self.per_sample(key, batch, lambda key, _: jax.random.normal(key, (self.noise,)), image)
        return Example(noise, image, mask, image[..., :0])

    def _sized(self, image: Array) -> Array:
        longest = max(image.shape[1:-1])
        pads = [((longest - n) // 2, longest - n - (longest - n) // 2) for n in image.shape[1:-1]]
        square = jnp.pad(image, [(0, 0), *pads, (0, 0)])
        shape = (image.shape[0], *(self.size,) * self.ndim, image.shape[-1])
        return square if square.shape == shape else jax.image.resize(square, shape, "linear")

    def losses(self, pred: Array, example: Example) -> dict[str, Array]:
        """Nothing but the game: "none" is 0."""
        if pred.shape != example.target.shape:
            raise UserError("config.model.name", f"it makes images of {pred.shape[1:]} and the task's are "
                            f"{example.target.shape[1:]}; use dcgan_generator")
        return {"none": jnp.zeros(())}

    def metrics(self, pred: Array, example: Example) -> dict[str, Array]:
        """Per sample: the codes `(B, K)` of the made and the true image; `summary` makes a distance of them."""
        look = self.features or random_network(self.ndim, example.target.shape[-1])
        return {"code": look.code(jnp.broadcast_to(pred, example.target.shape)), "true_code": look.code(example.target)}

    def summary(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The Fréchet distance, and how much made images differ from one another, as a part of how much true ones do."""
        made, true = (np.array([sample[name] for sample in samples], np.float64) for name in ("code", "true_code"))
        if len(made) < 2:
            return {"frechet": float("nan"), "diversity": float("nan")}
        spread = [np.sqrt(np.var(codes, axis=0).sum()) for codes in (made, true)]
        return {"frechet": sets.frechet(made, true), "diversity": float(spread[0] / spread[1])}

    def pictures(self, example: Example, answers: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What is made, and an image of the data, which is nobody's truth."""
        return {"of the data" if row == "truth" else row: image for row, image in super().pictures(example, answers).items()}

    def answers(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Grey noise: what no learning gives."""
        random = np.random.default_rng(zlib.crc32(x.tobytes()))
        return {"noise": random.random((*(self.size,) * self.ndim, 1), np.float32)}
