"""Blur, decimation and masks: adjoints, alignment, and agreement with SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from scipy import ndimage

from medjax.physics import optics
from medjax.types import Operator, UserError

KEY = jax.random.key(0)
OPERATORS = {
    "gaussian": (optics.Blur.gaussian(1.2), (2, 11, 14, 2)),
    "gaussian 3-D": (optics.Blur.gaussian(0.8, 3, boundary="wrap"), (1, 8, 9, 10, 1)),
    "motion": (optics.Blur.motion(5.0, 0.6, boundary="zero"), (2, 11, 14, 2)),
    "given": (optics.Blur.kernel(jax.random.normal(KEY, (3, 5)), boundary="edge"), (2, 11, 14, 2)),
    "decimate": (optics.Decimate((2, 3)), (2, 12, 15, 2)),
    "thick slices": (optics.Decimate((4, 1, 1), psf="box"), (1, 8, 5, 6, 1)),
    "mask": (optics.Mask(optics.random_pixels(KEY, (11, 14), 0.3)[None]), (2, 11, 14, 2)),
}


apply, adjoint, init = (jax.jit(f) for f in (lambda A, x: A(x), lambda A, y: A.adjoint(y), lambda A, y: A.init(y)))


@pytest.mark.parametrize("name", OPERATORS)
def test_adjoint_is_the_transpose(name):
    A, shape = OPERATORS[name]
    assert isinstance(A, Operator)
    x = jax.random.normal(KEY, shape)
    Ax = apply(A, x)
    y = jax.random.normal(jax.random.key(1), Ax.shape)
    At_y = adjoint(A, y)
    left, right = (np.vdot(np.asarray(a, np.float64), b) for a, b in ((Ax, y), (x, At_y)))
    assert abs(left - right) < 1e-6 * np.linalg.norm(Ax) * np.linalg.norm(y)
    assert init(A, y).shape == shape


SCIPY_MODES = {"reflect": "reflect", "zero": "constant", "edge": "nearest", "wrap": "wrap"}


@pytest.mark.parametrize(("boundary", "mode"), SCIPY_MODES.items())
def test_blur_is_scipys_convolution(boundary, mode):
    x = np.random.default_rng(0).normal(size=(13, 12)).astype(np.float32)
    given = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
    blurred = apply(optics.Blur.kernel(jnp.asarray(given), boundary=boundary), x[None, ..., None])[0, ..., 0]
    np.testing.assert_allclose(blurred, ndimage.convolve(x.astype(np.float64), given, mode=mode), atol=5e-6)
    soft = apply(optics.Blur.gaussian(1.3, boundary=boundary), x[None, ..., None])[0, ..., 0]
    np.testing.assert_allclose(soft, ndimage.gaussian_filter(x.astype(np.float64), 1.3, mode=mode, radius=6), atol=2e-6)


def test_motion_blur_has_its_length_and_direction():
    kernel = np.asarray(optics.Blur.motion(9.0, 0.5).kernels[0], np.float64)
    rows, columns = np.mgrid[: kernel.shape[0], : kernel.shape[1]] - kernel.shape[0] // 2
    moments = np.array([[(kernel * a * b).sum() for b in (columns, rows)] for a in (columns, rows)])
    values, vectors = np.linalg.eigh(moments)
    assert kernel.sum() == pytest.approx(1, abs=1e-6)
    # A segment of length 9 has variance 9^2 / 12 along it; bilinear weights add at most 1/4 to either.
    assert 81 / 12 < values[1] < 81 / 12 + 0.25
    assert values[0] < 0.25
    assert abs(np.arctan2(*vectors[::-1, 1]) % np.pi - 0.5) < 0.05


def test_decimation_keeps_places_and_values():
    """A ramp stays the same ramp, on the coarse grid and back: no half-pixel shift, no gain."""
    x, y = np.meshgrid(np.arange(48.0), np.arange(36.0))
    ramp = jnp.asarray(0.3 * x + 0.2 * y + 1, jnp.float32)[None, ..., None]
    for A in (optics.Decimate((3, 4)), optics.Decimate((3, 4), psf="box"), optics.Decimate((3, 4), fwhm=0.8)):
        coarse = apply(A, ramp)
        expected = np.asarray(ramp).reshape(1, 12, 3, 12, 4, 1).mean((2, 4))
        np.testing.assert_allclose(coarse[:, 2:-2, 2:-2], expected[:, 2:-2, 2:-2], rtol=1e-5)
        np.testing.assert_allclose(init(A, coarse)[:, 12:-12, 16:-16], ramp[:, 12:-12, 16:-16], rtol=1e-5)


def test_decimation_shards_over_depth_without_gathering_the_volume():
    mesh = Mesh(jax.devices()[:4], "space")
    volume = jax.device_put(jnp.ones((1, 16, 8, 8, 1)), NamedSharding(mesh, PartitionSpec(None, "space")))
    text = jax.jit(optics.Decimate((2, 2, 2))).lower(volume).compile().as_text()
    assert "all-gather" not in text
    assert "collective-permute" in text


def test_inpainting_fills_with_what_is_known():
    mask = optics.random_boxes(KEY, (30, 40), count=3, size=6)
    missing = int((~mask).sum())
    assert mask.shape == (30, 40, 1)
    assert 36 <= missing <= 3 * 36
    x = jnp.where(mask, 2.0, 9.0)[None]
    A = optics.Mask(mask[None])
    np.testing.assert_allclose(init(A, apply(A, x)), np.full((1, 30, 40, 1), 2.0), rtol=1e-6)


def test_inpainting_fills_with_what_is_near():
    x = jnp.hypot(*jnp.mgrid[:40, :40])[None, ..., None]
    A = optics.Mask(optics.random_pixels(KEY, (40, 40), 0.5)[None])
    filled = init(A, apply(A, x))
    np.testing.assert_array_equal(apply(A, filled), apply(A, x))
    assert jnp.abs(filled - x).max() < 2  # pixels; the image spans 55


@pytest.mark.parametrize(("make", "message"), [
    (lambda: optics.Blur.gaussian(1.0, boundary="mirror"), "there is zero, edge"),
    (lambda: optics.Blur.kernel(jnp.ones((4, 3))), "odd sizes"),
    (lambda: optics.Blur.gaussian(1.0, 3)(jnp.ones((1, 8, 8, 1))), "one kernel axis each|kernel axis"),
    (lambda: optics.Decimate((2, 2))(jnp.ones((1, 9, 8, 1))), "2 does not divide the size 9"),
    (lambda: optics.Decimate((2,))(jnp.ones((1, 8, 8, 1))), "one factor per axis"),
    (lambda: optics.random_boxes(KEY, (8, 8), 1, 9), "do not fit"),
])
def test_mistakes_are_named(make, message):
    with pytest.raises(UserError, match=message):
        make()
