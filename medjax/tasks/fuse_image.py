"""One picture of several contrasts: fused without a true answer, evaluated by what it keeps of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from medjax.classical._declared import by_sample, methods
from medjax.data.outputs import NiftiOutput, numbered
from medjax.measures import fusion
from medjax.measures.losses import differences, masked_mean, mean_of, ssim
from medjax.tasks._base import TaskBase
from medjax.tasks._contrasts import channel_names
from medjax.types import Array, Batch, Example, Key, Mean, Output, Port, Prediction, Record, Reference, Splits


@dataclass(frozen=True)
class FuseImage(TaskBase):
    """A grey image of all contrasts, learned without supervision; the contrasts themselves are input and target.

    `contrasts` is filled from the data.
    """

    contrasts: tuple[str, ...] = ()

    tileable = False  # a tile without signal would count as a missing contrast
    metrics = (fusion.QABF, fusion.MUTUAL_INFORMATION, fusion.STRUCTURE, fusion.ENTROPY)

    @property
    def inputs(self) -> tuple[str, ...]:  # type: ignore[override]
        """The contrasts."""
        return self.contrasts

    def out_channels(self, channels: int) -> int:
        """One grey image."""
        return 1

    def resolve_from_data(self, splits: Splits) -> dict[str, object]:
        """The channels' names."""
        return {"contrasts": channel_names(splits)}

    def example(self, key: Key, batch: Batch) -> Example:
        """The contrasts, to be kept."""
        image, mask = self.unit(batch)
        return self.example_of(batch, self.input(batch), image, mask)

    def losses(self, pred: Array, example: Example) -> dict[str, Mean]:
        """Distances to the brightest contrast ("intensity") and to the steepest slope of any ("edges"), as in SeAFusion
        (Tang et al., 2022), and 1 - SSIM averaged over contrasts ("structure").
        """
        sources, mask = example.target, example.mask
        each = [ssim(pred, sources[..., m:m + 1], mask) for m in range(sources.shape[-1])]
        return {"intensity": masked_mean(jnp.abs(pred - sources.max(-1, keepdims=True)), mask),
                "edges": _edge_loss(pred, sources, mask), "structure": mean_of(*each)}

    def measure(self, pred: Prediction, example: Example) -> dict[str, Array]:
        """Entropy and mutual information (bits), edges kept (Qabf) and mean SSIM, per sample."""
        given = (pred.image, example.target, example.mask)
        return {"qabf": fusion.edges(*given), "mutual_information": fusion.mutual_information(*given),
                "structure": fusion.structure(*given), "entropy": fusion.entropy(pred.image, example.mask)}

    def references(self) -> dict[str, Reference]:
        """The first contrast alone, and fusion without training: average, maximum, wavelets."""
        return {"input": Reference(lambda example, _: example.input.image[..., :1])} | {
            name: Reference(by_sample(fn), strengths) for name, (fn, strengths) in methods("fuse").items()}

    def render(self, example: Example, predictions: Mapping[str, Prediction]) -> dict[str, np.ndarray]:
        """Every fused image; there is no truth."""
        return {row: self.in_units(pred.image) for row, pred in predictions.items()}

    def exported_output(self, channels: int) -> Port:
        """The fused image."""
        return Port("fused", (), "fused image in physical units", "{units}", as_input=True)

    def outputs(self, predictions: Sequence[Prediction], records: Sequence[Record]) -> list[Output]:
        """The fused image."""
        return [NiftiOutput(self.in_units(pred.image), record, numbered("fused", i, len(records)), source_units=True)
                for i, (pred, record) in enumerate(zip(predictions, records, strict=True))]


def _edge_loss(pred: Array, sources: Array, mask: Array) -> Mean:
    """The mean distance to the steepest of the sources' differences, along every axis."""
    means = []
    for (own, both), (slopes, _) in zip(differences(pred, mask), differences(sources, mask), strict=True):
        steepest = jnp.take_along_axis(slopes, jnp.abs(slopes).argmax(-1, keepdims=True), -1)
        means.append(masked_mean(jnp.abs(own - steepest), both))
    return mean_of(*means)
