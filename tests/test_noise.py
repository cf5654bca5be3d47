"""Noise models against their textbook moments, and their traceable strength."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from medjax.physics import noise
from medjax.types import UserError

KEY = jax.random.key(0)
FLAT = jnp.full((300, 300, 1), 0.5)


apply = jax.jit(lambda model, key, y: model(key, y))


def draw(model, y=FLAT):
    return np.asarray(apply(model, KEY, y)).ravel()


def test_gaussian_real_and_complex():
    assert stats.kstest(draw(noise.Gaussian(0.1))[::9], "norm", (0.5, 0.1)).pvalue > 0.01
    z = draw(noise.Gaussian(0.1), FLAT.astype(jnp.complex64))
    np.testing.assert_allclose([z.real.std(), z.imag.std(), z.real.mean()], [0.1, 0.1, 0.5], rtol=0.02)


@pytest.mark.parametrize("signal", [0.0, 0.5])
def test_rician_is_scipys(signal):
    drawn = draw(noise.Rician(0.2), jnp.full_like(FLAT, signal))
    assert stats.kstest(drawn[::9], stats.rice(signal / 0.2, scale=0.2).cdf).pvalue > 0.01


@pytest.mark.parametrize("method", ["gaussian", "poisson"])
def test_poisson_gaussian_variance(method):
    drawn = draw(noise.PoissonGaussian(40.0, 0.05, method))
    np.testing.assert_allclose([drawn.mean(), drawn.var()], [0.5, 0.5 / 40 + 0.05**2], rtol=0.02)


def test_poisson_counts_are_whole():
    counts = draw(noise.PoissonGaussian(40.0, method="poisson")) * 40
    np.testing.assert_allclose(counts, np.round(counts), atol=1e-4)
    with pytest.raises(UserError, match="gaussian, poisson"):
        noise.PoissonGaussian(40.0, method="binomial")


def test_full_speckle_is_rayleigh_and_none_is_none():
    assert stats.kstest(draw(noise.Speckle())[::9] / 0.5, stats.rayleigh(scale=0.5**0.5).cdf).pvalue > 0.01
    np.testing.assert_array_equal(draw(noise.Speckle(0.0)), FLAT.ravel())


def test_log_compressed_speckle_is_speckle_before_compression():
    key, level = jax.random.key(3), 0.7
    envelope = noise.Speckle(1.0)(key, jnp.full((50, 50, 1), 10 ** ((level - 1) * 60 / 20)))
    compressed = noise.Speckle(1.0, range_db=60.0)(key, jnp.full((50, 50, 1), level))
    np.testing.assert_allclose(compressed, np.clip(1 + 20 / 60 * np.log10(envelope), 0, 1), atol=1e-6)


def test_speckle_grains_correlate_and_keep_their_power():
    field = noise.Speckle(1.0, grain=(2.0, 0.0))(KEY, FLAT)[..., 0] ** 2
    power = np.asarray(field) - field.mean()
    down, right = (float((power * np.roll(power, 1, axis)).mean() / power.var()) for axis in (0, 1))
    # A Gaussian field of width 2 correlates as exp(-1 / (4 * 2^2)); its power as the square of that.
    assert down == pytest.approx(np.exp(-2 / 16), abs=0.04)
    assert abs(right) < 0.04
    assert float(field.mean()) == pytest.approx(0.25, rel=0.05)
    with pytest.raises(UserError, match="one per axis"):
        noise.Speckle(1.0, grain=(1.0,))(KEY, FLAT)


def test_salt_and_pepper_strikes_all_channels_alike():
    struck = noise.SaltAndPepper(0.2, low=-1.0, high=2.0)(KEY, jnp.full((300, 300, 3), 0.5))
    for value, share in ((-1.0, 0.1), (2.0, 0.1), (0.5, 0.8)):
        assert float((struck == value).mean()) == pytest.approx(share, abs=0.005)
    assert bool((struck == struck[..., :1]).all())


@pytest.mark.parametrize("model", [
    noise.Gaussian, noise.Rician, lambda s: noise.PoissonGaussian(1 / s**2, s), lambda s: noise.Speckle(s, (1.0, 1.0)),
])
def test_strength_can_be_drawn_per_sample_and_has_a_gradient(model):
    clean = jnp.full((2, 20, 20, 1), 0.5)
    strengths, keys = jnp.array([0.05, 0.3]), jax.random.split(KEY, 2)
    noisy = jax.jit(jax.vmap(lambda s, k, y: model(s)(k, y)))(strengths, keys, clean)
    assert noisy[1].std() > 3 * noisy[0].std()
    slope = jax.jit(jax.grad(lambda s: jnp.mean((model(s)(KEY, clean[0]) - 0.5) ** 2)))(0.1)
    assert slope > 0.01
