"""Segmentation of one material from the sinogram of a CT scan over a limited angle: which pixels it fills."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates

from medjax.classical import iterative
from medjax.classical._declared import by_sample, grid
from medjax.classical.segment import otsu
from medjax.data import ct_geometry
from medjax.data.discs import FIELD_MM
from medjax.data.limited_angle import centred
from medjax.data.outputs import NiftiOutput, numbered
from medjax.measures import losses, regions
from medjax.physics import ct
from medjax.physics.sampling import Subset
from medjax.tasks._base import TaskBase, check_shape, draw, on_coarser_grid
from medjax.tasks._reconstruction import measurement_of
from medjax.tasks.ct_recon import Scan
from medjax.types import (
    Array,
    Batch,
    Example,
    Key,
    Mean,
    Measurement,
    NetworkInput,
    Output,
    Port,
    Prediction,
    Record,
    Reference,
    Splits,
    UserError,
)

TV_ITERATIONS = 200
AIR, MATERIAL = 0, 1


@dataclass(frozen=True)
class CtSegment(TaskBase):
    """Pixels that the material fills, from fan beams over `span` (least, greatest) degrees, drawn anew for each sample.

    Images are the share of the material, 0 to 1; those with a label map are scanned in simulation, on their own grid, and
    measured sinograms come centred (`medjax.data.limited_angle`). Networks and references work on a grid that is `coarser`
    times as coarse along each axis, so that what simulates differs from what inverts, and always see the same wedge of
    directions; what they find is turned back, and interpolated to the pixels of the truth.

    The scanner has `detectors` elements of `detector_mm`, the source `source_mm` from the axis and `source_detector_mm` from
    the detector, and views every `step` degrees; images show `field_mm` along their rows. The measured line
    integral over `t` mm of the material is `attenuation * t - hardening * t**2`, as hardening of the beam has it, blurred by
    up to `blur` elements (standard deviation), with `noise` (of air, which grows as fewer photons arrive) and an offset of
    up to `scatter`. The defaults are of the Helsinki Tomography Challenge 2022 and its acrylic, from full scans that are not
    among its tests.
    """

    span: tuple[float, float] = (28.0, 90.0)
    step: float = 0.5
    coarser: int = 2
    detectors: int = 560
    detector_mm: float = 0.2
    source_mm: float = 410.66
    source_detector_mm: float = 553.74
    field_mm: float = FIELD_MM
    attenuation: float = 0.0442
    hardening: float = 1.85e-4
    noise: float = 0.004
    blur: float = 1.0
    scatter: float = 0.02

    kind = "sinogram"
    tileable = False
    metrics = (regions.MCC, regions.DICE, regions.IOU)
    on_coarser_grid = staticmethod(on_coarser_grid)

    def __post_init__(self) -> None:
        if self.ndim != 2:
            raise UserError("config.data.ndim", f"{self.ndim}; CT is segmented slice by slice: set it to 2")
        if self.data_range != (0.0, 1.0):
            raise UserError("config.data.range", f"{self.data_range}; images are the share of the material: "
                            "--config.data.range='(0.0, 1.0)'")
        if not 0 < self.step <= self.span[0] <= self.span[1] <= 180:
            raise UserError("config.task.span", f"{self.span} with a view every {self.step} degrees; give (least, greatest) "
                            "up to 180, and at least one step")
        if self.coarser < 1:
            raise UserError("config.task.coarser", f"{self.coarser}; give a whole number from 1")

    @property
    def views(self) -> int:
        """Those of the greatest span, an odd number, both ends among them."""
        return 2 * int(self.span[1] / (2 * self.step) + 1e-6) + 1

    def out_channels(self, channels: int) -> int:
        """A logit of air, and of the material."""
        return 2

    def resolve_from_data(self, splits: Splits) -> dict[str, object]:
        """Nothing. Raises UserError for images without a label map."""
        for chosen in splits.values():
            for region in chosen:
                if "label" not in region.record.extras:
                    raise UserError(region.record.id, "has no label; give images with label maps (config.data.source.name)")
        return {}

    def scanner(self, shape: tuple[int, ...]) -> ct.Fan:
        """The scanner for images of `shape`, its middle view at angle 0, with the views of the greatest span."""
        half = (self.views - 1) / 2
        angles = tuple(np.deg2rad((np.arange(self.views) - half) * self.step).tolist())
        return _fan(tuple(shape), self.field_mm / shape[1], angles, self.detectors, self.detector_mm, self.source_mm,
                    self.source_detector_mm)

    def simulate(self, key: Key, batch: Batch) -> Batch:
        """The batch as if its images had been scanned: `sinogram` `(B, views, detectors, 1)`, `measured`, `turn` 0."""
        clean = jnp.clip(self.unit(batch)[0], 0, 1)
        thickness = self.scanner(clean.shape[1:-1])(clean)

        def measure(key: Key, t: Array) -> tuple[Array, Array]:
            span_key, blur_key, mu_key, bend_key, scatter_key, noise_key = jax.random.split(key, 6)
            mu = self.attenuation * (1 + 0.02 * jax.random.normal(mu_key))
            bend = self.hardening * (1 + 0.15 * jax.random.uniform(bend_key, minval=-1.0))
            y = _blurred(mu * t - bend * t * t, draw(blur_key, (0.0, self.blur))) + draw(scatter_key, (0.0, self.scatter))
            y = y + self.noise * jnp.exp(y / 2) * jax.random.normal(noise_key, y.shape)
            from_middle = jnp.abs(jnp.arange(self.views) - self.views // 2) * self.step
            measured = (2 * from_middle <= draw(span_key, self.span)).astype(jnp.float32)
            return y * measured[:, None, None], measured

        sinogram, measured = jax.vmap(measure)(self.keys(key, batch), thickness)
        return {**batch, "sinogram": sinogram, "measured": measured, "turn": jnp.zeros(clean.shape[0])}

    def input(self, batch: Batch) -> NetworkInput:
        """Two channels: filtered back-projection as the share of the material, and the share of `views` that was measured.

        The sinogram is corrected for the hardening of the beam. The context has it, with its operator.
        """
        if "measured" not in batch:
            raise UserError("config.data.source.name", "gives images that were not scanned; this task segments sinograms")
        rows, columns = (n // self.coarser for n in batch["image"].shape[1:-1])
        geometry = self.scanner((rows, columns))
        pixel = geometry.spacing[0]
        norm = float(np.sqrt(self.views * max(rows, columns)))
        y = jnp.maximum(batch["sinogram"], 0)
        root = jnp.sqrt(jnp.maximum(self.attenuation**2 - 4 * self.hardening * y, (self.attenuation / 4) ** 2))
        thickness = (self.attenuation - root) / (2 * self.hardening)
        share = batch["measured"].mean(1)
        operator = Subset(Scan(geometry.in_pixels(), norm), batch["measured"][:, :, None, None], jnp.ones_like(share))
        y = thickness / (pixel * norm) * operator.keep
        image = operator.init(y)
        covered = jnp.broadcast_to(share[:, None, None, None], image.shape)
        return NetworkInput(jnp.concatenate([image, covered], -1), Measurement(operator, y, None))

    def example(self, key: Key, batch: Batch) -> Example:
        """Sinograms to shares of air and the material, one-hot `(B, h, w, 2)`; `extras` has the label map, and the turn."""
        scanned = batch if "measured" in batch else self.simulate(key, batch)
        given = self.input(scanned)
        label = scanned["label"].astype(jnp.float32)
        shape = given.image.shape[1:-1]
        share = jax.vmap(lambda image, turn: _turned(image, -turn, shape, self.coarser))(label[..., 0], scanned["turn"])
        target = jnp.stack([1 - share, share], -1)
        mask = jnp.broadcast_to(scanned["count"][:, None, None, None] > 0, (*target.shape[:-1], 1))
        return self.example_of(scanned, given, target, mask, label=scanned["label"], turn=scanned["turn"])

    def losses(self, pred: Array, example: Example) -> dict[str, Mean]:
        """Cross-entropy, Dice and focal loss."""
        check_shape(pred, example.target)
        return {name: fn(pred, example.target, example.mask) for name, fn in losses.SEGMENTATION.items()}

    def found(self, logits: Array, turn: Array, shape: tuple[int, ...]) -> Array:
        """Where the material's logit is the larger one, `(B, *shape, 1)` bool, on the pixels of the image as it lay: `turn`
        `(B,)` is in radians.
        """
        back = functools.partial(_turned, shape=shape, coarser=1 / self.coarser)
        return (jax.vmap(back)(logits[..., MATERIAL] - logits[..., AIR], turn) > 0)[..., None]

    def measure(self, pred: Prediction, example: Example) -> dict[str, Array]:
        """Matthews' correlation coefficient, Dice and IoU of the material, on the pixels of the truth."""
        truth = example.extras["label"] > 0
        found = self.found(pred.image, example.extras["turn"], truth.shape[1:-1])
        dice, iou = regions.overlap(found, truth)
        return {"mcc": regions.mcc(found, truth)[:, 0], "dice": dice[:, 0], "iou": iou[:, 0]}

    def references(self) -> dict[str, Reference]:
        """Filtered back-projection and total variation, each with Otsu's threshold."""
        def classes(x: np.ndarray, strength: float) -> np.ndarray:
            return np.eye(2, dtype=np.float32)[otsu(x[..., :1], 2, strength)]

        def tv(example: Example, strength: float) -> Array:
            found = jax.tree.map(jnp.asarray, measurement_of(example.input.context))
            image = _tv(found.operator, found.y, strength)
            return by_sample(classes)(replace(example, input=NetworkInput(image)), 1.0)

        return {"fbp-otsu": Reference(by_sample(classes)), "tv-otsu": Reference(tv, grid(1e-4, 1.0, 9))}

    def render(self, example: Example, predictions: Mapping[str, Prediction]) -> dict[str, np.ndarray]:
        """The filtered back-projection, and each segmentation."""
        shares = {row: np.asarray(pred.image).argmax(-1)[..., None] for row, pred in predictions.items()}
        pictures = {"input": np.clip(np.asarray(example.input.image)[..., :1], 0, 1), **shares,
                    "truth": np.asarray(example.target)[..., MATERIAL:]}
        return {row: self.in_units(picture) for row, picture in pictures.items()}

    def arrange(self, records: Sequence[Record]) -> list[Record]:
        """Measured sinograms, centred. Raises UserError for images, and for another scanner than the task's."""
        arranged = [centred(record, self.views) for record in records]
        for record in arranged:
            self._check_scanner(record)
        return arranged

    def _check_scanner(self, record: Record) -> None:
        """Raises UserError where a record was measured by another scanner, or its image shows another field."""
        found = ct_geometry.operator(str(record.extras["ct_geometry"]), record.id)
        wanted = self.scanner(found.shape)
        for name in ("detectors", "detector_mm", "shift_mm", "source_mm", "detector_distance_mm", "spacing"):
            has, needed = getattr(found, name, None), getattr(wanted, name)
            if has is None or not np.allclose(has, needed, rtol=1e-3, atol=1e-3):
                raise UserError(record.id, f"was measured with {name} {has}, and the model was trained for {needed}")
        steps = np.abs(np.diff(found.angles))
        if len(steps) and not np.allclose(np.rad2deg(steps), self.step, atol=1e-3):
            raise UserError(record.id, f"has a view every {np.rad2deg(steps[0]):.4g} degrees, and the model was trained for "
                            f"one every {self.step:g}")

    def exported_output(self, channels: int) -> Port:
        """Raises UserError: every scan is centred by its own geometry first."""
        raise UserError("--workdir", "a ct_segment run can't be exported: each scan is turned by the angles of its own "
                        "geometry; use python -m medjax.apply")

    def outputs(self, predictions: Sequence[Prediction], records: Sequence[Record]) -> list[Output]:
        """The segmentation on the pixels of the scan's image, 1 where the material is."""
        made: list[Output] = []
        for i, (pred, record) in enumerate(zip(predictions, records, strict=True)):
            found = self.found(jnp.asarray(pred.image)[None], jnp.asarray(record.extras["turn"])[None],
                               record.image.shape[:-1])[0]
            made.append(NiftiOutput(np.asarray(found, np.float32), record, numbered("", i, len(records))))
        return made


@jax.jit
def _tv(operator: Subset, y: Array, weight: float) -> Array:
    return iterative.tv(operator, y, weight, TV_ITERATIONS)


@functools.lru_cache(maxsize=16)
def _fan(shape: tuple[int, int], spacing_mm: float, angles: tuple[float, ...], detectors: int, detector_mm: float,
         source_mm: float, source_detector_mm: float) -> ct.Fan:
    return ct.Fan(shape, spacing_mm, angles, detectors, detector_mm, source_mm=source_mm,
                  detector_distance_mm=source_detector_mm)


def _blurred(y: Array, sigma: Array) -> Array:
    """A Gaussian along the detector, axis 1 of `(views, detectors, 1)`, of `sigma` elements; the ends are repeated."""
    reach = 3
    weight = jnp.exp(-0.5 * jnp.square(jnp.arange(-reach, reach + 1) / jnp.maximum(sigma, 1e-3)))
    wide = jnp.pad(y, ((0, 0), (reach, reach), (0, 0)), mode="edge")
    n = y.shape[1]
    parts = [w * wide[:, i:i + n] for i, w in enumerate(weight / weight.sum())]
    return sum(parts[1:], parts[0])


def _turned(image: Array, turn: Array, shape: tuple[int, ...], coarser: float) -> Array:
    """An image `(H, W)` turned counter-clockwise by `turn` radians, on `shape` pixels that are `coarser` times as large.

    Linear interpolation, of pixels that are larger the mean over as many places; 0 outside.
    """
    fine = max(1, round(coarser))
    rows, columns = (n * fine for n in shape)
    scale = coarser / fine
    y = (jnp.arange(rows) - (rows - 1) / 2)[:, None] * scale
    x = (jnp.arange(columns) - (columns - 1) / 2)[None, :] * scale
    c, s = jnp.cos(turn), jnp.sin(turn)
    # Rows run down, so counter-clockwise to the eye is clockwise in (x, y) of the array; the inverse is looked up.
    places = [y * c + x * s + (image.shape[0] - 1) / 2, x * c - y * s + (image.shape[1] - 1) / 2]
    found = map_coordinates(image, places, order=1, mode="constant")
    return found.reshape(shape[0], fine, shape[1], fine).mean((1, 3))
