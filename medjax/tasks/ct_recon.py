"""CT from its sinogram: few views, a limited angle, a low dose, or all of them."""

import functools
import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from medjax.classical import iterative
from medjax.ops.window import WATER_PER_MM
from medjax.physics import ct
from medjax.physics.dose import LowDose
from medjax.physics.fbp import WINDOWS
from medjax.tasks._reconstruction import Reconstruction, Solver
from medjax.types import Array, Batch, Example, Key, UserError, pytree, static

AIR = -1000.0


@pytree
class Scan:
    """A CT geometry, divided by about its norm; `init` is filtered back-projection."""

    geometry: Any = static()
    norm: float = static()
    filter: str = static(default="ramp")

    def __call__(self, x: Array) -> Array:
        return self.geometry(x) / self.norm

    def adjoint(self, y: Array) -> Array:
        return self.geometry.adjoint(y) / self.norm

    def init(self, y: Array) -> Array:
        return self.geometry.fbp(y * self.norm, self.filter)


@dataclass(frozen=True)
class CtRecon(Reconstruction):
    """An image in HU from `views` over `span` degrees (180 is complete, less a limited angle) of `beam` parallel or fan.

    `photons` reach a detector unattenuated at full dose, 0 for no noise; `dose` is the fraction that is used, and
    `electronic` the read-out noise in counts. `pixel_mm` is the size of the images' pixels. The range of values starts
    at air, -1000 HU, so that unit range and attenuation are proportional. `filter` is that of the input, ramp,
    shepp-logan, cosine or hann.
    """

    views: int = 60
    span: float = 180.0
    beam: str = "parallel"
    pixel_mm: float = 0.8
    photons: float = 0.0
    dose: float = 1.0
    electronic: float = 0.0
    filter: str = "ramp"
    tv_weight: float = 3e-4

    def __post_init__(self):
        if self.data_range[0] != AIR:
            raise UserError("config.data.range", f"{self.data_range}; CT needs a range in HU that starts at air: "
                            "--config.data.range='(-1000.0, 2000.0)'")
        if self.ndim != 2:
            raise UserError("config.data.ndim", f"{self.ndim}; CT is reconstructed slice by slice: set it to 2")
        if self.beam not in ("parallel", "fan"):
            raise UserError("config.task.beam", f"no {self.beam!r}; there is parallel, fan")
        if self.filter not in WINDOWS:
            raise UserError("config.task.filter", f"no {self.filter!r}; there is {', '.join(WINDOWS)}")
        if self.views < 1 or not 0 < self.span <= 360 or self.photons < 0 or not 0 < self.dose <= 1:
            raise UserError("config.task", f"{self.views} views over {self.span} degrees, {self.photons} photons, dose "
                            f"{self.dose}; give at least one view, up to 360 degrees, photons >= 0, 0 < dose <= 1")

    @property
    def attenuation(self) -> float:
        """Attenuation per mm of the top of the range."""
        return WATER_PER_MM * (self.data_range[1] - AIR) / 1000

    def operator(self, shape: tuple[int, int]) -> Scan:
        """The scanner for images of `shape`, on unit range."""
        return _scan(shape, self.views, self.span, self.beam, self.pixel_mm, self.filter)

    def example(self, key: Key, batch: Batch) -> Example:
        """Images to sinograms and back by FBP, to clean images."""
        clean, mask = self.clean(batch)
        clean = jnp.maximum(clean, 0)
        operator = self.operator(clean.shape[1:-1])
        y = operator(clean)
        if self.photons:
            scale = self.attenuation * operator.norm
            noise = LowDose(self.photons, self.dose, self.electronic)
            y = self.per_sample(key, batch, lambda key, y: noise(key, y * scale) / scale, y)
        return self.measured(operator, y, clean, mask)

    def solvers(self) -> dict[str, Solver]:
        """FBP with a smooth filter, SIRT, CGLS stopped early, total variation."""
        return {
            "fbp-hann": lambda A, y: A.geometry.fbp(y * A.norm, "hann"),
            "sirt": functools.partial(iterative.sirt, iterations=60),
            "cgls": functools.partial(iterative.cgls, iterations=20),
            "tv": functools.partial(iterative.tv, weight=self.tv_weight, iterations=400),
        }

    def keep_part(self, key: Key, context: dict[str, Any], share: float) -> Array:
        """Whole views, drawn for each sample."""
        batch, views = context["y"].shape[:2]
        return (jax.random.uniform(key, (batch, views, 1, 1)) < share).astype(jnp.float32)

    def share(self, keep: Array) -> Array:
        """Views that are left out are missing from the sum over views."""
        return jnp.maximum(keep.mean((1, 2, 3)), 1 / keep.shape[1])


@functools.lru_cache(maxsize=16)
def _scan(shape, views, span, beam, pixel_mm, filter):
    radius = math.hypot(*shape) / 2 * pixel_mm
    if beam == "parallel":
        detectors = 2 * math.ceil(radius / pixel_mm)
        geometry = ct.Parallel(shape, pixel_mm, ct.angles(views, span), detectors, pixel_mm)
    else:  # the source at twice the image's diagonal, the detector as far behind the axis: magnification 2
        source = 4 * radius
        width = 2 * source * math.tan(math.asin(radius / source))
        detectors = 2 * math.ceil(width / (2 * pixel_mm))
        geometry = ct.Fan(shape, pixel_mm, ct.angles(views, span), detectors, 2 * pixel_mm, source_mm=source,
                          detector_distance_mm=2 * source)
    return Scan(geometry, float(np.sqrt(views * max(shape)) * pixel_mm), filter)
