"""Noise power spectra against analytic ones."""

import numpy as np
import pytest

from medjax.measures.noise_power import noise_of, noise_power
from medjax.measures.spectra import Curve, frequencies, radial_average
from medjax.types import UserError

SPACING = (0.5, 0.8)


@pytest.fixture(scope="module")
def white() -> np.ndarray:
    """Noise of 12 HU."""
    return np.random.default_rng(0).normal(0, 12, (600, 32, 24))


def test_white_noise_is_flat_and_its_integral_the_variance(white):
    found = noise_power(white, SPACING)
    level = 12**2 * SPACING[0] * SPACING[1]  # HU² mm²
    assert found.power.mean() == pytest.approx(level, rel=0.01)
    assert np.abs(found.power / level - 1).max() < 0.25  # each entry has a deviation of 4 %
    assert found.variance == pytest.approx(12**2, rel=0.01)
    # Parseval's theorem, to rounding.
    assert found.variance == pytest.approx(float(np.square(white).mean()), rel=1e-12)
    assert found.radial.value == pytest.approx(level, rel=0.1)


def test_filtered_noise_has_the_spectrum_of_its_filter(white):
    """Circular filtering by a Gaussian: the spectrum is the white one times the squared transfer function."""
    sigma_mm = 0.7
    transfer = np.exp(-2 * np.square(np.pi * sigma_mm * frequencies((32, 24), SPACING)))
    found = noise_power(np.fft.ifft2(np.fft.fft2(white) * transfer).real, SPACING)
    expected = 12**2 * SPACING[0] * SPACING[1] * np.square(transfer)
    strong = expected > 1e-3 * expected.max()
    np.testing.assert_allclose(found.power[strong], expected[strong], rtol=0.25)
    ours, theirs = found.radial, radial_average(expected, SPACING)
    np.testing.assert_allclose(ours.value, theirs.value, rtol=0.1, atol=1e-3 * theirs.value.max())
    assert ours.mean_frequency == pytest.approx(theirs.mean_frequency, rel=0.02)
    assert found.variance == pytest.approx(expected.mean() / (SPACING[0] * SPACING[1]), rel=0.02)


def test_what_images_share_is_no_noise(white):
    scene = 1000 * np.random.default_rng(1).random((32, 24))
    found = noise_power(noise_of(white[:10] + scene), SPACING)
    assert found.variance == pytest.approx(12**2, rel=0.05)  # without sqrt(N / (N - 1)) a tenth less
    with pytest.raises(UserError, match="two or more"):
        noise_of(white[:1])


def test_trends_are_taken_off(white):
    y, x = np.indices((32, 24))
    trend = 3.0 * y - 2.0 * x + 0.3 * x * y + 0.2 * y**2
    plain, tilted = (noise_power(images, SPACING, degree=2).power for images in (white, white + trend))
    np.testing.assert_allclose(plain, tilted, rtol=1e-6, atol=1e-6)
    assert noise_power(white + 50, SPACING, degree=0).power[0, 0] == pytest.approx(0, abs=1e-9)
    assert noise_power(white + trend, SPACING, degree=0).variance > 10 * 12**2


def test_a_curve_crosses_its_levels():
    curve = Curve(np.array([0.0, 1.0, 2.0, 3.0]), np.array([1.0, 0.8, 0.4, 0.2]))
    assert curve.f50 == pytest.approx(1.75)
    assert np.isnan(curve.f10)
    assert curve.crossing(1.0) == 0
