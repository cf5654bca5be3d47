"""MTF and TTF of edges, discs and wires that were blurred by a Gaussian, whose MTF is known."""

import numpy as np
import pytest
from scipy.special import erf

from medjax.measures.detection import disc
from medjax.measures.resolution import mtf_of_disc, mtf_of_edge, mtf_of_wire
from medjax.types import UserError

PIXEL = 0.5


def gaussian_mtf(frequency: np.ndarray, sigma_mm: float) -> np.ndarray:
    return np.exp(-2 * np.square(np.pi * sigma_mm * frequency))


def edge(sigma_mm: float, degrees: float = 5.0, size: int = 64) -> np.ndarray:
    """100 and -40 HU, sampled in the middles of pixels."""
    y, x = np.indices((size, size)) * PIXEL
    angle = np.deg2rad(degrees)
    across = (x - 15.63) * np.cos(angle) + (y - 16) * np.sin(angle)
    return -40 + 140 * 0.5 * (1 + erf(across / sigma_mm / np.sqrt(2)))


@pytest.mark.parametrize("sigma_mm", [0.3, 0.4, 0.8])
@pytest.mark.parametrize("turn", [0, 1, 2, 3])
def test_a_slanted_edge_has_the_mtf_of_its_blur(sigma_mm, turn):
    found = mtf_of_edge(np.rot90(edge(sigma_mm), turn), PIXEL)
    assert found.frequency[-1] == pytest.approx(0.5 / PIXEL)
    np.testing.assert_allclose(found.value, gaussian_mtf(found.frequency, sigma_mm), atol=0.01)
    assert found.f50 == pytest.approx(np.sqrt(np.log(2) / 2) / np.pi / sigma_mm, rel=0.01)
    assert np.isnan(found.f10) or found.f10 == pytest.approx(np.sqrt(np.log(10) / 2) / np.pi / sigma_mm, rel=0.02)


def test_an_edge_in_noise_has_nearly_the_same():
    noise = np.random.default_rng(0).normal(0, 2, (64, 64))
    found = mtf_of_edge(edge(0.4) + noise, PIXEL)
    assert found.f50 == pytest.approx(np.sqrt(np.log(2) / 2) / np.pi / 0.4, rel=0.05)


@pytest.mark.parametrize("sigma_mm", [0.3, 0.4, 0.6])
def test_a_disc_has_the_transfer_function_of_its_blur(sigma_mm):
    """Drawn on a grid five times as fine, blurred there, and sampled."""
    fine, centre, radius = 5, (24.2, 25.3), 12.0
    drawn = disc((250, 250), [fine * c + 2 for c in centre], fine * radius, samples=4)
    f = np.fft.fftfreq(250, PIXEL / fine)
    blurred = np.fft.ifft2(np.fft.fft2(drawn) * gaussian_mtf(np.hypot(f[:, None], f), sigma_mm)).real
    found = mtf_of_disc(20 * blurred[2::fine, 2::fine] - 3, centre, radius * PIXEL, PIXEL)
    np.testing.assert_allclose(found.value, gaussian_mtf(found.frequency, sigma_mm), atol=0.02)
    assert found.f50 == pytest.approx(np.sqrt(np.log(2) / 2) / np.pi / sigma_mm, rel=0.02)


@pytest.mark.parametrize("sigma_mm", [0.4, 0.8])
def test_a_wire_has_the_mtf_of_its_blur(sigma_mm):
    y, x = np.indices((48, 48)) * PIXEL
    image = 30 + 900 * np.exp(-0.5 * (np.square(y - 11.9) + np.square(x - 12.2)) / sigma_mm**2)
    found = mtf_of_wire(image, (PIXEL, PIXEL))
    np.testing.assert_allclose(found.value, gaussian_mtf(found.frequency, sigma_mm), atol=0.01)


def test_what_has_no_edge_is_refused():
    for image, why in ((np.ones((32, 32)), "no edge crosses"), (edge(0.4, 0.0), "along the pixel grid"),
                       (np.ones(32), "give .H, W.")):
        with pytest.raises(UserError, match=why):
            mtf_of_edge(image, PIXEL)
    with pytest.raises(UserError, match="to a side of its edge"):
        mtf_of_disc(np.ones((20, 20)), (10, 10), 4.9, PIXEL)
    with pytest.raises(UserError, match="no wire"):
        mtf_of_wire(np.ones((20, 20)), (PIXEL, PIXEL))
