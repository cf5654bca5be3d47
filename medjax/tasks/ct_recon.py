"""CT from its sinogram: few views, a limited angle, a low dose, or all of them; simulated from images, or as measured."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from medjax.classical import iterative
from medjax.data import ct_geometry
from medjax.ops.window import WATER_PER_MM
from medjax.physics import ct
from medjax.physics.dose import LowDose
from medjax.physics.fbp import WINDOWS
from medjax.physics.noise_level import photons_of
from medjax.tasks._base import check_spacing, spacing_of, whole_sizes
from medjax.tasks._reconstruction import Reconstruction, Solver, operator_of, restricted
from medjax.types import (
    Array,
    Batch,
    Example,
    Key,
    Measurement,
    NetworkInput,
    Output,
    Port,
    Prediction,
    Record,
    Splits,
    UserError,
    check_choice,
    pytree,
    static,
)

AIR = -1000.0


@pytree
class Scan:
    """A CT geometry whose unit of length is the pixel, divided by about its norm; `init` is filtered back-projection."""

    geometry: ct.Planar = static()
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
    """An image in HU from `views` over `span` degrees (0: as many as are complete) of `beam` parallel or fan.

    `photons` reach a detector unattenuated at full dose, 0 for no noise; `dose` is the fraction that is used, and
    `electronic` the read-out noise in counts. The size of the pixels is that of the files. The range of values starts
    at air, -1000 HU, so that unit range and attenuation are proportional. `filter` is that of the input, ramp,
    shepp-logan, cosine or hann. A measured sinogram brings its own geometry.

    What simulates is finer than what reconstructs (Kaipio and Somersalo, 2007): images are interpolated to
    `oversampling` times as many pixels along each axis, as in the data set LoDoPaB-CT (Leuschner et al., 2021), every
    detector element is made of as many, and it reads the mean of their intensities. 1 simulates by the very operator
    that is inverted, the "inverse crime": scores are then better than they would be of a scanner.
    """

    views: int = 60
    span: float = 0.0
    beam: str = "parallel"
    photons: float = 0.0
    dose: float = 1.0
    electronic: float = 0.0
    filter: str = "ramp"
    oversampling: int = 2

    kind = "sinogram"
    keeps_format = False
    tileable = False

    def __post_init__(self) -> None:
        if self.data_range[0] != AIR:
            raise UserError("config.data.range", f"{self.data_range}; CT needs a range in HU that starts at air: "
                            "--config.data.range='(-1000.0, 2000.0)'")
        if self.ndim != 2:
            raise UserError("config.data.ndim", f"{self.ndim}; CT is reconstructed slice by slice: set it to 2")
        check_choice("config.task.beam", self.beam, ("parallel", "fan"))
        check_choice("config.task.filter", self.filter, WINDOWS)
        if self.views < 1 or not 0 <= self.span <= 360 or self.photons < 0 or not 0 < self.dose <= 1:
            raise UserError("config.task", f"{self.views} views over {self.span} degrees, {self.photons} photons, dose "
                            f"{self.dose}; give at least one view, up to 360 degrees, photons >= 0, 0 < dose <= 1")
        if self.oversampling < 1:
            raise UserError("config.task.oversampling", f"{self.oversampling}; give a whole number from 1")

    def resolve_from_data(self, splits: Splits) -> dict[str, object]:
        """Nothing. Raises UserError for images whose pixel size is not known."""
        check_spacing(splits, "attenuation depends on")
        return {}

    @property
    def attenuation(self) -> float:
        """Attenuation per mm of the top of the range."""
        return WATER_PER_MM * (self.data_range[1] - AIR) / 1000

    def operator(self, shape: tuple[int, ...]) -> Scan:
        """The simulated scanner for images of `shape`, on unit range."""
        return _scan(shape, self.views, self.span, self.beam, self.filter)

    def clean(self, batch: Batch) -> tuple[Array, Array]:
        """Nothing attenuates less than air."""
        image, mask = self.unit(batch)
        return jnp.maximum(image, 0), mask

    def simulate(self, key: Key, batch: Batch, clean: Array) -> Batch:
        """Sinograms of line integrals `(B, views, detectors, 1)` on a grid `oversampling` times finer, with photon noise."""
        geometry, n = self.operator(clean.shape[1:-1]).geometry, self.oversampling
        y = _element_means(geometry.oversampled(n)(_interpolated(clean, n)) * self._per_pixel(spacing_of(batch, 2)), n)
        if self.photons:
            y = self.per_sample(key, batch, LowDose(self.photons, self.dose, self.electronic), y)
        return self.with_image(batch, clean) | {"sinogram": y}

    def input(self, batch: Batch) -> NetworkInput:
        """The filtered back-projection of the sinogram; the context has the sinogram and its scanner."""
        given = operator_of(batch)
        operator = given if isinstance(given, Scan) else self.operator(batch["image"].shape[1:-1])
        return self.measured(operator, batch["sinogram"] / (operator.norm * self._per_pixel(spacing_of(batch, 2))))

    def _per_pixel(self, spacing_mm: Array) -> Array:
        """What the top of the range attenuates per pixel, `(B, 1, 1, 1)`."""
        return (self.attenuation * spacing_mm.mean(1)).reshape(-1, 1, 1, 1)

    @property
    def noisy(self) -> bool:
        """Whether there are `photons`."""
        return self.photons > 0

    def noise(self, measurement: Measurement, spacing_mm: Array) -> Array:
        """That of as many photons as the sinogram's own noise shows: of measured ones nobody has said how many."""
        operator = measurement.operator
        assert isinstance(operator, Scan)
        scale = operator.norm * self._per_pixel(spacing_mm)
        p = measurement.y * scale
        return jnp.exp(p / 2) / jnp.sqrt(photons_of(p)).reshape(-1, 1, 1, 1) / scale

    def solvers(self) -> dict[str, tuple[Solver, tuple[float, ...]]]:
        """FBP with a smooth filter, SIRT, and those for any operator."""
        return {"fbp-hann": (lambda A, y, _: A.geometry.fbp(y * A.norm, "hann"), ()),
                "sirt": (lambda A, y, _: iterative.sirt(A, y, 60), ())} | super().solvers()

    def draw_share(self, key: Key, measurement: Measurement, share: float) -> Array:
        """Whole views, drawn for each sample."""
        batch, views = measurement.y.shape[:2]
        return (jax.random.uniform(key, (batch, views, 1, 1)) < share).astype(jnp.float32)

    def restricted(self, example: Example, keep: Array) -> Example:
        """As if only some views had been measured: the others are missing from the sum over views."""
        return restricted(example, keep, jnp.maximum(keep.mean((1, 2, 3)), 1 / keep.shape[1]))

    def arrange(self, records: Sequence[Record]) -> list[Record]:
        """Measured sinograms, each with the operator of its geometry. Raises UserError for images."""
        for record in records:
            if "sinogram" not in record.extras:
                raise UserError(record.id, "holds an image, and ct_recon reconstructs sinograms; give a sinogram with its "
                                "geometry (.npy and .json, or .mat)")
        return list(records)

    def operators(self, record: Record) -> Scan:
        """The scanner of a measured sinogram, from its geometry."""
        geometry = ct_geometry.operator(str(record.extras["ct_geometry"]), record.id).in_pixels()
        return Scan(geometry, _norm(geometry), self.filter)

    def exported_inputs(self, channels: int, size: Sequence[int | str]) -> tuple[Port, ...]:
        """Sinograms of the simulated scanner for images of `size`. Raises UserError for sizes that are free."""
        geometry = self.operator(whole_sizes(size, "the geometry of the scanner follows from it")).geometry
        low, high = geometry.angles[0], geometry.angles[-1]
        meaning = (f"line integrals of the attenuation, {self.beam} beam, {len(geometry.angles)} views from {low:.6g} to "
                   f"{high:.6g} radians, {geometry.detectors} detector elements of {geometry.detector_mm:g} pixels")
        return (Port("sinogram", (len(geometry.angles), geometry.detectors, 1), meaning, example=_disc_with_noise),)

    def outputs(self, predictions: Sequence[Prediction], records: Sequence[Record]) -> list[Output]:
        """The reconstructed image in HU."""
        return self.nifti_outputs(predictions, records)


def _interpolated(image: Array, factor: int) -> Array:
    """On `factor` times as many pixels `(B, H, W, C)` that fill the same field, by cubic convolution (Keys, 1981).

    Linear interpolation blurs: line integrals of an ellipse are then further from the exact ones than from the coarse image.
    """
    rows, columns = image.shape[1:-1]
    return jax.image.resize(image, (image.shape[0], rows * factor, columns * factor, image.shape[-1]), "cubic")


def _element_means(y: Array, factor: int) -> Array:
    """What elements of `factor` neighbours each read, `(B, views, detectors, C)`: the mean of intensities `exp(-y)`."""
    batch, views, detectors, channels = y.shape
    parts = y.reshape(batch, views, detectors // factor, factor, channels)
    return -jax.nn.logsumexp(-parts, 3, b=1 / factor) if factor > 1 else y


def _disc_with_noise(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Line integrals up to 2 through a disc over half of the detector, with noise of 1 %."""
    place = np.linspace(-2, 2, shape[2])[:, None]
    return 2 * np.sqrt(np.maximum(1 - place**2, 0)) + 0.02 * random.standard_normal(shape)


def _norm(geometry: ct.Planar) -> float:
    views, shape = len(geometry.angles), geometry.shape
    return float(np.sqrt(views * max(shape)))


@functools.lru_cache(maxsize=16)
def _scan(shape: tuple[int, ...], views: int, span: float, beam: str, filter: str) -> Scan:
    rows, columns = shape
    radius = math.hypot(rows, columns) / 2
    if beam == "parallel":
        detectors = 2 * math.ceil(radius)
        geometry: ct.Planar = ct.Parallel((rows, columns), 1.0, ct.angles(views, span or 180.0), detectors, 1.0)
    else:  # the source at twice the image's diagonal, the detector as far behind the axis: magnification 2
        source = 4 * radius
        width = 2 * source * math.tan(math.asin(radius / source))
        detectors = 2 * math.ceil(width / 2)
        geometry = ct.Fan((rows, columns), 1.0, ct.angles(views, span or 360.0), detectors, 2.0, source_mm=source,
                          detector_distance_mm=2 * source)
    return Scan(geometry, float(np.sqrt(views * max(shape))), filter)
