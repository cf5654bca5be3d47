"""MRI from undersampled k-space of many coils: simulated from images, or as it was measured."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from medjax.data.outputs import NiftiOutput, numbered
from medjax.ops.fft import fft, ifft
from medjax.physics.mri import (
    Cartesian,
    birdcage,
    equispaced_lines,
    random_lines,
    smooth_phase,
    to_channels,
    to_complex,
)
from medjax.physics.noise import Gaussian
from medjax.physics.sampling import ComplexChannels
from medjax.tasks._reconstruction import Reconstruction, Solver, restricted
from medjax.types import (
    Array,
    Batch,
    Example,
    Key,
    Mean,
    Measurement,
    NetworkInput,
    Operator,
    Output,
    Prediction,
    Record,
    Splits,
    UserError,
    check_choice,
)

LINES: dict[str, Callable[..., Array]] = {"random": random_lines, "equispaced": equispaced_lines}


@dataclass(frozen=True)
class MriRecon(Reconstruction):
    """Complex images, as two channels, from k-space sampled on `mask` "random" or "equispaced" lines.

    One of `acceleration` lines is kept, among them the middle part `centre`. From images, `coils` of a birdcage are
    simulated, with a smooth phase that is drawn for each sample and noise of `sigma`, a fraction of the range. Records that
    carry "kspace" are taken as measured, with the sensitivities "maps" if they have them, or simple ones from their
    centre; with `acceleration` 1 nothing more is left out. Metrics compare magnitudes; "fastmri_ssim" among `measures` is
    SSIM as fastMRI's tables have it, by the largest value of the file.
    """

    acceleration: float = 4.0
    centre: float = 0.08
    mask: str = "random"
    coils: int = 8
    sigma: float = 0.005

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

    def out_channels(self, channels: int) -> int:
        """Real and imaginary part of an image of one channel."""
        if channels != 1:
            raise UserError("config.data", f"the images have {channels} channels; MRI is reconstructed from one")
        return 2

    def resolve_from_data(self, splits: Splits) -> dict[str, object]:
        """Nothing; but measured k-space can't be cut, nor padded to one size."""
        sizes = {r.record.image.shape[-3:-1]: r.record.id for part in splits.values() for r in part
                 if "kspace" in r.record.extras}
        if len(sizes) > 1:
            found = ", ".join(f"{size[0]}x{size[1]} ({name})" for size, name in sizes.items())
            raise UserError("config.data.source", f"k-space of several matrix sizes: {found}; give files of one size: "
                            "config.data.source.matrix='(H, W)' takes those")
        gaps = next((r.record.id for part in splits.values() for r in part if _has_gaps(r.record)), "")
        if gaps:
            logging.warning("%s: its k-space has gaps, so there is no truth; metrics compare with the zero-filled image and "
                            "say nothing of what is better than that", gaps)
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
        space = clean.shape[1:-1]
        maps, full, target = self._measured(batch) if "kspace" in batch else self._simulated(keys, clean)
        if self.acceleration > 1:
            lines = jax.vmap(lambda key: LINES[self.mask](jax.random.fold_in(key, 1), space, self.acceleration,
                                                          self.centre))(keys)
            full = full * lines[:, None]
        given = self.input({**batch, "kspace": _parts(full * self.data_range[1]), "maps": _parts(maps)})
        known = {name: batch[name] for name in ("volume_max",) if name in batch}
        return self.example_of(batch, given, target, mask, **known)

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
        """As in every restoration, on magnitudes."""
        return super().measure(Prediction(magnitude(pred.image)), _magnitudes(example))

    def on_target_grid(self, image: Array) -> Array:
        """Its magnitude."""
        return magnitude(image)

    def render(self, example: Example, predictions: Mapping[str, Prediction]) -> dict[str, np.ndarray]:
        """Magnitudes."""
        shown = {row: Prediction(magnitude(pred.image)) for row, pred in predictions.items()}
        return super().render(_magnitudes(example), shown)

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
        return restricted(example, keep, jnp.ones(keep.shape[0]))

    def outputs(self, predictions: Sequence[Prediction], records: Sequence[Record]) -> list[Output]:
        """The magnitude image, in the units of the measurement."""
        return [NiftiOutput(self.in_units(magnitude(jnp.asarray(pred.image))), record, numbered("", i, len(records)),
                            source_units=True)
                for i, (pred, record) in enumerate(zip(predictions, records, strict=True))]

    def _simulated(self, keys: Key, clean: Array) -> tuple[Array, Array, Array]:
        """Sensitivities, k-space and the complex image."""
        space = clean.shape[1:-1]
        phase_keys, noise_keys = (jax.vmap(jax.random.fold_in, (0, None))(keys, i) for i in (2, 3))
        maps = jnp.broadcast_to(birdcage(self.coils, space), (clean.shape[0], self.coils, *space))
        x = clean * jax.vmap(lambda key: smooth_phase(key, space))(phase_keys)[..., None]
        kspace = jax.vmap(Gaussian(self.sigma))(noise_keys, fft(maps * jnp.moveaxis(x, -1, 1), self.ndim))
        return maps, kspace, to_channels(x)

    def _measured(self, batch: Batch) -> tuple[Array, Array, Array]:
        """Sensitivities, k-space and the image of all of it."""
        kspace = _complex(batch["kspace"]) / self.data_range[1]
        maps = _complex(batch["maps"]) if "maps" in batch else _relative(_low_resolution(kspace, self.centre))
        everything = Cartesian(maps, jnp.ones((1, 1, *kspace.shape[2:])))
        return maps, kspace, to_channels(everything.adjoint(kspace))


def magnitude(x: Array) -> Array:
    """Of complex images as two channels; one channel is a magnitude already."""
    return x if x.shape[-1] == 1 else jnp.abs(to_complex(jnp.asarray(x)))


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
