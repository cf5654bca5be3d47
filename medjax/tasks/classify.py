"""Classification of images: two classes, one of many, or several at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from medjax.data.outputs import RowOutput
from medjax.measures import classification
from medjax.measures.summary import mean_of_numbers
from medjax.tasks._base import TaskBase, check_shape
from medjax.types import (
    Array,
    Batch,
    Example,
    Key,
    Mean,
    NetworkInput,
    Output,
    Port,
    Prediction,
    Record,
    Reference,
    Splits,
    UserError,
    Value,
    check_choice,
)


@dataclass(frozen=True)
class Classify(TaskBase):
    """Which of `classes` an image shows; its record has extras["class"].

    `head` "softmax": one of the classes, `class` is its index. "sigmoid": each class on its own, `class` is `(K,)` of 0
    and 1; with a single class (binary) one number. `class_weights` count a sample more in the losses by its class
    (sigmoid: where the class is present); () balances them by the numbers of training images.
    """

    classes: tuple[str, ...] = ("clear", "consolidation", "effusion")
    head: str = "softmax"
    class_weights: tuple[float, ...] = ()
    focus: float = 2.0  # the exponent of the focal loss

    tileable = False
    metrics = (classification.ACCURACY, classification.AUC, classification.PRECISION, classification.RECALL,
               classification.F1)

    def __post_init__(self) -> None:
        check_choice("config.task.head", self.head, ("softmax", "sigmoid"))
        if len(self.classes) < (2 if self.head == "softmax" else 1):
            raise UserError("config.task.classes", f"{self.classes}; softmax tells two or more apart, sigmoid takes "
                            "one or more")
        if self.class_weights and len(self.class_weights) != len(self.classes):
            raise UserError("config.task.class_weights", f"{len(self.class_weights)} for {len(self.classes)} classes; give "
                            "one per class, or () for balanced ones")

    def out_channels(self, channels: int) -> int:
        """One logit per class."""
        return len(self.classes)

    def resolve_from_data(self, splits: Splits) -> dict[str, object]:
        """Balanced class weights. Raises UserError for images without a class, or classes without a training image."""
        truth = {name: np.array([self._present(r.record) for r in regions]) for name, regions in splits.items()}
        counts = truth["train"].sum(0)
        missing = [name for name, count in zip(self.classes, counts, strict=True) if not count]
        if missing:
            raise UserError("config.task.classes", f"no training image shows {', '.join(missing)}; leave it out, give "
                            "images of it, or another config.data.split_seed")
        if self.class_weights:
            return {}
        n = len(truth["train"])
        weights = n / (len(self.classes) * counts) if self.head == "softmax" else (n - counts) / counts
        return {"class_weights": tuple(float(w) for w in np.clip(weights, 0.02, 50))}

    def _present(self, record: Record) -> np.ndarray:
        """Which classes a record shows, `(K,)` bool."""
        given = record.extras.get("class")
        if given is None:
            raise UserError(record.id, "has no class; give a source with classes (config.data.source.name=labelled)")
        k = len(self.classes)
        given = np.asarray(given).reshape(-1)
        fits = given.size == 1 and 0 <= given[0] < k if self.head == "softmax" else given.size == k and given.max() <= 1
        if not fits:
            raise UserError(record.id, f"its class {given.tolist()} is none of the {k} of config.task.classes "
                            f"({', '.join(self.classes)}) under head={self.head}")
        return np.arange(k) == given[0] if self.head == "softmax" else given > 0

    def input(self, batch: Batch) -> NetworkInput:
        """Images in unit range; outside the mask they are 0."""
        image, mask = self.unit(batch)
        return NetworkInput(image * mask)

    def example(self, key: Key, batch: Batch) -> Example:
        """Images to which classes they show, `(B, K)` float32 of 0 and 1."""
        _, mask = self.unit(batch)
        given = batch["class"].reshape(batch["image"].shape[0], -1)
        truth = jax.nn.one_hot(given[:, 0], len(self.classes)) if self.head == "softmax" else given.astype(jnp.float32)
        return self.example_of(batch, self.input(batch), truth, mask)

    def losses(self, pred: Array, example: Example) -> dict[str, Mean]:
        """Cross-entropy and focal loss (Lin et al., 2017), weighed by class, over the samples that count."""
        check_shape(pred, example.target)
        counts = example.mask.any(tuple(range(1, example.mask.ndim))).astype(jnp.float32)
        weights = jnp.asarray(self.class_weights or (1.0,) * len(self.classes))[None]
        if self.head == "softmax":
            log_p = jax.nn.log_softmax(pred)
            each = example.target * weights
            focal = -(each * jnp.power(1 - jnp.exp(log_p), self.focus) * log_p).sum(-1)
            entropy, share = -(each * log_p).sum(-1), each.sum(-1)
        else:
            yes, no = jax.nn.log_sigmoid(pred), jax.nn.log_sigmoid(-pred)
            each, other = example.target * weights, 1 - example.target
            entropy = -(each * yes + other * no).mean(-1)
            focal = -(each * jnp.exp(self.focus * no) * yes + other * jnp.exp(self.focus * yes) * no).mean(-1)
            share = jnp.ones_like(entropy)
        total = (counts * share).sum()
        return {"cross_entropy": Mean((counts * entropy).sum(), total), "focal": Mean((counts * focal).sum(), total)}

    def measure(self, pred: Prediction, example: Example) -> dict[str, Array]:
        """Per sample: the probability of each class and which are there, `(B, K)`; `summarise` makes the metrics of them."""
        return {"probability": self._probability(pred.image), "truth": example.target}

    def _probability(self, logits: Array) -> Array:
        return jax.nn.softmax(logits) if self.head == "softmax" else jax.nn.sigmoid(logits)

    def summarise(self, samples: Sequence[Mapping[str, Value]]) -> dict[str, Value]:
        """Accuracy, and the means over classes of precision, recall, F1 and AUC; under softmax, the confusion matrix
        (rows: true class). A single class is decided at probability 0.5.
        """
        probability, truth = (np.array([s[name] for s in samples]) for name in ("probability", "truth"))
        truth = truth > 0.5
        one_of_many = self.head == "softmax"
        found = np.eye(len(self.classes), dtype=bool)[probability.argmax(-1)] if one_of_many else probability > 0.5
        precision, recall, f1 = classification.precision_recall_f1(found, truth)
        present = truth.any(0)
        auc = [classification.auroc(p, t) for p, t in zip(probability.T, truth.T, strict=True)]
        summary: dict[str, Value] = {
            "accuracy": float((found == truth).all(-1).mean()) if one_of_many else float((found == truth).mean()),
            "auc": mean_of_numbers(auc)}
        for name, values in (("precision", precision), ("recall", recall), ("f1", f1)):
            summary[name] = float(values[present].mean()) if present.any() else float("nan")
        if one_of_many:
            table = classification.confusion(probability.argmax(-1), truth.argmax(-1), len(self.classes))
            summary["confusion"] = table.tolist()
        return summary

    def references(self) -> dict[str, Reference]:
        """What one says without looking: how frequent each class is in training, as balanced weights have it."""
        prior = -np.log(np.asarray(self.class_weights or (1.0,) * len(self.classes), np.float32))
        return {"prior": Reference(lambda example, _: jnp.broadcast_to(prior[None], example.target.shape))}

    def render(self, example: Example, predictions: Mapping[str, Prediction]) -> dict[str, np.ndarray]:
        """The image, under what it shows and what the model says."""
        found = np.asarray(self._probability(jnp.asarray(predictions["model"].image)))
        says = self._named(found >= (found.max() if self.head == "softmax" else 0.5))
        title = f"is {self._named(np.asarray(example.target) > 0.5)}, model says {says} ({float(found.max()):.2f})"
        return {title: self.in_units(example.input.image)}

    def exported_output(self, channels: int) -> Port:
        """The probability of each class."""
        meaning = "one of the classes" if self.head == "softmax" else "each class on its own"
        return Port("probabilities", (), f"probability of each class ({meaning})", "", self.classes)

    def exported(self, pred: Prediction, batch: Batch) -> Array:
        """Probabilities from logits."""
        return self._probability(pred.image)

    def outputs(self, predictions: Sequence[Prediction], records: Sequence[Record]) -> list[Output]:
        """The probability of each class, and the class found; over several images of a study, the mean probabilities."""
        each = np.stack([np.asarray(self._probability(jnp.asarray(pred.image))) for pred in predictions])
        mean = each.reshape(-1, len(self.classes)).mean(0)
        found = self._named(mean >= (mean.max() if self.head == "softmax" else 0.5))
        return [RowOutput({"class": found, **{f"p_{name}": float(p) for name, p in zip(self.classes, mean, strict=True)}})]

    def _named(self, present: np.ndarray) -> str:
        return " + ".join(name for name, there in zip(self.classes, present, strict=True) if there) or "none"
