"""Detection of lesions: contrast-to-noise ratio, and the channelised Hotelling observer (Barrett and Myers 2004).

The observer sees regions with a lesion and without one, all with the lesion's place in the middle, through a few channels
that stand for those of the eye, and weighs them as best tells the two apart. Its d' says how well a task can be done in
images, whatever they look like.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medjax.types import UserError

FOLDS = 10
DRAWS = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Detectability:
    """An observer's d' and the area under its ROC curve, each with the bounds of its interval.

    NaN where too few regions were there.
    """

    d_prime: float
    d_prime_low: float
    d_prime_high: float
    auc: float
    auc_low: float
    auc_high: float


def disc(shape: Sequence[int], centre: Sequence[float], radius: float | Sequence[float], samples: int = 8) -> np.ndarray:
    """How much of every pixel of `shape` `(H, W)` a disc covers, 0 … 1, or of every voxel of `(D, H, W)` a ball.

    `centre` has one number for each axis, and so may `radius`; both in pixels. Pixels at the edge are sampled at `samples`
    places along each axis.
    """
    radii = np.broadcast_to(np.asarray(radius, np.float64), len(shape))
    places = [(np.arange(n) - c) / r for n, c, r in zip(shape, centre, radii, strict=True)]
    distance = np.sqrt(sum(np.square(p).reshape([-1 if i == a else 1 for a in range(len(shape))])
                           for i, p in enumerate(places)))
    covered = (distance < 1).astype(np.float64)
    edge = np.argwhere(np.abs(distance - 1) * radii.min() < 1)
    steps = (np.arange(samples) + 0.5) / samples - 0.5
    square = np.zeros((len(edge), *(1,) * len(shape)))
    for i, (c, r) in enumerate(zip(centre, radii, strict=True)):
        along = (edge[:, i, None] + steps - c) / r
        square = square + np.square(along).reshape(len(edge), *[samples if a == i else 1 for a in range(len(shape))])
    covered[tuple(edge.T)] = (square < 1).mean(tuple(range(1, 1 + len(shape))))
    return covered


def cnr(image: np.ndarray, lesion: np.ndarray, background: np.ndarray) -> float:
    """The contrast-to-noise ratio: the difference of the means over the standard deviation of the background.

    `lesion` and `background` are masks of the image; negative for a lesion darker than its background. Raises UserError for
    an empty mask.
    """
    if not lesion.any() or np.count_nonzero(background) < 2:
        raise UserError("lesion", "it or its background has no pixels; give larger ones")
    around = np.asarray(image, np.float64)[background]
    deviation = float(around.std(ddof=1))
    contrast = float(np.asarray(image, np.float64)[lesion].mean() - around.mean())
    return contrast / deviation if deviation > 0 else math.copysign(math.inf, contrast) if contrast else 0.0


def dense_difference_of_gaussians(size: int, count: int = 10, start: float = 0.005, ratio: float = 1.4,
                                  width: float = 1.67) -> np.ndarray:
    """Dense difference-of-Gaussians channels `(count, size, size)` (Abbey and Barrett 2001), for signals without direction.

    In frequency each is `exp(-(f / width s)^2 / 2) - exp(-(f / s)^2 / 2)`, where `s` grows from `start` cycles per pixel by
    `ratio`; in space they are symmetrical about the middle pixel, `size // 2`.
    """
    f = np.hypot(*np.meshgrid(*[np.fft.fftfreq(size)] * 2, indexing="ij"))
    scales = start * ratio ** np.arange(count)
    spectra = [np.exp(-0.5 * (f / (width * s)) ** 2) - np.exp(-0.5 * (f / s) ** 2) for s in scales]
    return np.stack([np.fft.fftshift(np.fft.ifft2(spectrum).real) for spectrum in spectra])


def gabor(size: int, octaves: int = 4, orientations: int = 5, highest: float = 0.25) -> np.ndarray:
    """Gabor channels `(2 octaves orientations, size, size)` (Wunderlich and Noo 2008), for signals with a direction.

    Passbands of an octave each lie below `highest` cycles per pixel, in phases 0 and 90 degrees.
    """
    y, x = np.indices((size, size)) - size // 2
    found = []
    for octave in range(octaves):
        upper = highest / 2**octave
        centre, extent = 0.75 * upper, 4 * math.log(2) / (math.pi * 0.5 * upper)
        envelope = np.exp(-4 * math.log(2) * (x**2 + y**2) / extent**2)
        for angle in np.arange(orientations) * math.pi / orientations:
            wave = 2 * math.pi * centre * (x * math.cos(angle) + y * math.sin(angle))
            found += [envelope * np.cos(wave), envelope * np.sin(wave)]
    return np.stack(found)


def hotelling_d_prime(signal: np.ndarray, covariance: np.ndarray) -> float:
    """The d' of an ideal linear observer of a known `signal` `(n,)` in noise of a known `covariance` `(n, n)`."""
    return float(np.sqrt(signal @ np.linalg.solve(covariance, signal)))


def channel_outputs(regions: np.ndarray, channels: np.ndarray) -> np.ndarray:
    """What channels `(C, H, W)` see of regions `(N, H, W)`: `(N, C)`. Raises UserError where their sizes differ."""
    if regions.shape[1:] != channels.shape[1:]:
        raise UserError("regions", f"of {regions.shape[1:]} pixels, channels of {channels.shape[1:]}; give one size")
    return np.einsum("nhw,chw->nc", np.asarray(regions, np.float64), channels, optimize=True)


def channelised_hotelling(present: np.ndarray, absent: np.ndarray, groups: Sequence[object] | None = None,
                          seed: int = 0) -> Detectability:
    """How well a channelised Hotelling observer tells regions with a lesion from those without, by their channels `(N, C)`.

    The observer is trained on some groups and reads others, so that nothing is read by what it was trained on (which would
    raise d'): up to 10 folds, or one per group where there are fewer. `groups` say whose `present` and `absent` regions (of
    the same number) are, a patient's each; without them every pair is one of its own. d' is the difference of the mean
    readings over the root of their mean variance, AUC the share of pairs that are told apart; intervals are 95 %, by a
    bootstrap over groups. NaN for one group, and where fewer regions are left to train on than twice the channels. Raises
    UserError.
    """
    if present.shape != absent.shape or present.ndim != 2:
        raise UserError("regions", f"{present.shape} with a lesion, {absent.shape} without; give (N, C) of either")
    names = list(range(len(present))) if groups is None else list(groups)
    known = list(dict.fromkeys(names))
    group = np.array([known.index(name) for name in names], int)
    fold = _folds(group, seed) if len(known) else group
    if len(known) < 2 or len(present) - np.bincount(fold).max() < 2 * present.shape[1]:
        return Detectability(*[math.nan] * 6)
    seen = [np.asarray(outputs, np.float64) for outputs in (present, absent)]
    readings = [np.empty(len(outputs)) for outputs in seen]
    for one in range(int(fold.max()) + 1):
        template = _template(*(outputs[fold != one] for outputs in seen))
        for reading, outputs in zip(readings, seen, strict=True):
            reading[fold == one] = outputs[fold == one] @ template
    return _detectability(readings[0], readings[1], group, seed)


def _folds(group: np.ndarray, seed: int) -> np.ndarray:
    """Which fold each region is in: groups stay together, and folds are about as large as each other."""
    sizes = np.bincount(group)
    order = np.random.default_rng(seed).permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    fold = np.empty(len(sizes), int)
    filled = np.zeros(min(FOLDS, len(sizes)))
    for one in order:
        fold[one] = int(np.argmin(filled))
        filled[fold[one]] += sizes[one]
    return fold[group]


def _template(present: np.ndarray, absent: np.ndarray) -> np.ndarray:
    """The Hotelling observer's weights of the channels."""
    covariance = (np.cov(present, rowvar=False) + np.cov(absent, rowvar=False)) / 2
    scale = np.sqrt(np.diag(covariance))
    scale[scale == 0] = 1
    # Channels of very different size make the system ill-conditioned; nearly dependent ones are what pinv is for.
    weights = np.linalg.pinv(covariance / np.outer(scale, scale), rcond=1e-9, hermitian=True)
    return weights @ ((present.mean(0) - absent.mean(0)) / scale) / scale


def _detectability(present: np.ndarray, absent: np.ndarray, group: np.ndarray, seed: int) -> Detectability:
    """d' and AUC of readings, with intervals over groups."""
    count = int(group.max()) + 1
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), DRAWS)
    weights = np.concatenate([np.ones((1, count)), draws])[:, group]
    weights = weights / weights.sum(1, keepdims=True)
    moments = [(weights @ reading, weights @ np.square(reading)) for reading in (present, absent)]
    variance = sum(square - mean**2 for mean, square in moments) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        d_primes = (moments[0][0] - moments[1][0]) / np.sqrt(np.maximum(variance, 0))
    apart = (present[:, None] > absent) + 0.5 * (present[:, None] == absent)
    aucs = np.einsum("kn,nm,km->k", weights, apart, weights, optimize=True)
    found = []
    for values in (d_primes, aucs):
        found += [float(values[0]), *np.nanpercentile(values[1:], [50 * (1 - LEVEL), 50 * (1 + LEVEL)]).tolist()]
    return Detectability(*found)
