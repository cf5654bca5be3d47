"""Segmentation: a class for every voxel; optionally with a classical method's result as a further channel."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from medjax.classical._declared import by_sample, methods
from medjax.data.outputs import LabelOutput
from medjax.measures import losses, regions
from medjax.measures.summary import mean_of_numbers
from medjax.ops import threshold
from medjax.tasks._base import TaskBase, check_shape, check_spacing, on_coarser_grid
from medjax.types import (
    Array,
    Batch,
    Example,
    Key,
    Mean,
    Metric,
    NetworkInput,
    Output,
    Port,
    Prediction,
    Record,
    Reference,
    Region,
    Splits,
    UserError,
    Value,
    check_choice,
)

MAX_REGIONS = 100
MAX_BRIGHTER = 0.2  # how far below the brightest voxel a grown region goes, in unit range

Prior = Callable[[Array, Array], Array]
PRIORS: dict[str, Prior | None] = {
    "none": None,
    "otsu": lambda grey, mask: grey > threshold.otsu(grey, mask),
    "edges": lambda grey, mask: threshold.edge_strength(grey),
    "region_growing": lambda grey, mask: threshold.grow(grey > jnp.where(mask, grey, 0).max() - MAX_BRIGHTER,
                                                        grey >= jnp.where(mask, grey, 0).max()),
}
COLOURS = np.array([(0.9, 0.25, 0.2), (0.2, 0.6, 0.95), (0.95, 0.8, 0.2), (0.3, 0.8, 0.4), (0.8, 0.4, 0.9), (0.3, 0.9, 0.9)])


@dataclass(frozen=True)
class Segment(TaskBase):
    """To which of `classes` each voxel belongs, the first being background; records have extras["label"], their indices.

    `prior` (hybrid segmentation) adds the result of a classical method as a channel: none, otsu, edges, region_growing.
    `order` has the classes from the darkest to the brightest, for methods without training; () takes it from the training
    images. `measures` are of dice, iou, hausdorff95, hausdorff, surface_distance (average, symmetric) and surface_dice,
    which counts a surface that is off by `tolerance_mm` at most as found.
    """

    classes: tuple[str, ...] = ("background", "lesion")
    prior: str = "none"
    order: tuple[int, ...] = ()
    measures: tuple[str, ...] = ("dice", "iou", "hausdorff95")
    tolerance_mm: float = 1.0

    keeps_format = True
    on_coarser_grid = staticmethod(on_coarser_grid)

    def __post_init__(self) -> None:
        check_choice("config.task.prior", self.prior, PRIORS)
        for name in self.measures:
            check_choice("config.task.measures", name, regions.OF_REGIONS)
        if self.tolerance_mm < 0:
            raise UserError("config.task.tolerance_mm", f"{self.tolerance_mm:g}; give 0 or more")
        if len(self.classes) < 2:
            raise UserError("config.task.classes", f"{self.classes}; give the background and at least one more")
        if self.order and sorted(self.order) != list(range(len(self.classes))):
            raise UserError("config.task.order", f"{self.order}; give each number below {len(self.classes)} once, or ()")

    @property
    def tileable(self) -> bool:  # type: ignore[override]
        """A prior looks at the whole image."""
        return self.prior == "none"

    @property
    def metrics(self) -> tuple[Metric, ...]:  # type: ignore[override]
        """Of the volume as a whole, of samples, and of each class."""
        own = self.classes[1:] if len(self.classes) > 2 else ()
        return (Metric("volume_dice", "Dice of all voxels", decimals=4, pooled=True),
                *(regions.OF_REGIONS[name] for name in self.measures),
                *(Metric(f"volume_dice_{name}", f"Dice of {name}", decimals=4, pooled=True) for name in own))

    def out_channels(self, channels: int) -> int:
        """One logit per class."""
        return len(self.classes)

    def resolve_from_data(self, splits: Splits) -> dict[str, object]:
        """The order of brightness. Raises UserError for labels outside the classes, classes without a training voxel, and
        images of which some have a voxel size and others none.
        """
        check_spacing(splits, "distances in mm need", some=True)
        found = {name: np.zeros(len(self.classes), bool) for name in splits}
        for name, chosen in splits.items():
            for region in chosen:
                label = region.record.extras.get("label")
                if label is None:
                    raise UserError(region.record.id, "has no label; give a source of images with label maps "
                                    "(config.data.source.name=pairs)")
                values = np.unique(label[region.start:region.stop])
                if values.min() < 0 or values.max() >= len(self.classes):
                    raise UserError(region.record.id, f"its labels {values.tolist()} are not all among the "
                                    f"{len(self.classes)} of config.task.classes ({', '.join(self.classes)})")
                found[name][values] = True
        for i, missing in enumerate(self.classes):
            if not found["train"][i]:
                others = [name for name in splits if found[name][i]]
                raise UserError("config.task.classes", f"no training voxel is {missing}{_elsewhere(splits, i, others)}")
        return {} if self.order else {"order": _by_brightness(splits["train"], len(self.classes))}

    def input(self, batch: Batch) -> NetworkInput:
        """Images in unit range, and the prior as a channel."""
        image, mask = self.unit(batch)
        fn = PRIORS[self.prior]
        if fn is not None:
            prior = jax.vmap(fn)(image[..., 0], mask[..., 0])
            image = jnp.concatenate([image, prior[..., None].astype(image.dtype)], -1)
        return NetworkInput(image)

    def example(self, key: Key, batch: Batch) -> Example:
        """Images to labels, one-hot `(B, *space, K)`."""
        _, mask = self.unit(batch)
        target = jax.nn.one_hot(batch["label"][..., 0].astype(jnp.int32), len(self.classes))
        return self.example_of(batch, self.input(batch), target, mask)

    def losses(self, pred: Array, example: Example) -> dict[str, Mean]:
        """Cross-entropy, Dice and focal loss over the voxels that count."""
        check_shape(pred, example.target)
        return {name: fn(pred, example.target, example.mask) for name, fn in losses.SEGMENTATION.items()}

    def measure(self, pred: Prediction, example: Example) -> dict[str, Array]:
        """Per sample, the `measures` as means over the classes but the background (distances in mm; in voxels where their
        size is not known); voxel counts.

        Dice, IoU and surface Dice leave out classes that are neither there nor found, distances those that are not both; NaN
        where that leaves none. The counts, of hits and of found and true voxels together, are by class, `(B, K - 1)`.
        """
        logits = pred.image
        classes = jnp.arange(1, len(self.classes))
        found = (logits.argmax(-1, keepdims=True) == classes.reshape((1,) * (logits.ndim - 1) + (-1,))) & example.mask
        truth = (example.target[..., 1:] > 0.5) & example.mask
        spacing = jnp.where(jnp.isnan(example.spacing_mm), 1.0, example.spacing_mm)
        measured = regions.measured(self.measures, found, truth, spacing, self.tolerance_mm)
        axes = tuple(range(1, logits.ndim - 1))
        return {name: jnp.nanmean(values, -1) for name, values in measured.items()} | {
            "hits": (found & truth).sum(axes), "voxels": found.sum(axes) + truth.sum(axes)}

    def summarise(self, samples: Sequence[Mapping[str, Value]]) -> dict[str, Value]:
        """Means over samples and classes where there is a number; `volume_dice` counts the voxels of all samples as one.

        That of a class which is neither there nor found is NaN, and left out of the mean over classes.
        """
        pooled = {name: np.sum([s[name] for s in samples], axis=0) for name in ("hits", "voxels")}
        volume = np.where(pooled["voxels"] > 0, 2 * pooled["hits"] / np.maximum(pooled["voxels"], 1), np.nan)
        summary: dict[str, Value] = {"volume_dice": mean_of_numbers(list(volume))}
        for name in self.measures:
            summary[name] = mean_of_numbers([s[name] for s in samples])
        if len(self.classes) > 2:
            summary |= {f"volume_dice_{name}": float(v) for name, v in zip(self.classes[1:], volume, strict=True)}
        return summary

    def references(self) -> dict[str, Reference]:
        """Segmentation without training, on the first channel: classes by brightness; of two, also one bright region."""
        k, order = len(self.classes), np.array(self.order or range(len(self.classes)))

        def classes(segment: Callable[..., np.ndarray]) -> Callable[[np.ndarray, float], np.ndarray]:
            return lambda x, strength: np.eye(k, dtype=np.float32)[order[segment(x, k, strength)]]

        def region(segment: Callable[..., np.ndarray]) -> Callable[[np.ndarray, float], np.ndarray]:
            return lambda x, strength: np.eye(k, dtype=np.float32)[segment(x, strength)]

        found = {name: Reference(by_sample(classes(fn)), strengths) for name, (fn, strengths) in methods("segment").items()}
        return found | {name: Reference(by_sample(region(fn)), strengths)
                        for name, (fn, strengths) in methods("region").items() if k == 2}

    def render(self, example: Example, predictions: Mapping[str, Prediction]) -> dict[str, np.ndarray]:
        """The image, and each segmentation as colours over it."""
        grey = np.clip(np.asarray(example.input.image)[..., :1], 0, 1).repeat(3, -1)
        pictures = {"input": grey}
        for row, logits in {**{row: pred.image for row, pred in predictions.items()}, "truth": example.target}.items():
            labels = np.asarray(logits).argmax(-1)
            tint = COLOURS[(labels - 1) % len(COLOURS)]
            pictures[row] = np.where(labels[..., None] > 0, 0.45 * grey + 0.55 * tint, grey)
        return {row: self.in_units(picture) for row, picture in pictures.items()}

    def exported_output(self, channels: int) -> Port:
        """The probability of each class for each voxel."""
        return Port("probabilities", (), "probability of each class; the label map has the most probable one", "",
                    self.classes)

    def exported(self, pred: Prediction, batch: Batch) -> Array:
        """Probabilities from logits."""
        return jax.nn.softmax(pred.image)

    def outputs(self, predictions: Sequence[Prediction], records: Sequence[Record]) -> list[Output]:
        """The label maps; padding outside the scanned field is background."""
        labels = [np.asarray(pred.image).argmax(-1).astype(np.uint8) for pred in predictions]
        for label, record in zip(labels, records, strict=True):
            if "mask" in record.extras:
                label[~np.asarray(record.extras["mask"])[..., 0]] = 0
        return [LabelOutput(labels, self.classes)]


def _elsewhere(splits: Splits, index: int, others: Sequence[str]) -> str:
    """Where the voxels of a class are of which training has none, in `others` of the splits, and what would help."""
    regions = [region for chosen in splits.values() for region in chosen]
    if not any((np.asarray(region.record.extras["label"]) == index).any() for region in regions):
        return "; leave it out, or give images of it"
    where = " and ".join(others)
    if any((region.start, region.stop) != (0, region.record.image.shape[0]) for region in regions):
        slabs = f"slabs for {where}" if others else "gaps between the slabs"
        return (f": the split cuts each image into slabs, and its voxels lie in the {slabs}; give other "
                "config.data.fractions, or images of at least three subjects, which are not cut")
    return (f": the split has put the subjects that have it into {where}; give another "
            "config.data.split_seed, other config.data.fractions, or more subjects")


def _by_brightness(regions: Sequence[Region], classes: int) -> tuple[int, ...]:
    """The classes from the darkest to the brightest, by their mean in the first channel; of many regions some are taken."""
    total, count = np.zeros(classes), np.zeros(classes)
    for i in np.linspace(0, len(regions) - 1, min(len(regions), MAX_REGIONS)).astype(int):
        record, rows = regions[i].record, slice(regions[i].start, regions[i].stop)
        label = record.extras["label"][rows].ravel()
        total += np.bincount(label, record.in_units((rows, ..., slice(0, 1))).ravel(), classes)
        count += np.bincount(label, minlength=classes)
    return tuple(np.argsort(total / np.maximum(count, 1), kind="stable").tolist())
