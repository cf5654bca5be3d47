"""deepinv's tests compare its operators with themselves: here medjax's stand beside them, on a smooth image."""

import pytest
import torch
from deepinv.physics.functional import radon
from in_peer.deepinv import back_projected, projected


def blob(size: int) -> torch.Tensor:
    """A smooth spot off the middle."""
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, size)] * 2, indexing="ij")
    return torch.exp(-12 * ((x - 0.2) ** 2 + (y + 0.15) ** 2))[None, None]


def apart(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float(torch.linalg.norm(found - expected) / torch.linalg.norm(expected))


@pytest.fixture
def theirs(monkeypatch):
    """deepinv's own functions."""
    for name in ("Radon", "IRadon"):
        monkeypatch.setattr(getattr(radon, name), "forward", getattr(radon, name).forward.__wrapped__)


@pytest.mark.parametrize("size", [32, 47])
@pytest.mark.parametrize("circle", [True, False])
def test_sinograms_of_parallel_beams(theirs, size, circle):
    transform = radon.Radon(size, torch.arange(0.0, 180, 7), circle=circle)
    assert apart(projected(transform, blob(size)), transform(blob(size))) < 0.01


@pytest.mark.parametrize("size", [32, 47])
def test_sinograms_of_fan_beams(theirs, size):
    fan = {"source_radius": 3.0, "detector_radius": 3.0, "n_detector_pixels": 90, "detector_spacing": 0.03}
    transform = radon.Radon(size, torch.arange(0.0, 360, 11), fan_beam=True, fan_parameters=fan)
    assert apart(projected(transform, blob(size)), transform(blob(size))) < 0.02


@pytest.mark.parametrize("size", [32, 47])
@pytest.mark.parametrize("circle", [True, False])
def test_filtered_back_projections(theirs, size, circle):
    angles = torch.arange(0.0, 180, 3)
    sinogram = radon.Radon(size, angles, circle=circle)(blob(size))
    transform = radon.IRadon(size, angles, circle=circle)
    assert apart(back_projected(transform, sinogram), transform(sinogram)) < 0.02


