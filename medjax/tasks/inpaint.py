"""Inpainting: images in which pixels or boxes are missing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from medjax.classical._declared import methods
from medjax.physics.noise import Gaussian
from medjax.physics.optics import Mask, random_boxes, random_pixels
from medjax.physics.sampling import PerSample
from medjax.tasks._reconstruction import Reconstruction, measurement_of
from medjax.types import Array, Batch, Example, Key, Measurement, NetworkInput, Port, Reference, UserError, check_choice


@dataclass(frozen=True)
class Inpaint(Reconstruction):
    """The whole image from one whose `missing` are "pixels", all but `keep` of them, or `boxes` "boxes" of `size` a side.

    `sigma` is noise as a fraction of the range, on what is known. A file comes with a second one, "known", that is 0
    where the image is missing.
    """

    missing: str = "pixels"
    keep: float = 0.5
    boxes: int = 6
    size: int = 16
    sigma: float = 0.0

    inputs = ("image", "known")

    def __post_init__(self) -> None:
        check_choice("config.task.missing", self.missing, ("pixels", "boxes"))
        if not 0 < self.keep < 1 or self.boxes < 1 or self.size < 1:
            raise UserError("config.task.keep", f"keeps {self.keep}, {self.boxes} boxes of {self.size}; keep lies between "
                            "0 and 1, boxes and size are at least 1")

    @property
    def noisy(self) -> bool:
        """Whether `sigma` is above 0."""
        return self.sigma > 0

    def noise(self, measurement: Measurement, spacing_mm: Array) -> Array:
        """`sigma`."""
        return jnp.asarray(self.sigma)

    def simulate(self, key: Key, batch: Batch, clean: Array) -> Batch:
        """Images with holes, and which of their voxels are known."""
        hole_key, noise_key = jax.random.split(key)
        known = jax.vmap(lambda key: self._known(key, clean.shape[1:-1]))(self.keys(hole_key, batch))
        y = self.per_sample(noise_key, batch, Gaussian(self.sigma), clean) if self.sigma else clean
        return self.with_image(batch, y) | {"known": known}

    def input(self, batch: Batch) -> NetworkInput:
        """Images whose holes are filled with the mean of the rest; the context knows the holes."""
        image, _ = self.unit(batch)
        operator = PerSample(Mask((batch["known"] != 0).astype(image.dtype)[:, None]))
        return self.measured(operator, operator(image))

    def references(self) -> dict[str, Reference]:
        """The input, the solvers, and interpolation between known pixels."""
        def between(fill: Callable[..., np.ndarray]) -> Callable[[Example, float], Array]:
            def run(example: Example, strength: float) -> Array:
                given = measurement_of(example.input.context)
                known = np.asarray(given.operator(jnp.ones_like(given.y)))[..., 0] > 0
                return jnp.asarray(np.stack([fill(*one, strength) for one in zip(np.asarray(given.y), known, strict=True)]))

            return run

        return super().references() | {name: Reference(between(fn), strengths)
                                       for name, (fn, strengths) in methods("inpaint").items()}

    def exported_inputs(self, channels: int, size: Sequence[int | str]) -> tuple[Port, ...]:
        """The image with holes, and which of its voxels are known."""
        known = Port("known", (*size, 1), "1 where the image is known, 0 where it is missing",
                     example=lambda random, shape: random.integers(0, 2, shape))
        return *super().exported_inputs(channels, size), known

    def _known(self, key: Key, shape: tuple[int, ...]) -> Array:
        return random_pixels(key, shape, self.keep) if self.missing == "pixels" else random_boxes(
            key, shape, self.boxes, self.size)
