"""Super-resolution in 2-D and 3-D: along every axis, or through-plane only."""

from dataclasses import dataclass
from functools import partial

import jax

from medjax.classical import interpolate as classical
from medjax.physics.noise import Gaussian
from medjax.physics.optics import Decimate
from medjax.tasks._restoration import Baseline, Restoration
from medjax.types import Array, Batch, Example, Key, UserError


@dataclass(frozen=True)
class SuperRes(Restoration):
    """The fine image from a coarse one: blurred against aliasing, decimated by `factor`, with a little noise.

    `axes` is "all" (isotropic) or "through_plane" (the first axis of a volume: thick slices). `grid` is what the network
    is given: "coarse" (models with pixel shuffle), or "fine", interpolated to the target's grid (SRCNN, U-Net).
    `psf` is the blur, "gaussian" (full width `fwhm` coarse voxels) or "box"; `sigma` the noise as a fraction of the range.
    """

    factor: int = 2
    axes: str = "all"
    grid: str = "coarse"
    psf: str = "gaussian"
    fwhm: float = 1.0
    sigma: float = 0.0

    def __post_init__(self):
        if self.factor not in (2, 3, 4):
            raise UserError("config.task.factor", f"{self.factor} is not 2, 3 or 4")
        if self.axes not in ("all", "through_plane"):
            raise UserError("config.task.axes", f"no {self.axes!r}; there is all, through_plane")
        if self.axes == "through_plane" and self.ndim != 3:
            raise UserError("config.task.axes", "through_plane needs volumes: set config.data.ndim=3")
        if self.grid not in ("coarse", "fine"):
            raise UserError("config.task.grid", f"no {self.grid!r}; there is coarse, fine")

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

    def example(self, key: Key, batch: Batch) -> Example:
        """Coarse images to fine ones; the fine ones are cut to a multiple of the factor."""
        fine, mask = (self._cut(image) for image in self.clean(batch))
        coarse = self.operator(fine)
        if self.sigma:
            coarse = self.per_sample(key, batch, Gaussian(self.sigma), coarse)
        return Example(self.operator.init(coarse) if self.grid == "fine" else coarse, fine, mask)

    def baselines(self) -> dict[str, Baseline]:
        """Library interpolators, from the coarse grid."""
        if self.grid == "fine":
            return {}
        return {name: partial(getattr(classical, name), factor=self.factors) for name in ("bicubic", "lanczos")}

    def show(self, x: Array) -> Array:
        """The coarse image, every voxel repeated."""
        for axis, factor in enumerate(self.scale, start=1):
            x = jax.numpy.repeat(x, factor, axis)
        return x

    def _cut(self, x: Array) -> Array:
        space = (slice(0, size - size % f) for size, f in zip(x.shape[1:-1], self.factors, strict=True))
        return x[(slice(None), *space)]
