"""Differences of input and output beside noise: what is found of what was taken, and what is not found of noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, stats

from medjax.infer.removed import NoiseOf
from medjax.measures.detection import disc
from medjax.measures.removed import discoveries, removed
from medjax.tasks.deblur import Deblur
from medjax.tasks.denoise import Denoise
from medjax.types import UserError

SHAPE, NOISE = (72, 72), 10.0


def noise_of(random: np.random.Generator, count: int) -> list[np.ndarray]:
    return list(random.normal(0, NOISE, (count, *SHAPE)))


def test_discoveries_are_those_of_scipy():
    random = np.random.default_rng(0)
    p = np.concatenate([random.uniform(0, 1, 400), random.uniform(0, 1e-4, 40)])
    np.testing.assert_array_equal(discoveries(p, 0.05), stats.false_discovery_control(p, method="bh") <= 0.05)
    assert not discoveries(random.uniform(0.1, 1, 50)).any()


def test_what_was_taken_beside_noise_is_found_and_noise_is_not():
    """Of an image of noise that is taken away whole a disc of one standard deviation goes, too."""
    random = np.random.default_rng(0)
    structure = NOISE * disc(SHAPE, (40, 32), 6.0)
    found = removed(-noise_of(random, 1)[0] - structure, noise_of(random, 12))
    inside = structure == NOISE
    assert found.significant[inside].mean() > 0.7
    assert found.significant[~ndimage.binary_dilation(inside, iterations=5)].mean() < 0.005
    assert found.shown[inside].mean() == pytest.approx(-NOISE, rel=0.3)
    assert found.excess == pytest.approx(1, abs=0.05)


def test_noise_alone_is_rarely_called_more():
    """In one of twenty images at most a voxel is significant, as the false discovery rate promises where all is noise."""
    random = np.random.default_rng(1)
    hits = sum(removed(noise_of(random, 1)[0], noise_of(random, 12)).significant.any() for _ in range(40))
    assert hits <= 6  # 2 are expected; 7 or more have a chance of 0.2 %


def test_noise_that_is_left_in_and_its_bias_are_no_difference():
    random = np.random.default_rng(2)

    def biased(count: int) -> list[np.ndarray]:  # what is taken of a magnitude: noise and its bias
        return [-one - 4 for one in noise_of(random, count)]

    for kept in (0.0, 0.5, 1.0):
        assert not removed(kept * biased(1)[0], biased(12)).significant.any()
    assert removed(np.full(SHAPE, 8.0), biased(12)).significant.all()  # the other way: brighter by what is no bias


def test_stronger_noise_than_was_thought_is_told_and_not_taken_for_structure():
    random = np.random.default_rng(3)
    found = removed(2 * noise_of(random, 1)[0], noise_of(random, 12))
    assert found.excess == pytest.approx(2, rel=0.05)
    assert not found.significant.any()


def test_only_what_is_inside_the_mask_is_tested():
    random = np.random.default_rng(4)
    mask = np.zeros(SHAPE, bool)
    mask[:, :36] = True
    found = removed(np.where(mask, -noise_of(random, 1)[0], 100.0), noise_of(random, 12), mask)
    assert not found.significant[:, 40:].any()
    assert not removed(np.zeros(SHAPE), noise_of(random, 4), mask & False).significant.any()
    with pytest.raises(UserError, match="give at least 4"):
        removed(np.zeros(SHAPE), noise_of(random, 3))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gaussian", "rician"])
def test_a_denoiser_that_blurs_is_told_from_one_that_is_right(kind):
    """By noise that the task itself draws: an edge that was blurred is found, a right image leaves noise alone."""
    task = Denoise((0.0, 100.0), 2, noise=kind, strength=(0.1, 0.1))
    truth = (0.3 + 0.4 * (disc(SHAPE, (40, 32), 20.0) > 0.5))[..., None].astype(np.float32)
    batch = {"image": jnp.asarray(truth)[None], "slope": jnp.ones(1), "intercept": jnp.zeros(1), "count": jnp.ones(1),
             "id": jnp.zeros(1, jnp.uint32), "spacing_mm": jnp.ones((1, 2))}
    noisy = np.asarray(task.simulate(jax.random.key(9), batch, jnp.asarray(truth)[None])["image"])[0]
    noise = NoiseOf(task)
    assert noise(batch, noisy, truth, truth).significant.mean() < 0.002
    blurred = ndimage.gaussian_filter(noisy, (3, 3, 0))
    found = noise(batch, noisy, blurred, truth)
    edge = np.abs(np.hypot(*(np.indices(SHAPE) - np.array([40, 32])[:, None, None])) - 20) < 4
    assert found.significant[edge].mean() > 0.3
    assert found.significant[~edge].mean() < 0.05
    assert np.abs(found.difference[found.significant]).max() > 5  # in the units of the images
    with pytest.raises(UserError, match="more than take noise away"):
        NoiseOf(Deblur((0.0, 1.0), 2))
