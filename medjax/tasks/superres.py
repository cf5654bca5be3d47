"""Super-resolution in 2-D and 3-D: along every axis, or through-plane only."""

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from medjax.classical._declared import methods
from medjax.physics.noise import Gaussian
from medjax.physics.optics import Decimate
from medjax.tasks._reconstruction import Reconstruction, measurement_of
from medjax.types import Array, Batch, Example, Key, Measurement, NetworkInput, Reference, UserError, check_choice


@dataclass(frozen=True)
class SuperRes(Reconstruction):
    """The fine image from a coarse one: blurred against aliasing, decimated by `factor`, with a little noise.

    `axes` is "all" (isotropic) or "through_plane" (the first axis of a volume: thick slices). `grid` is what the network
    is given: "coarse" (models with pixel shuffle), or "fine", interpolated to the target's grid (SRCNN, U-Net).
    `psf` is the blur, "gaussian" (full width `fwhm` coarse voxels) or "box"; `sigma` the noise as a fraction of the range.
    The truth is the fine image itself, decimated by the operator that references know.
    """

    factor: int = 2
    axes: str = "all"
    grid: str = "coarse"
    psf: str = "gaussian"
    fwhm: float = 1.0
    sigma: float = 0.0

    def __post_init__(self) -> None:
        if self.factor not in (2, 3, 4):
            raise UserError("config.task.factor", f"{self.factor} is not 2, 3 or 4")
        check_choice("config.task.axes", self.axes, ("all", "through_plane"))
        check_choice("config.task.grid", self.grid, ("coarse", "fine"))
        if self.axes == "through_plane" and self.ndim != 3:
            raise UserError("config.task.axes", "through_plane needs volumes: set config.data.ndim=3")

    @property
    def factors(self) -> tuple[int, ...]:
        """The decimation per spatial axis."""
        return (self.factor,) * self.ndim if self.axes == "all" else (self.factor, 1, 1)

    @property
    def scale(self) -> tuple[int, ...]:
        """Target voxels per input voxel: the factors on the coarse grid, 1 on the fine."""
        return self.factors if self.grid == "coarse" else (1,) * self.ndim

    @property
    def operator(self) -> Decimate:
        """Fine to coarse."""
        return Decimate(factor=self.factors, psf=self.psf, fwhm=self.fwhm)

    @property
    def noisy(self) -> bool:
        """Whether `sigma` is above 0."""
        return self.sigma > 0

    def noise(self, measurement: Measurement, spacing_mm: Array) -> Array:
        """`sigma`."""
        return jnp.asarray(self.sigma)

    def clean(self, batch: Batch) -> tuple[Array, Array]:
        """The fine images, cut to a multiple of the factors."""
        image, mask = self.unit(batch)
        space = (slice(None), *(slice(0, n - n % f) for n, f in zip(image.shape[1:-1], self.factors, strict=True)))
        return image[space], mask[space]

    def simulate(self, key: Key, batch: Batch, clean: Array) -> Batch:
        """Coarse images."""
        coarse = self.operator(clean)
        return self.with_image(batch, self.per_sample(key, batch, Gaussian(self.sigma), coarse) if self.sigma else coarse)

    def input(self, batch: Batch) -> NetworkInput:
        """The coarse image, or what interpolates it on the fine grid."""
        coarse, _ = self.unit(batch)
        image = self.operator.init(coarse) if self.grid == "fine" else coarse
        return NetworkInput(image, Measurement(self.operator, coarse))

    def references(self) -> dict[str, Reference]:
        """Interpolation of the coarse image, and reconstructions that know the blur."""
        found = {name: Reference(_interpolated(fn, self.factors), strengths)
                 for name, (fn, strengths) in methods("interpolate").items()}
        return super().references() | found

    def on_target_grid(self, image: Array) -> Array:
        """The coarse image, every voxel repeated."""
        for axis, factor in enumerate(self.scale, start=1):
            image = jnp.repeat(image, factor, axis)
        return image


def _interpolated(function: Callable[..., np.ndarray], factors: tuple[int, ...]) -> Callable[[Example, float], Array]:
    def run(example: Example, strength: float) -> Array:
        coarse = np.asarray(measurement_of(example.input.context).y)
        return jnp.asarray(np.stack([function(x, factors, strength) for x in coarse]))

    return run
