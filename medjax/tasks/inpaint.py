"""Inpainting: images in which pixels or boxes are missing."""

import functools
from dataclasses import dataclass

import jax

from medjax.classical import iterative
from medjax.physics.noise import Gaussian
from medjax.physics.optics import Mask, random_boxes, random_pixels
from medjax.physics.sampling import PerSample
from medjax.tasks._reconstruction import Reconstruction, Solver
from medjax.types import Array, Batch, Example, Key, UserError


@dataclass(frozen=True)
class Inpaint(Reconstruction):
    """The whole image from one whose `missing` are "pixels", all but `keep` of them, or `boxes` "boxes" of `size` a side.

    `sigma` is noise as a fraction of the range, on what is known.
    """

    missing: str = "pixels"
    keep: float = 0.5
    boxes: int = 6
    size: int = 16
    sigma: float = 0.0
    tv_weight: float = 1e-2

    def __post_init__(self):
        if self.missing not in ("pixels", "boxes"):
            raise UserError("config.task.missing", f"no {self.missing!r}; there is pixels, boxes")
        if not 0 < self.keep < 1 or self.boxes < 1 or self.size < 1:
            raise UserError("config.task.keep", f"keeps {self.keep}, {self.boxes} boxes of {self.size}; keep lies between "
                            "0 and 1, boxes and size are at least 1")

    def example(self, key: Key, batch: Batch) -> Example:
        """Images with holes, filled with the mean of the rest, to whole ones."""
        clean, mask = self.clean(batch)
        hole_key, noise_key = jax.random.split(key)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(hole_key, batch["id"])
        operator = PerSample(Mask(jax.vmap(lambda key: self._known(key, clean.shape[1:-1])[None])(keys)))
        y = clean
        if self.sigma:
            y = self.per_sample(noise_key, batch, Gaussian(self.sigma), y)
        return self.measured(operator, operator(y), clean, mask)

    def solvers(self) -> dict[str, Solver]:
        """Total variation."""
        return {"tv": functools.partial(iterative.tv, weight=self.tv_weight, iterations=200)}

    def _known(self, key: Key, shape: tuple[int, ...]) -> Array:
        return random_pixels(key, shape, self.keep) if self.missing == "pixels" else random_boxes(
            key, shape, self.boxes, self.size)
