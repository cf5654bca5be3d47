"""MRI from undersampled k-space of many coils: simulated from images, or as it was measured."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from medjax.ops.fft import fft, ifft
from medjax.physics.mri import (
    Cartesian,
    birdcage,
    equispaced_lines,
    random_lines,
    ring_covariance,
    smooth_phase,
    to_channels,
    to_complex,
)
from medjax.physics.noise import CoilNoise
from medjax.physics.noise_level import kspace_noise
from medjax.physics.sampling import ComplexChannels
from medjax.tasks._base import whole_sizes
from medjax.tasks._reconstruction import Reconstruction, Solver, measurement_of
from medjax.types import (
    Array,
    Batch,
    Example,
    Key,
    Mean,
    Measurement,
    Metric,
    NetworkInput,
    Operator,
    Output,
    Port,
    Prediction,
    Record,
    Reference,
    Splits,
    UserError,
    check_choice,
)

HELD_OUT = Metric("held_out", "residual of held-out samples", lower_is_better=True, decimals=4)
LINES: dict[str, Callable[..., Array]] = {"random": random_lines, "equispaced": equispaced_lines}


@dataclass(frozen=True)
class MriRecon(Reconstruction):
    """Complex images, as two channels, from k-space sampled on `mask` "random" or "equispaced" lines.

    One of `acceleration` lines is kept, among them the middle part `centre`. From images, `coils` of a birdcage are
    simulated, with a smooth phase that is drawn for each sample and noise of `sigma`, a fraction of the range, in real and
    imaginary part each; the noise of neighbouring coils has the correlation `coil_correlation`
    (`medjax.physics.mri.ring_covariance`; 0: independent), which no method is told. Nor are the sensitivities: networks and
    references get what is estimated from the middle of the noisy k-space, and the target has the phase of an image that
    these combine. The grid of voxels is that of the image, in the simulation as in the reconstruction.

    Records that carry "kspace" are taken as measured, with the sensitivities "maps" if they have them, or those from their
    centre; with `acceleration` 1 nothing more is left out. Metrics compare magnitudes; "fastmri_ssim" among `measures` is
    SSIM as fastMRI's tables have it, by the largest value of the file.

    With `magnitudes` networks see the magnitude of that image and make that of the whole one, as fastMRI's U-Net does: one
    channel each. Networks with physics inside need complex images.

    K-space with gaps has no truth. There the part `held_out` of the samples outside the middle is kept back in evaluation,
    and the one metric is the residual in it, as in SSDU (Yaman et al., 2020).
    """

    acceleration: float = 4.0
    centre: float = 0.08
    mask: str = "random"
    coils: int = 8
    sigma: float = 0.005
    coil_correlation: float = 0.1
    held_out: float = 0.0
    magnitudes: bool = False

    kind = "kspace"
    keeps_format = False
    tileable = False

    def __post_init__(self) -> None:
        if self.data_range[0] != 0:
            raise UserError("config.data.range", f"{self.data_range}; k-space needs a range that starts at 0: "
                            f"--config.data.range='(0.0, {self.data_range[1]})'")
        check_choice("config.task.mask", self.mask, LINES)
        if self.acceleration < 1 or not 0 < self.centre <= 1 or self.coils < 1:
            raise UserError("config.task.acceleration", f"{self.acceleration}, centre {self.centre}, {self.coils} coils; "
                            "give at least 1, a part between 0 and 1, at least 1")
        if not 0 <= self.coil_correlation < 1:
            raise UserError("config.task.coil_correlation", f"{self.coil_correlation}; give a number from 0 to below 1")
        if not 0 <= self.held_out < 1:
            raise UserError("config.task.held_out", f"{self.held_out}; give a part from 0 to below 1")
        if self.held_out and self.magnitudes:
            raise UserError("config.task.held_out", f"{self.held_out}, but k-space does not follow from magnitudes; set "
                            "config.task.magnitudes to False")

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Those of restorations, or the residual in what is held out."""
        return (HELD_OUT,) if self.held_out else super().metrics

    def out_channels(self, channels: int) -> int:
        """Real and imaginary part of an image of one channel, or its magnitude."""
        if channels != 1:
            raise UserError("config.data", f"the images have {channels} channels; MRI is reconstructed from one")
        return 1 if self.magnitudes else 2

    def measured(self, operator: Operator, y: Array, coils: Array | None = None) -> NetworkInput:
        """The input of a measurement: its zero-filled image, complex or its magnitude."""
        given = super().measured(operator, y, coils)
        return replace(given, image=magnitude(given.image)) if self.magnitudes else given

    def resolve_from_data(self, splits: Splits) -> dict[str, object]:
        """Nothing; but measured k-space can't be cut, nor padded to one size."""
        sizes = {r.record.image.shape[-3:-1]: r.record.id for part in splits.values() for r in part
                 if "kspace" in r.record.extras}
        if len(sizes) > 1:
            found = ", ".join(f"{size[0]}x{size[1]} ({name})" for size, name in sizes.items())
            raise UserError("config.data.source", f"k-space of several matrix sizes: {found}; give files of one size: "
                            "config.data.source.matrix='(H, W)' takes those")
        gaps = next((r.record.id for part in splits.values() for r in part if _has_gaps(r.record)), "")
        if gaps and not self.held_out:
            raise UserError("config.task.held_out", f"{gaps}: its k-space has gaps, so there is no truth to compare with; "
                            "keep samples back: --config.task.held_out=0.1 --config.metric=held_out")
        for region in (r for part in splits.values() for r in part):
            whole = (region.start, region.stop) == (0, region.record.image.shape[0])
            if "kspace" in region.record.extras and region.record.ndim == self.ndim and not whole:
                raise UserError("config.data.fractions", "a slice of k-space can't be cut into parts; give at least three "
                                "files, or (1.0, 0.0, 0.0)")
        return {}

    def example(self, key: Key, batch: Batch) -> Example:
        """Zero-filled images to whole ones."""
        keys = self.keys(key, batch)
        clean, mask = self.unit(batch)
        if "kspace" in batch:
            maps, full, target = self._measured(batch)
            given = self.input({**batch, **self._undersampled(keys, full), "maps": _parts(maps)})
        else:
            coil_images = self._coil_images(keys, clean)
            given = self.input({**batch, **self._undersampled(keys, self._noisy(keys, fft(coil_images, self.ndim)))})
            target = _combined(_maps(given), coil_images, clean)
        target = magnitude(target) if self.magnitudes else target
        known = {name: batch[name] for name in ("volume_max",) if name in batch}
        return self.example_of(batch, given, target, mask, **known)

    def evaluation_example(self, key: Key, batch: Batch) -> Example:
        """As `example`; without the samples that are held out, which are in its extras."""
        example = self.example(key, batch)
        if not self.held_out:
            return example
        found = measurement_of(example.input.context)

        def drawn(key: Key, y: Array) -> Array:
            return self.draw_share(key, Measurement(found.operator, y[None]), 1 - self.held_out)[0]

        keep = jax.vmap(drawn)(self.keys(jax.random.fold_in(key, 4), batch), found.y)
        seen = self.restricted(example, keep)
        return replace(seen, extras={**seen.extras, "held_out": found.y * (1 - keep)})

    def input(self, batch: Batch) -> NetworkInput:
        """The zero-filled image; the context has k-space, its operator, and the coil images from its centre."""
        y = _complex(batch["kspace"]) / self.data_range[1]
        sampled = (jnp.abs(y).sum(1, keepdims=True) > 0).astype(jnp.float32)
        coils = _low_resolution(y, self.centre)
        maps = _complex(batch["maps"]) if "maps" in batch else _relative(coils)
        return self.measured(ComplexChannels(Cartesian(maps, sampled)), y, coils)

    def losses(self, pred: Array, example: Example) -> dict[str, Mean]:
        """On real and imaginary parts; SSIM on magnitudes."""
        found = super().losses(pred, example)
        if "ssim" in found:
            found["ssim"] = super().losses(magnitude(pred), _magnitudes(example))["ssim"]
        return found

    def measure(self, pred: Prediction, example: Example) -> dict[str, Array]:
        """As in every restoration, on magnitudes; or the residual in the held-out samples over their norm."""
        if self.held_out:
            return {HELD_OUT.name: _residual(pred.image, example)}
        return super().measure(pred, example)

    def residuals(self, image: Array, given: NetworkInput, spacing_mm: Array) -> Array:
        """As of any measurement; NaN of magnitudes, from which k-space does not follow."""
        if self.magnitudes or image.shape[-1] != 2:
            return jnp.full(image.shape[0], jnp.nan)
        return super().residuals(image, given, spacing_mm)

    @property
    def noisy(self) -> bool:
        """Whether `sigma` is above 0."""
        return self.sigma > 0

    def noise(self, measurement: Measurement, spacing_mm: Array) -> Array:
        """That of the outermost samples: of measured k-space nobody has said how strong it is."""
        return kspace_noise(measurement.y).reshape(-1, *(1,) * (measurement.y.ndim - 1))

    @property
    def has_intervals(self) -> bool:  # type: ignore[override]
        """Not without a truth."""
        return not self.held_out

    def compared(self, image: Array) -> Array:
        """Its magnitude."""
        return magnitude(image)

    def on_target_grid(self, image: Array) -> Array:
        """Its magnitude."""
        return magnitude(image)

    def render(self, example: Example, predictions: Mapping[str, Prediction]) -> dict[str, np.ndarray]:
        """Magnitudes."""
        shown = {row: Prediction(magnitude(pred.image)) for row, pred in predictions.items()}
        images = super().render(_magnitudes(example), shown)
        return {row: image for row, image in images.items() if row in shown or not self.held_out}

    def references(self) -> dict[str, Reference]:
        """The solvers, and the zero-filled image where samples were taken away; otherwise it may be the target itself."""
        found = super().references()
        if self.held_out:  # complex, as k-space is
            return found | {"input": Reference(lambda example, strength: example.input.image)}
        return found if self.acceleration > 1 else {name: found[name] for name in found if name != "input"}

    def solvers(self) -> dict[str, tuple[Solver, tuple[float, ...]]]:
        """CG-SENSE and sparse wavelets, on complex images."""
        names = {"tikhonov": "cg-sense", "l1-wavelet": "l1-wavelet"}
        return {names[name]: (_on_complex(fn), strengths) for name, (fn, strengths) in super().solvers().items()
                if name in names}

    def draw_share(self, key: Key, measurement: Measurement, share: float) -> Array:
        """Samples drawn at random; those in the middle are all kept."""
        y = measurement.y
        keep = jax.random.uniform(key, (y.shape[0], 1, *y.shape[2:])) < share
        middle = jnp.ones((), bool)
        for axis, n in enumerate(y.shape[2:], start=2):
            near = jnp.abs(jnp.arange(n) - n // 2) <= 2
            middle = middle & near.reshape(tuple(-1 if a == axis else 1 for a in range(y.ndim)))
        return (keep | middle).astype(jnp.float32)

    def restricted(self, example: Example, keep: Array) -> Example:
        """As if only some samples had been measured."""
        found = measurement_of(example.input.context)
        return replace(example, input=self.measured(_sampled(found.operator, keep), found.y * keep, found.coils))

    def exported_inputs(self, channels: int, size: Sequence[int | str]) -> tuple[Port, ...]:
        """K-space of any number of coils. Raises UserError for sizes that are free."""
        sizes = whole_sizes(size, "a Fourier transform has one size")
        meaning = ("k-space, orthonormal, its origin at index n // 2, 0 where nothing was measured: the real parts of all "
                   "coils, then the imaginary ones")
        return (Port("kspace", (*sizes, "2*c"), meaning, "{units}", (), self._random_image),)

    def exported_output(self, channels: int) -> Port:
        """The magnitude image."""
        return Port("restored", (), "magnitude image in the units of the measurement", "{units}")

    def exported(self, pred: Prediction, batch: Batch) -> Array:
        """The magnitude image."""
        return magnitude(pred.image) * self.data_range[1]

    def outputs(self, predictions: Sequence[Prediction], records: Sequence[Record]) -> list[Output]:
        """The magnitude image, in the units of the measurement."""
        return self.nifti_outputs(predictions, records, source_units=True)

    def _coil_images(self, keys: Key, clean: Array) -> Array:
        """What the coils see of images with a smooth phase, complex `(B, coils, *space)`."""
        space = clean.shape[1:-1]
        phase = jax.vmap(lambda key: smooth_phase(jax.random.fold_in(key, 2), space))(keys)
        return birdcage(self.coils, space)[None] * jnp.moveaxis(clean * phase[..., None], -1, 1)

    def _noisy(self, keys: Key, kspace: Array) -> Array:
        """K-space with the coils' noise."""
        factor = np.linalg.cholesky(ring_covariance(self.coils, self.coil_correlation))
        noise = CoilNoise(self.sigma, jnp.asarray(factor, jnp.float32))
        return jax.vmap(lambda key, y: noise(jax.random.fold_in(key, 3), y))(keys, kspace)

    def _undersampled(self, keys: Key, kspace: Array) -> dict[str, Array]:
        """The lines that are kept, as records carry k-space."""
        if self.acceleration > 1:
            space = kspace.shape[2:]
            lines = jax.vmap(lambda key: LINES[self.mask](jax.random.fold_in(key, 1), space, self.acceleration,
                                                          self.centre))(keys)
            kspace = kspace * lines[:, None]
        return {"kspace": _parts(kspace * self.data_range[1])}

    def _measured(self, batch: Batch) -> tuple[Array, Array, Array]:
        """Sensitivities, k-space and the image of all of it."""
        kspace = _complex(batch["kspace"]) / self.data_range[1]
        maps = _complex(batch["maps"]) if "maps" in batch else _relative(_low_resolution(kspace, self.centre))
        everything = Cartesian(maps, jnp.ones((1, 1, *kspace.shape[2:])))
        return maps, kspace, to_channels(everything.adjoint(kspace))


def magnitude(x: Array) -> Array:
    """Of complex images as two channels; one channel is a magnitude already."""
    return x if x.shape[-1] == 1 else jnp.abs(to_complex(jnp.asarray(x)))


def _residual(image: Array, example: Example) -> Array:
    """The distance `(B,)` of an image's k-space to the held-out samples, over their norm."""
    held = example.extras["held_out"]
    where = (jnp.abs(held).sum(1, keepdims=True) > 0).astype(jnp.float32)
    everything = ComplexChannels(Cartesian(_maps(example.input), where))
    miss, axes = everything(image) - held, tuple(range(1, held.ndim))
    power = jnp.square(jnp.abs(held)).sum(axes)
    return jnp.sqrt(jnp.square(jnp.abs(miss)).sum(axes) / jnp.where(power > 0, power, jnp.nan))


def _sampled(operator: Operator, keep: Array) -> Operator:
    """The operator of those samples that `keep` `(B, 1, *space)` marks."""
    assert isinstance(operator, ComplexChannels)
    return ComplexChannels(Cartesian(operator.operator.maps, operator.operator.mask * keep))


def _maps(given: NetworkInput) -> Array:
    """The sensitivities `(B, coils, *space)` in a network's input."""
    operator = measurement_of(given.context).operator
    assert isinstance(operator, ComplexChannels)
    maps: Array = operator.operator.maps
    return maps


def _combined(maps: Array, coil_images: Array, image: Array) -> Array:
    """The `image` of magnitudes `(B, *space, 1)`, complex: its phase is that of the coil images, combined by the maps."""
    seen = jnp.sum(jnp.conj(maps) * coil_images, axis=1)[..., None]
    size = jnp.abs(seen)
    return to_channels(jnp.abs(image) * jnp.where(size > 0, seen / jnp.where(size > 0, size, 1), 1))


def _magnitudes(example: Example) -> Example:
    return replace(example, target=magnitude(example.target))


def _on_complex(solver: Solver) -> Solver:
    def solve(A: Operator, y: Array, strength: float) -> Array:
        assert isinstance(A, ComplexChannels)
        return to_channels(solver(A.operator, y, strength))

    return solve


def _has_gaps(record: Record) -> bool:
    """Whether a place of the first slice's k-space was measured by no coil."""
    if "kspace" not in record.extras:
        return False
    kspace = record.extras["kspace"]
    return not np.any(kspace[0] if kspace.ndim == 4 else kspace, axis=-1).all()


def _low_resolution(kspace: Array, centre: float) -> Array:
    """Coil images from the middle part `centre` of k-space, smoothly cut."""
    for axis, n in enumerate(kspace.shape[2:], start=2):
        far = jnp.abs(jnp.arange(n) - n // 2) / (max(8, round(centre * n)) / 2)
        taper = jnp.where(far < 1, 0.5 + 0.5 * jnp.cos(jnp.pi * far), 0)
        kspace = kspace * taper.reshape(tuple(-1 if a == axis else 1 for a in range(kspace.ndim)))
    return ifft(kspace, kspace.ndim - 2)


def _relative(coil_images: Array, floor: float = 0.03) -> Array:
    """Coil images by their summed squares (Roemer 1990), the first coil's phase taken off; below `floor` they fade to 0."""
    size = jnp.sqrt(jnp.square(jnp.abs(coil_images)).sum(1, keepdims=True))
    least = floor * size.max(tuple(range(1, size.ndim)), keepdims=True)
    first = coil_images[:, :1]
    return coil_images * jnp.conj(first) / jnp.maximum(jnp.abs(first), 1e-12) / jnp.maximum(size, least)


def _complex(parts: Array) -> Array:
    """Real parts of all coils, then imaginary ones, as channels `(B, *space, 2 coils)`: complex `(B, coils, *space)`."""
    parts = jnp.moveaxis(parts, -1, 1)
    coils = parts.shape[1] // 2
    return jax.lax.complex(parts[:, :coils], parts[:, coils:])


def _parts(coils: Array) -> Array:
    """The inverse of `_complex`."""
    return jnp.moveaxis(jnp.concatenate([coils.real, coils.imag], 1), 1, -1)
