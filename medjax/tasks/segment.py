"""Segmentation: a class for every voxel; optionally with a classical method's result as a further channel."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from medjax.classical import segment as classical
from medjax.data.split import Splits
from medjax.measures import losses, regions
from medjax.ops import threshold
from medjax.tasks._restoration import Baseline, Restoration, check_shape
from medjax.types import Array, Batch, Example, Key, UserError

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
class Segment(Restoration):
    """To which of `classes` each voxel belongs, the first being background; records have extras["label"], their indices.

    `prior` (hybrid segmentation) adds the result of a classical method as a channel: none, otsu, edges, region_growing.
    """

    classes: tuple[str, ...] = ("background", "lesion")
    prior: str = "none"

    def __post_init__(self):
        if self.prior not in PRIORS:
            raise UserError("config.task.prior", f"no {self.prior!r}; there is {', '.join(PRIORS)}")
        if len(self.classes) < 2:
            raise UserError("config.task.classes", f"{self.classes}; give the background and at least one more")

    def outputs(self, channels: int) -> int:
        """One logit per class."""
        return len(self.classes)

    def settled(self, splits: Splits) -> dict[str, Any]:
        """Nothing. Raises UserError for labels outside the classes, or classes without a training voxel."""
        found = np.zeros(len(self.classes), bool)
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
                if name == "train":
                    found[values] = True
        if not found.all():
            missing = [name for name, there in zip(self.classes, found, strict=True) if not there]
            raise UserError("config.task.classes", f"no training voxel is {', '.join(missing)}; leave it out, or give "
                            "images of it")
        return {}

    def example(self, key: Key, batch: Batch) -> Example:
        """Images (and the prior) to labels, one-hot `(B, *space, K)`; the context has the voxel's size in mm."""
        image, mask = self.clean(batch)
        fn = PRIORS[self.prior]
        if fn is not None:
            prior = jax.vmap(fn)(image[..., 0], mask[..., 0])
            image = jnp.concatenate([image, prior[..., None].astype(image.dtype)], -1)
        target = jax.nn.one_hot(batch["label"][..., 0].astype(jnp.int32), len(self.classes))
        spacing = batch.get("spacing_mm", jnp.ones((image.shape[0], self.ndim)))[:, -self.ndim:]
        return Example(image, target, mask, {"spacing_mm": spacing})

    def losses(self, pred: Array, example: Example) -> dict[str, Array]:
        """Cross-entropy, Dice and focal loss over the voxels that count."""
        check_shape(pred, example.target)
        return {name: fn(pred, example.target, example.mask) for name, fn in losses.SEGMENTATION.items()}

    def metrics(self, pred: Array, example: Example) -> dict[str, Array]:
        """Per sample, Dice, IoU and Hausdorff distance (95 %, mm), means over the classes but the background; voxel counts.

        Dice and IoU leave out classes that are neither there nor found, the distance those that are not both; NaN where
        that leaves none. The counts, of hits and of found and true voxels together, are by class, `(B, K - 1)`.
        """
        classes = jnp.arange(1, len(self.classes))
        found = (pred.argmax(-1, keepdims=True) == classes.reshape((1,) * (pred.ndim - 1) + (-1,))) & example.mask
        truth = (example.target[..., 1:] > 0.5) & example.mask
        dice, iou = regions.overlap(found, truth)
        far = regions.hausdorff95(found, truth, example.context["spacing_mm"])
        axes = tuple(range(1, pred.ndim - 1))
        return {"dice": jnp.nanmean(dice, -1), "iou": jnp.nanmean(iou, -1), "hausdorff95": jnp.nanmean(far, -1),
                "hits": (found & truth).sum(axes), "voxels": found.sum(axes) + truth.sum(axes)}

    def summary(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Means over samples and classes where there is a number; `volume_dice` counts the voxels of all samples as one."""
        pooled = {name: np.sum([s[name] for s in samples], axis=0) for name in ("hits", "voxels")}
        volume = 2 * pooled["hits"] / np.maximum(pooled["voxels"], 1)
        summary = {"volume_dice": float(volume.mean())}
        for name in ("dice", "iou", "hausdorff95"):
            summary[name] = classification.mean_of_numbers([s[name] for s in samples])
        if len(self.classes) > 2:
            summary |= {f"volume_dice_{name}": float(v) for name, v in zip(self.classes[1:], volume, strict=True)}
        return summary

    def baselines(self) -> dict[str, Baseline]:
        """Classical methods on the first channel: thresholds for any number of classes, the others for one region."""
        k = len(self.classes)
        methods: dict[str, Callable] = {"otsu": partial(classical.otsu, classes=k)}
        if k == 2:
            methods |= {"region_growing": classical.region_growing, "edges": classical.edges}
        return {name: lambda x, fn=fn: np.eye(k, dtype=np.float32)[fn(x)] for name, fn in methods.items()}

    def answers(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """The baselines; an image is no segmentation."""
        return {name: fn(x) for name, fn in self.baselines().items()}

    def pictures(self, example: Example, answers: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The image, and each segmentation as colours over it."""
        low, high = self.data_range
        grey = np.clip(np.asarray(example.input)[..., :1], 0, 1).repeat(3, -1)
        pictures = {"input": grey}
        for row, logits in {**answers, "truth": example.target}.items():
            labels = np.asarray(logits).argmax(-1)
            tint = COLOURS[(labels - 1) % len(COLOURS)]
            pictures[row] = np.where(labels[..., None] > 0, 0.45 * grey + 0.55 * tint, grey)
        return {row: picture * (high - low) + low for row, picture in pictures.items()}
