"""Synthesis: new images from noise, like those of a data set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np

from medjax.measures import sets
from medjax.models.features import Features, random_network
from medjax.tasks._base import TaskBase
from medjax.types import (
    Array,
    Batch,
    Example,
    Key,
    Mean,
    NetworkInput,
    Port,
    Prediction,
    Record,
    Reference,
    UserError,
    Value,
)


@dataclass(frozen=True)
class Synthesis(TaskBase):
    """From `noise` normal numbers an image of `size` voxels along every axis, like the data set's.

    Data set images are padded to a square (a cube) with 0 and brought to that size. What is made has no true answer: it is
    evaluated as a set, by the Fréchet distance to the true images in the codes of a network, that of the run in
    `config.features_workdir` or, without one, a fixed random network. Distances compare only under one network and one
    number of images.
    """

    noise: int = 100
    size: int = 64
    features: Features = field(kw_only=True)

    tileable = False
    metrics = (sets.FRECHET, sets.DIVERSITY)

    def __post_init__(self) -> None:
        if self.noise < 1 or self.size < 8:
            raise UserError("config.task", f"noise={self.noise}, size={self.size}; give at least 1 number and 8 voxels")

    def input(self, batch: Batch) -> NetworkInput:
        """Noise `(B, noise)` from the samples' ids, and the grid to fill."""
        return self._noise(jax.random.key(0), batch, batch["image"].shape[-1])

    def example(self, key: Key, batch: Batch) -> Example:
        """Noise to true images, with which it has nothing to do."""
        image, mask = self.unit(batch)
        image = self._sized(image * mask)
        mask = jnp.broadcast_to(mask.any(tuple(range(1, mask.ndim)), keepdims=True), (*image.shape[:-1], 1))
        return self.example_of(batch, self._noise(key, batch, image.shape[-1]), image, mask)

    def _noise(self, key: Key, batch: Batch, channels: int) -> NetworkInput:
        noise = jax.vmap(lambda key: jax.random.normal(key, (self.noise,)))(self.keys(key, batch))
        return NetworkInput(noise, jnp.zeros((noise.shape[0], *(self.size,) * self.ndim, 0)))

    def _sized(self, image: Array) -> Array:
        longest = max(image.shape[1:-1])
        pads = [((longest - n) // 2, longest - n - (longest - n) // 2) for n in image.shape[1:-1]]
        square = jnp.pad(image, [(0, 0), *pads, (0, 0)])
        shape = (image.shape[0], *(self.size,) * self.ndim, image.shape[-1])
        return square if square.shape == shape else jax.image.resize(square, shape, "linear")

    def losses(self, pred: Array, example: Example) -> dict[str, Mean]:
        """Nothing but the adversarial loss: "none" is 0."""
        if pred.shape != example.target.shape:
            raise UserError("config.model.name", f"it makes images of {pred.shape[1:]} and the task's are "
                            f"{example.target.shape[1:]}; use dcgan_generator")
        return {"none": Mean(jnp.zeros(()), jnp.ones(()))}

    def measure(self, pred: Prediction, example: Example) -> dict[str, Array]:
        """Per sample: the codes `(B, K)` of the made and the true image; `summarise` makes a distance of them."""
        network = self.features.network or random_network(self.ndim, example.target.shape[-1])
        return {"code": network.code(jnp.broadcast_to(pred.image, example.target.shape)),
                "true_code": network.code(example.target)}

    def summarise(self, samples: Sequence[Mapping[str, Value]]) -> dict[str, Value]:
        """The Fréchet distance, and how much made images differ from one another, as a part of how much true ones do."""
        made, true = (np.array([sample[name] for sample in samples], np.float64) for name in ("code", "true_code"))
        if len(made) < 2:
            return {"frechet": float("nan"), "diversity": float("nan")}
        spread = [np.sqrt(np.var(codes, axis=0).sum()) for codes in (made, true)]
        return {"frechet": sets.frechet(made, true), "diversity": float(spread[0] / spread[1])}

    def references(self) -> dict[str, Reference]:
        """Grey noise: what no learning gives."""
        def run(example: Example, _: float) -> Array:
            keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(1), jnp.asarray(example.ids))
            return jax.vmap(lambda key: jax.random.uniform(key, (*(self.size,) * self.ndim, 1)))(keys)

        return {"noise": Reference(run)}

    def render(self, example: Example, predictions: Mapping[str, Prediction]) -> dict[str, np.ndarray]:
        """What is made, and an image of the data, which is nobody's truth."""
        return {row: self.in_units(pred.image) for row, pred in predictions.items()} | {
            "of the data": self.in_units(example.target)}

    def exported_output(self, channels: int) -> Port:
        """Raises UserError: images are made from noise, not from a file."""
        raise UserError("--workdir", "a synthesis run can't be exported: it makes images from noise, not from images")

    def arrange(self, records: Sequence[Record]) -> list[Record]:
        """Raises UserError: images are made from noise, not from a file."""
        raise UserError("--workdir", "a synthesis run makes images from noise, not from a file; its evaluation shows them")
