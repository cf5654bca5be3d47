"""How good predictions are: one code for both sides, NumPy and scikit-image alone."""

import numpy as np
from skimage.metrics import structural_similarity

from medjax.weights.ldct_redcnn import RANGE as LDCT_RANGE

DRAWS, LEVEL = 10_000, 95


def restored(found: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """PSNR and SSIM of an image `(H, W, C)` in unit range, complex ones (two channels) by their magnitude.

    PSNR is over `mask` `(H, W, 1)`; SSIM over the whole image, with scikit-image's window of 7.
    """
    a, b = (np.linalg.norm(x.astype(np.float64), axis=-1) if x.shape[-1] == 2 else x[..., 0].astype(np.float64)
            for x in (found, truth))
    error = np.mean(np.square(a - b), where=mask[..., 0])
    return {"psnr": float(-10 * np.log10(max(error, 1e-12))), "ssim": float(structural_similarity(a, b, data_range=1.0))}


def slices_in_hu(found: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """As `restored`, of CT slices as ldct-benchmark has them, HU less a mean over a deviation; from -1000 to 1000 HU."""
    low, std = LDCT_RANGE[0], LDCT_RANGE[1] - LDCT_RANGE[0]
    return restored(*((x * std + low + 1000) / 2000 for x in (found, truth)), mask)


def segmented(found: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Dice of each class but the background where `mask` is, of logits and one-hot labels `(*space, K)`; NaN for none."""
    scores = {}
    for label in range(1, truth.shape[-1]):
        a, b = ((x.argmax(-1) == label) & mask[..., 0] for x in (found, truth))
        scores[f"dice_{label}"] = float(2 * (a & b).sum() / (a.sum() + b.sum())) if (a | b).any() else float("nan")
    return scores


def by_person(values: np.ndarray, people: list[str]) -> np.ndarray:
    """The mean of each person's samples, of `values` `(seeds, samples)`: `(seeds, people)`."""
    names = sorted(set(people))
    return np.stack([np.nanmean(values[:, [p == name for p in people]], 1) for name in names], 1)


def interval(values: np.ndarray) -> tuple[float, float]:
    """The bootstrap interval of the mean of `values` `(seeds, people)`, both drawn anew (Owen, 2007): 95 %."""
    random = np.random.default_rng(0)
    seeds, people = (random.integers(0, n, (DRAWS, n)) for n in values.shape)
    means = values[seeds[:, :, None], people[:, None, :]].mean((1, 2))
    low, high = np.percentile(means, [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
    return float(low), float(high)
