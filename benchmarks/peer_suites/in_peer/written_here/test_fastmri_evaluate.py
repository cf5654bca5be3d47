"""fastMRI's numbers of `evaluate`, of which it has no tests: its functions and medjax's on the same drawn volumes."""

import numpy as np
import pytest
from fastmri import evaluate
from in_peer.link import call


def volumes(shape: tuple[int, ...], noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Smooth positive slices of very different brightness, and the same with noise."""
    random = np.random.default_rng(sum(shape))
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape[1:]), indexing="ij"))
    truth = np.stack([(i + 1) * np.exp(-4 * ((grid - random.uniform(-0.5, 0.5, (2, 1, 1))) ** 2).sum(0))
                      for i in range(shape[0])]).astype(np.float32)
    return truth, (truth + noise * truth.max() * random.normal(size=shape)).astype(np.float32)


@pytest.mark.parametrize("noise", [0.01, 0.2])
@pytest.mark.parametrize("shape", [(3, 64, 49), (2, 320, 320)])
def test_ssim_of_a_volume(shape, noise):
    truth, made = volumes(shape, noise)
    found = call("fastmri_ssim", made[..., None], truth[..., None], float(truth.max())).mean()
    assert found == pytest.approx(float(evaluate.ssim(truth, made)[0]), abs=1e-5)


@pytest.mark.parametrize("noise", [0.01, 0.2])
@pytest.mark.parametrize("shape", [(3, 64, 49), (2, 320, 320)])
def test_errors_of_a_volume(shape, noise):
    truth, made = volumes(shape, noise)
    images, peak = (made[None, ..., None], truth[None, ..., None]), float(truth.max())
    assert call("mse", *images)[0] == pytest.approx(float(evaluate.mse(truth, made)), rel=1e-5)
    assert call("nmse", *images, peak)[0] == pytest.approx(float(evaluate.nmse(truth, made)), rel=1e-5)
    assert call("psnr", *images, peak)[0] == pytest.approx(float(evaluate.psnr(truth, made)), abs=1e-4)
