"""Training losses against NumPy, with masks, and with gradients that training can live on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.metrics import structural_similarity

from medjax.measures import losses
from medjax.measures.losses import RESTORATION

SHAPES = [(2, 16, 14, 1), (2, 12, 13, 3), (2, 12, 13, 11, 1)]


SLOPES = {name: jax.jit(jax.value_and_grad(lambda *given, loss=loss: loss(*given).value))
          for name, loss in RESTORATION.items()}


def pair(shape):
    rng = np.random.default_rng(3)
    truth = rng.uniform(size=shape).astype(np.float32)
    return truth + 0.2 * rng.normal(size=shape).astype(np.float32), truth


def expected(name, pred, truth):
    error = np.float64(pred) - np.float64(truth)
    if name == "ssim":
        pairs = zip(truth, pred, strict=True)
        return 1 - np.mean([structural_similarity(np.float64(t), np.float64(p), data_range=1.0, channel_axis=-1, sigma=1.5,
                                                  gaussian_weights=True, use_sample_covariance=False) for t, p in pairs])
    if name == "gradient":
        return np.mean([np.abs(np.diff(error, axis=axis)).mean() for axis in range(1, error.ndim - 1)])
    return {"l1": np.abs(error), "l2": error**2, "charbonnier": np.sqrt(error**2 + 1e-6)}[name].mean()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", RESTORATION)
def test_value(name, shape):
    pred, truth = pair(shape)
    loss = RESTORATION[name](jnp.asarray(pred), jnp.asarray(truth)).value
    assert loss.shape == ()
    np.testing.assert_allclose(loss, expected(name, pred, truth), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", RESTORATION)
def test_padded_samples_weigh_nothing(name):
    """A batch filled up with a sample that does not count has the loss, and the gradient, of the batch without it."""
    pred, truth = pair((3, 15, 13, 1))
    pred[2] = 99.0
    mask = jnp.ones((3, 15, 13, 1), bool).at[2].set(False)
    value, slope = SLOPES[name](jnp.asarray(pred), jnp.asarray(truth), mask)
    alone, alone_slope = SLOPES[name](jnp.asarray(pred[:2]), jnp.asarray(truth[:2]))
    np.testing.assert_allclose(value, alone, rtol=1e-5)
    np.testing.assert_allclose(slope[:2], alone_slope, rtol=1e-3, atol=1e-8)
    np.testing.assert_array_equal(slope[2], 0)


@pytest.mark.parametrize("name", RESTORATION)
def test_voxels_outside_the_mask_do_not_count(name):
    pred, truth = pair((1, 20, 18, 3))
    mask = np.zeros((1, 20, 18, 1), bool)
    mask[:, 2:17, 1:15] = True
    wrong = np.where(mask, pred, 50.0)
    inside = RESTORATION[name](pred[:, 2:17, 1:15], truth[:, 2:17, 1:15]).value
    value, slope = SLOPES[name](jnp.asarray(wrong), jnp.asarray(truth), jnp.asarray(mask))
    np.testing.assert_allclose(value, inside, rtol=1e-4)
    assert np.isfinite(slope).all()
    np.testing.assert_array_equal(np.asarray(slope)[~np.broadcast_to(mask, slope.shape)], 0)


@pytest.mark.parametrize("name", RESTORATION)
def test_nothing_to_learn_from_is_no_nan(name):
    pred, truth = pair((1, 12, 12, 1))
    nothing = jnp.zeros((1, 12, 12, 1), bool)
    value, slope = SLOPES[name](jnp.asarray(pred), jnp.asarray(truth), nothing)
    assert np.isfinite(value)
    np.testing.assert_array_equal(slope, 0)


@pytest.mark.parametrize("name", RESTORATION)
def test_a_perfect_image_has_no_loss_and_a_finite_gradient(name):
    truth = jnp.asarray(pair((1, 12, 12, 1))[1])
    value, slope = SLOPES[name](truth, truth)
    np.testing.assert_allclose(value, 1e-3 if name == "charbonnier" else 0, atol=1e-6)
    assert np.isfinite(slope).all()


def test_gradient_loss_ignores_a_shift_in_brightness():
    pred, truth = (jnp.asarray(image) for image in pair((1, 12, 12, 1)))
    np.testing.assert_allclose(losses.gradient(pred + 5, truth).value, losses.gradient(pred, truth).value, rtol=1e-4)


@pytest.mark.parametrize("name", RESTORATION)
def test_parts_of_a_batch_add_up(name):
    """Total and count of two samples with other masks are the sums of theirs."""
    pred, truth = (jnp.asarray(image) for image in pair((2, 14, 13, 1)))
    mask = jnp.ones((2, 14, 13, 1), bool).at[1, 12:].set(False)
    whole = RESTORATION[name](pred, truth, mask)
    parts = [RESTORATION[name](pred[i:i + 1], truth[i:i + 1], mask[i:i + 1]) for i in range(2)]
    for field in ("total", "count"):
        np.testing.assert_allclose(getattr(whole, field), sum(getattr(part, field) for part in parts), rtol=1e-6)
    np.testing.assert_allclose(whole.times(3.0).value, 3 * whole.value, rtol=1e-6)
