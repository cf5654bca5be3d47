"""Image quality against scikit-image in float64."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from scipy import ndimage
from skimage import metrics as oracle

from medjax.evaluation.run import undefined
from medjax.measures import image_quality
from medjax.measures.summary import mean_of_numbers
from medjax.tasks.denoise import Denoise
from medjax.tasks.register import Register
from medjax.train.run import described
from medjax.types import UserError

# shape (*space, C), lowest and highest value, data range
CASES = {
    "2-D": ((40, 33, 1), 0.0, 1.0, 1.0),
    "3-D": ((17, 20, 15, 1), 0.0, 1.0, 1.0),
    "colour": ((32, 24, 3), 0.0, 255.0, 255.0),
    "HU": ((40, 40, 1), -1000.0, 3000.0, 4000.0),
    "HU in a narrow window": ((40, 40, 1), -1000.0, 400.0, 400.0),
    "3-D HU": ((14, 20, 20, 1), -1024.0, 1500.0, 4095.0),
    "faint": ((30, 30, 1), 0.0, 1e-3, 1e-3),
}


def pair(shape, low, high, batch=2) -> tuple[np.ndarray, np.ndarray]:
    """Smooth structure with flat regions in the range, and a noisy copy."""
    rng = np.random.default_rng(1)
    smooth = ndimage.gaussian_filter(rng.normal(size=(batch, *shape)), (0, *(2.0,) * (len(shape) - 1), 0))
    unit = np.clip(smooth / smooth.std() * 0.5 + 0.4, 0, 1)
    truth = low + unit * (high - low)
    strength = 0.05 * (high - low) * np.arange(1, batch + 1).reshape(-1, *(1,) * len(shape))
    pred = truth + strength * rng.normal(size=truth.shape)
    return pred.astype(np.float32), truth.astype(np.float32)


def ssim_oracle(pred, truth, data_range, full=False):
    found = oracle.structural_similarity(np.float64(truth), np.float64(pred), data_range=data_range, channel_axis=-1,
                                         full=full, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
    return found[1] if full else found


@pytest.mark.parametrize("case", CASES)
def test_agrees_with_scikit_image(case):
    shape, low, high, data_range = CASES[case]
    pred, truth = pair(shape, low, high)
    p, t = jnp.asarray(pred), jnp.asarray(truth)
    exact = [(np.float64(a), np.float64(b)) for a, b in zip(truth, pred, strict=True)]
    psnr = [oracle.peak_signal_noise_ratio(a, b, data_range=data_range) for a, b in exact]
    np.testing.assert_allclose(image_quality.psnr(p, t, data_range), psnr, atol=1e-4)
    ssim = [ssim_oracle(b, a, data_range) for a, b in zip(truth, pred, strict=True)]
    np.testing.assert_allclose(image_quality.ssim(p, t, data_range), ssim, atol=1e-4)
    np.testing.assert_allclose(image_quality.mse(p, t), [oracle.mean_squared_error(a, b) for a, b in exact], rtol=1e-4)
    nmse = [oracle.normalized_root_mse(a, b, normalization="euclidean") ** 2 for a, b in exact]
    np.testing.assert_allclose(image_quality.nmse(p, t, data_range), nmse, rtol=1e-4)
    np.testing.assert_allclose(image_quality.mae(p, t), [np.abs(a - b).mean() for a, b in exact], rtol=1e-4)


@pytest.mark.parametrize(("domain", "units"), [
    ({"units": "HU", "spacing_mm": (1.0, 1.0)}, {"mse": "HU²", "registration_error": "mm"}),
    ({"units": "", "spacing_mm": ()}, {"mse": "units²", "registration_error": "px"}),
])
def test_metrics_are_in_the_units_of_the_images(domain, units):
    config = ml_collections.ConfigDict({"metric": "ssim", "data": {"domain": domain}})
    found = {}
    for task in (Denoise((0.0, 1.0), 2), Register((0.0, 1.0), 2)):
        found |= described(config, task)
    assert {name: found[name].unit for name in units} == units
    assert next(iter(described(config, Denoise((0.0, 1.0), 2)))) == "ssim"


@pytest.mark.parametrize("case", ["2-D", "3-D", "colour", "HU in a narrow window"])
def test_only_what_the_mask_holds_counts(case):
    shape, low, high, data_range = CASES[case]
    pred, truth = pair(shape, low, high)
    mask = np.zeros((2, *shape[:-1], 1), bool)
    mask[0, 1:, 2:-1] = True
    mask[1, 2:-2, :-1] = True
    mask[1, 3, 4] = False
    p, t, m = jnp.asarray(np.where(mask, pred, high * 7)), jnp.asarray(truth), jnp.asarray(mask)
    inside = [(np.float64(a)[b[..., 0]], np.float64(c)[b[..., 0]]) for a, b, c in zip(pred, mask, truth, strict=True)]
    np.testing.assert_allclose(image_quality.mse(p, t, m), [np.square(a - b).mean() for a, b in inside], rtol=1e-4)
    np.testing.assert_allclose(image_quality.mae(p, t, m), [np.abs(a - b).mean() for a, b in inside], rtol=1e-4)
    nmse = [np.square(a - b).sum() / np.square(b).sum() for a, b in inside]
    np.testing.assert_allclose(image_quality.nmse(p, t, data_range, m), nmse, rtol=1e-4)
    psnr = [10 * np.log10(data_range**2 / np.square(a - b).mean()) for a, b in inside]
    np.testing.assert_allclose(image_quality.psnr(p, t, data_range, m), psnr, atol=1e-4)
    for i in range(2):
        windows = ndimage.minimum_filter(mask[i, ..., 0], 11, mode="constant", cval=0)
        expected = ssim_oracle(pred[i], truth[i], data_range, full=True)[windows].mean()
        np.testing.assert_allclose(image_quality.ssim(p, t, data_range, m)[i], expected, atol=1e-4)


@pytest.mark.parametrize("masked", [False, True])
def test_foreground_and_background_apart(masked):
    """Air is what is no brighter than a twentieth of the range above its lower end: in HU from -1000, up to -800."""
    pred, truth = pair((12, 14, 1), -1000, 3000)
    truth[0, :5] = -900
    truth[1] = -990
    mask = np.ones((2, 12, 14, 1), bool)
    mask[:, :, 11:] = not masked
    given = (jnp.asarray(pred), jnp.asarray(truth), 4000.0, -1000.0, *([jnp.asarray(mask)] if masked else []))
    bright = truth > -800
    for metric, region in ((image_quality.psnr_foreground, bright & mask), (image_quality.psnr_background, ~bright & mask)):
        expected = [10 * np.log10(4000.0**2 / np.square(np.float64(a)[r] - b[r]).mean()) if r.any() else np.nan
                    for a, b, r in zip(pred, truth, region, strict=True)]
        np.testing.assert_allclose(metric(*given), expected, atol=1e-3)


def test_a_full_mask_changes_nothing():
    pred, truth = pair((20, 24, 3), 0, 1)
    full = jnp.ones((2, 20, 24, 1), bool)
    for metric in (image_quality.mse, image_quality.mae):
        np.testing.assert_allclose(metric(pred, truth, full), metric(pred, truth), rtol=1e-6)
    for metric in (image_quality.psnr, image_quality.ssim, image_quality.nmse):
        np.testing.assert_allclose(metric(pred, truth, 1.0, full), metric(pred, truth, 1.0), rtol=1e-6)


def test_the_data_range_is_the_given_one():
    pred, truth = pair((20, 20, 1), 0, 1)
    twice = image_quality.psnr(pred, truth, 2.0) - image_quality.psnr(pred, truth, 1.0)
    np.testing.assert_allclose(twice, 20 * np.log10(2), atol=1e-4)
    wide = image_quality.ssim(pred * 50, truth * 50, 50.0)
    np.testing.assert_allclose(wide, image_quality.ssim(pred, truth, 1.0), atol=1e-5)


def test_perfect_images_give_finite_numbers():
    _, truth = pair((20, 20, 1), -1000, 3000)
    assert (image_quality.psnr(truth, truth, 4000.0) >= 190).all()
    np.testing.assert_allclose(image_quality.ssim(truth, truth, 4000.0), 1, atol=1e-6)
    np.testing.assert_array_equal(image_quality.nmse(truth, truth, 4000.0), 0)


@pytest.mark.parametrize(("low", "high"), [(0.0, 255.0), (-1000.0, 3000.0)])
def test_air_alone_has_no_ratio_to_its_content_whatever_the_prediction(low, high):
    """Zero after a change of units, as tasks have it, is zero but for rounding."""
    _, truth = pair((20, 20, 1), low, high, batch=3)
    truth[1] = np.float32((0 - low) / (high - low)) * np.float32(high - low) + np.float32(low)
    exact, noisy = jnp.asarray(truth), jnp.asarray(truth) + 5
    for pred in (exact, noisy):
        given = (pred, exact, high - low)
        for metric in (image_quality.psnr, image_quality.nmse):
            np.testing.assert_array_equal(np.isnan(metric(*given)), [False, True, False])
        assert np.isfinite(image_quality.ssim(*given)).all()
    np.testing.assert_allclose(image_quality.mse(noisy, exact), 25, rtol=1e-3)


def test_air_inside_the_mask_is_air():
    pred, truth = pair((20, 20, 1), 0, 1)
    mask = np.zeros((2, 20, 20, 1), bool)
    mask[:, :12] = True
    truth[0, :12] = 0
    for metric in (image_quality.psnr, image_quality.nmse):
        np.testing.assert_array_equal(np.isnan(metric(pred, truth, 1.0, mask)), [True, False])


def test_samples_without_a_number_are_counted():
    samples = [{"model": {"psnr": psnr, "hits": [1, 2], "own": np.nan}} for psnr in (np.nan, 30.0, np.nan)]
    assert undefined(samples, ("psnr", "ssim")) == {"psnr": 2}
    assert undefined(samples[1:2], ("psnr",)) == {}


def test_nothing_that_counts_gives_no_number():
    pred, truth = pair((20, 20, 1), 0, 1)
    nothing = jnp.zeros((2, 20, 20, 1), bool)
    for metric in (image_quality.mse, image_quality.mae):
        assert np.isnan(metric(pred, truth, nothing)).all()
    for metric in (image_quality.psnr, image_quality.nmse, image_quality.ssim):
        assert np.isnan(metric(pred, truth, 1.0, nothing)).all()


def test_similarity_is_no_number_where_no_window_fits_and_means_leave_it_out():
    pred, truth = pair((20, 20, 1), 0, 1, batch=3)
    mask = np.ones((3, 20, 20, 1), bool)
    mask[0], mask[1, 10] = False, False  # nothing, and two halves of ten rows at most
    found = np.asarray(image_quality.ssim(pred, truth, 1.0, jnp.asarray(mask)))
    np.testing.assert_array_equal(np.isnan(found), [True, True, False])
    np.testing.assert_allclose(found[2], ssim_oracle(pred[2], truth[2], 1.0), atol=1e-4)
    assert mean_of_numbers(found) == found[2]
    assert np.isnan(mean_of_numbers(found[:2]))


def test_images_smaller_than_the_window_are_refused():
    small = jnp.zeros((1, 10, 32, 1))
    with pytest.raises(UserError, match="ssim: the window of 11 voxels does not fit in 10x32"):
        image_quality.ssim(small, small, 1.0)


def test_thin_volumes_are_compared_slice_by_slice():
    pred, truth = pair((6, 24, 20, 1), 0, 1)
    mask = np.ones((2, 6, 24, 20, 1), bool)
    mask[:, 4:, :6] = False
    for i in range(2):
        slices = np.stack([ssim_oracle(p, t, 1.0, full=True) for p, t in zip(pred[i], truth[i], strict=True)])
        np.testing.assert_allclose(image_quality.ssim(pred, truth, 1.0)[i], slices[:, 5:-5, 5:-5].mean(), atol=1e-4)
        counted = np.concatenate([slices[:4, 5:-5, 5:-5].ravel(), slices[4:, 11:-5, 5:-5].ravel()])
        np.testing.assert_allclose(image_quality.ssim(pred, truth, 1.0, mask)[i], counted.mean(), atol=1e-4)


def test_samples_are_compared_one_by_one():
    pred, truth = pair((16, 16, 1), 0, 1, batch=3)
    together = image_quality.ssim(pred, truth, 1.0)
    alone = [image_quality.ssim(pred[i:i + 1], truth[i:i + 1], 1.0)[0] for i in range(3)]
    np.testing.assert_allclose(together, alone, rtol=1e-6)
    assert jax.jit(image_quality.ssim, static_argnums=2)(pred, truth, 1.0).shape == (3,)


@pytest.mark.parametrize("metric", [image_quality.mse, image_quality.psnr, image_quality.ssim, image_quality.nmse])
@pytest.mark.parametrize("shape", [(1, 16, 1, 1), (2, 16, 16, 1), (1, 16, 15, 1)])
def test_images_of_two_shapes_are_refused(unchecked, metric, shape):
    """Those that broadcast, too: each of two images against one, a row against all."""
    data_range = {} if metric is image_quality.mse else {"data_range": 1.0}
    with pytest.raises(UserError, match="compares images of one shape, not"):
        metric(jnp.zeros(shape), jnp.zeros((1, 16, 16, 1)), **data_range)
