"""CNR, and the channelised Hotelling observer against what is known of signals in white noise."""

import numpy as np
import pytest
from scipy import stats

from medjax.measures.detection import (
    channel_outputs,
    channelised_hotelling,
    cnr,
    dense_difference_of_gaussians,
    disc,
    gabor,
    hotelling_d_prime,
)
from medjax.types import UserError

SIZE, NOISE = 32, 10.0
SIGNAL = 2.5 * disc((SIZE, SIZE), (SIZE // 2, SIZE // 2), 4.0)
CHANNELS = {"difference of Gaussians": dense_difference_of_gaussians(SIZE), "Gabor": gabor(SIZE, 3, 4)}


def draws(seed: int, count: int, channels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What channels see with and without the signal."""
    noise = np.random.default_rng(seed).normal(0, NOISE, (2, count, SIZE, SIZE))
    return channel_outputs(noise[0] + SIGNAL, channels), channel_outputs(noise[1], channels)


def test_a_disc_has_its_area_and_its_middle():
    found = disc((40, 40), (18.3, 21.6), 7.7)
    assert found.sum() == pytest.approx(np.pi * 7.7**2, rel=2e-3)
    y, x = np.indices(found.shape)
    assert ((found * y).sum() / found.sum(), (found * x).sum() / found.sum()) == pytest.approx((18.3, 21.6), abs=5e-3)


def test_cnr_is_the_contrast_over_the_noise():
    lesion = disc((200, 200), (100, 100), 40.0) == 1
    image = np.random.default_rng(0).normal(50, NOISE, (200, 200)) - 20 * lesion
    assert cnr(image, lesion, ~lesion) == pytest.approx(-20 / NOISE, rel=0.02)
    with pytest.raises(UserError, match="no pixels"):
        cnr(image, lesion & False, lesion)


@pytest.mark.parametrize("name", CHANNELS)
def test_d_prime_in_white_noise_is_the_analytic_one(name):
    channels = CHANNELS[name]
    flat = channels.reshape(len(channels), -1)
    truth = hotelling_d_prime(flat @ SIGNAL.ravel(), NOISE**2 * flat @ flat.T)
    assert 1.2 < truth <= np.linalg.norm(SIGNAL) / NOISE  # no channels see more than the ideal observer
    found = channelised_hotelling(*draws(0, 800, channels))
    assert found.d_prime == pytest.approx(truth, rel=0.1)  # 800 pairs: a deviation of 4 %
    assert found.d_prime_low < truth < found.d_prime_high
    assert found.auc == pytest.approx(stats.norm.cdf(truth / np.sqrt(2)), abs=0.025)
    assert found.d_prime_high - found.d_prime_low == pytest.approx(2 * 1.96 * np.sqrt((2 + truth**2 / 4) / 800), rel=0.2)


def test_an_observer_is_not_read_by_what_it_was_trained_on():
    """Without a signal d' is 0; an observer that is tested on its training regions finds 0.6 in 60 of them."""
    channels = CHANNELS["difference of Gaussians"][:8]
    random = np.random.default_rng(0)
    found = [channelised_hotelling(*(channel_outputs(random.normal(0, 1, (60, SIZE, SIZE)), channels) for _ in range(2)))
             for _ in range(20)]
    assert np.mean([one.d_prime for one in found]) == pytest.approx(0, abs=0.12)
    assert np.mean([one.auc for one in found]) == pytest.approx(0.5, abs=0.04)
    assert np.mean([one.auc_low < 0.5 < one.auc_high for one in found]) > 0.75


def test_regions_of_one_patient_are_together_and_widen_the_interval():
    present, absent = draws(0, 240, CHANNELS["difference of Gaussians"])
    patients = [i // 20 for i in range(240)]
    # What a patient has in common counts once: half the patients have lesions that are hardly there.
    present[np.array(patients) % 2 == 0] -= 0.8 * (present.mean(0) - absent.mean(0))
    alone, grouped = (channelised_hotelling(present, absent, groups) for groups in (None, patients))
    assert grouped.auc == pytest.approx(alone.auc, abs=0.05)
    assert grouped.auc_high - grouped.auc_low > 1.3 * (alone.auc_high - alone.auc_low)
    assert np.isnan(channelised_hotelling(present, absent, ["one"] * 240).d_prime)
    with pytest.raises(UserError, match="of either"):
        channelised_hotelling(present[1:], absent)


def test_channels_do_not_see_the_mean():
    flat = channel_outputs(np.full((1, 64, 64), 1000.0), dense_difference_of_gaussians(64))
    assert np.abs(flat).max() < 1e-6
    with pytest.raises(UserError, match="one size"):
        channel_outputs(np.ones((1, 20, 20)), CHANNELS["Gabor"])
