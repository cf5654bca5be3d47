"""One picture of several contrasts: fused without a true answer, judged by what it keeps of each."""

from collections.abc import Mapping
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from medjax.classical import fuse as classical
from medjax.measures import fusion
from medjax.measures.losses import ssim
from medjax.tasks._restoration import Baseline, Restoration
from medjax.types import Array, Batch, Example, Key


@dataclass(frozen=True)
class FuseImage(Restoration):
    """A grey image of all contrasts, learnt without supervision; the contrasts themselves are input and target."""

    def outputs(self, channels: int) -> int:
        """One grey image."""
        return 1

    def example(self, key: Key, batch: Batch) -> Example:
        """The contrasts, to be kept."""
        image, mask = self.clean(batch)
        return Example(image, image, mask)

    def losses(self, pred: Array, example: Example) -> dict[str, Array]:
        """Distances to the brightest contrast ("intensity") and to the steepest slope of any ("edges"), as in SeAFusion
        (Tang et al., 2022), and 1 - SSIM averaged over contrasts ("structure").
        """
        sources = example.target
        each = [ssim(pred, sources[..., m:m + 1], example.mask) for m in range(sources.shape[-1])]
        return {"intensity": jnp.abs(pred - sources.max(-1, keepdims=True)).mean(),
                "edges": _edge_loss(pred, sources), "structure": sum(each) / len(each)}

    def metrics(self, pred: Array, example: Example) -> dict[str, Array]:
        """Entropy and mutual information (bits), edges kept (Qabf) and mean SSIM, per sample."""
        given = (pred, example.target, example.mask)
        return {"qabf": fusion.edges(*given), "mutual_information": fusion.mutual_information(*given),
                "structure": fusion.structure(*given), "entropy": fusion.entropy(pred, example.mask)}

    def baselines(self) -> dict[str, Baseline]:
        """Average, maximum, and wavelets."""
        return {"average": classical.average, "maximum": classical.maximum, "wavelet": classical.wavelet}

    def answers(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """The first contrast alone, and every baseline's answer."""
        return {"input": x[..., :1]} | {name: fn(x) for name, fn in self.baselines().items()}

    def pictures(self, example: Example, answers: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Every answer; there is no truth."""
        low, high = self.data_range
        return {row: np.asarray(image) * (high - low) + low for row, image in answers.items()}


def _edge_loss(pred: Array, sources: Array) -> Array:
    """The mean distance to the steepest of the sources' differences, along every axis."""
    total = jnp.zeros(())
    for axis in range(1, pred.ndim - 1):
        slope = jnp.diff(sources, axis=axis)
        steepest = jnp.take_along_axis(slope, jnp.abs(slope).argmax(-1, keepdims=True), -1)
        total += jnp.abs(jnp.diff(pred, axis=axis) - steepest).mean()
    return total / (pred.ndim - 2)
