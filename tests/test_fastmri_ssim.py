"""SSIM as fastMRI's tables have it, against scikit-image as fastMRI's evaluate.py calls it."""

from pathlib import Path

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.metrics import structural_similarity

from medjax.data.pipeline import eval_batches
from medjax.data.sources.kspace import Kspace
from medjax.measures.image_quality import fastmri_ssim
from medjax.tasks.mri_recon import MriRecon
from medjax.types import Prediction, Region, UserError


def skimage_ssim(target: np.ndarray, pred: np.ndarray, data_range: float) -> float:
    """The defaults of scikit-image, written out: those that fastMRI takes."""
    return structural_similarity(target, pred, data_range=data_range, win_size=7, gaussian_weights=False,
                                 use_sample_covariance=True)


def test_it_is_that_of_scikit_image_by_the_largest_value_of_the_volume():
    random = np.random.default_rng(0)
    target = random.random((3, 40, 30)).astype(np.float32).repeat(3, 1) * 1e-4
    pred = target + random.normal(0, 2e-5, target.shape).astype(np.float32)
    largest = np.array([1e-4, 2e-4, 0.7e-4], np.float32)
    given = jnp.asarray(pred[..., None]), jnp.asarray(target[..., None])
    found = fastmri_ssim(*given, 1.0, jnp.asarray(largest))
    expected = [skimage_ssim(t, p, float(m)) for t, p, m in zip(target, pred, largest, strict=True)]
    assert 0.3 < min(expected) < max(expected) < 0.95
    np.testing.assert_allclose(found, expected, atol=2e-5)
    expected = [skimage_ssim(t, p, 1e-4) for t, p in zip(target, pred, strict=True)]
    np.testing.assert_allclose(fastmri_ssim(*given, 1e-4), expected, atol=2e-5)


def test_only_the_middle_320_pixels_count():
    """From pixel (325 - 320) // 2 on, as fastMRI cuts."""
    random = np.random.default_rng(0)
    target = random.random((1, 325, 330, 1)).astype(np.float32)
    pred = target.copy()
    pred[:, :2], pred[:, 322:], pred[:, :, :5], pred[:, :, 325:] = 0, 0, 0, 0
    assert float(fastmri_ssim(jnp.asarray(pred), jnp.asarray(target), 1.0)[0]) == pytest.approx(1, abs=1e-5)
    pred[:, 2] = 0
    assert float(fastmri_ssim(jnp.asarray(pred), jnp.asarray(target), 1.0)[0]) < 0.9998


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Path:
    """A file of two slices, the first much darker than the second, and the makers' reconstruction."""
    folder = tmp_path_factory.mktemp("fastmri")
    random = np.random.default_rng(0)
    images = (random.random((2, 1, 24, 20)) + 0.2) * np.array([0.2, 1.0])[:, None, None, None]
    kspace = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(images, (-2, -1)), norm="ortho"), (-2, -1))
    with h5py.File(folder / "file1.h5", "w") as file:
        file["kspace"], file["reconstruction_rss"] = kspace.astype(np.complex64), images[:, 0, 2:-2, 2:-2].astype(np.float32)
    return folder


def test_reconstructions_are_measured_by_it(sample):
    (record,) = Kspace(path=str(sample)).load()
    assert float(record.extras["volume_max"]) == pytest.approx(float(record.extras["reference"].max()))
    task = MriRecon((0.0, 1.0), 2, measures=("ssim", "fastmri_ssim"), acceleration=2.0, centre=0.2)
    batch = {k: v for k, v in next(iter(eval_batches([Region.whole(record)], batch_size=2))).items() if k != "name"}
    example = task.example(jax.random.key(0), batch)
    found = task.measure(Prediction(example.input.image), example)["fastmri_ssim"]
    truth, zero_filled = (np.hypot(x[..., 0], x[..., 1]) for x in np.asarray([example.target, example.input.image]))
    largest = float(record.extras["volume_max"])
    expected = [skimage_ssim(t, z, largest) for t, z in zip(truth, zero_filled, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert [metric.title for metric in task.metrics] == ["SSIM", "fastMRI SSIM"]


def test_volumes_and_small_slices_are_refused():
    for shape in ((1, 16, 16, 16, 1), (1, 6, 30, 1)):
        with pytest.raises(UserError, match="fastmri_ssim: compares slices"):
            fastmri_ssim(jnp.ones(shape), jnp.ones(shape), 1.0)
