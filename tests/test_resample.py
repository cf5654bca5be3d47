"""Pooling, upsampling and pixel shuffle, against scikit-image and index arithmetic; local when sharded."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.test_util import check_grads
from scipy.ndimage import map_coordinates
from skimage.measure import block_reduce

from medjax.ops.resample import doublings, max_pool, mean_pool, pixel_shuffle, upsample, upsample_linear

CASES = [((2, 6, 8, 3), 2), ((1, 6, 9, 1), 3), ((2, 4, 6, 8, 2), 2), ((2, 6, 4, 5, 2), (3, 2, 1)), ((3, 12, 2), 4)]


def image(shape) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def blocks(shape, factor) -> tuple[int, ...]:
    return (1, *((factor,) * (len(shape) - 2) if isinstance(factor, int) else factor), 1)


@pytest.mark.parametrize(("shape", "factor"), CASES)
def test_pooling_is_block_reduction(shape, factor):
    x = image(shape)
    np.testing.assert_array_equal(max_pool(x, factor), block_reduce(x, blocks(shape, factor), np.max))
    np.testing.assert_allclose(mean_pool(jnp.asarray(x), factor), block_reduce(x, blocks(shape, factor), np.mean), atol=1e-6)


@pytest.mark.parametrize(("shape", "factor"), CASES)
def test_upsampling_repeats(shape, factor):
    x = image(shape)
    expected = x
    for axis, f in enumerate(blocks(shape, factor)):
        expected = np.repeat(expected, f, axis)
    np.testing.assert_array_equal(upsample(jnp.asarray(x), factor), expected)
    np.testing.assert_array_equal(max_pool(upsample(jnp.asarray(x), factor), factor), x)


@pytest.mark.parametrize("space", [(5, 4), (3, 4, 5), (1, 6)])
def test_linear_upsampling_is_that_of_scipy_between_the_centres(space):
    x = image((2, *space, 3))
    places = np.stack(np.meshgrid(*((np.arange(2 * n) + 0.5) / 2 - 0.5 for n in space), indexing="ij"))
    expected = [[map_coordinates(x[b, ..., c], places, order=1, mode="nearest") for c in range(3)] for b in range(2)]
    np.testing.assert_allclose(upsample_linear(x), np.moveaxis(np.array(expected), 1, -1), atol=1e-6)


@pytest.mark.parametrize(("scale", "steps"), [
    ((4, 4), [(2, 2), (2, 2)]), ((3, 3), [(3, 3)]), ((4, 1, 1), [(2, 1, 1), (2, 1, 1)]), ((6, 2), [(2, 2), (3, 1)]),
    ((1, 1), [])])
def test_scales_are_made_of_doublings(scale, steps):
    assert doublings(scale) == steps


@pytest.mark.parametrize(("shape", "factors"), [
    ((2, 3, 4, 12), (2, 3)), ((1, 2, 3, 2, 8), (2, 1, 2)), ((1, 3, 3, 4), (2, 2))])
def test_pixel_shuffle_element_by_element(shape, factors):
    x = image(shape)
    y = np.asarray(pixel_shuffle(jnp.asarray(x), factors))
    channels = shape[-1] // int(np.prod(factors))
    assert y.shape == (shape[0], *(s * f for s, f in zip(shape[1:-1], factors, strict=True)), channels)
    for offset in itertools.product(*(range(f) for f in factors)):
        part = np.ravel_multi_index(offset, factors)
        fine = y[(slice(None), *(slice(o, None, f) for o, f in zip(offset, factors, strict=True)))]
        np.testing.assert_array_equal(fine, x[..., part * channels:(part + 1) * channels])


def test_gradients_are_transposes():
    """The mean's gradient is the repeat's transpose and the maximum's goes to the largest voxel alone."""
    x = jnp.asarray(image((1, 4, 6, 1)))
    np.testing.assert_allclose(jax.grad(lambda v: (mean_pool(v) * 4).sum())(x), np.ones(x.shape), rtol=1e-6)
    np.testing.assert_array_equal(jax.grad(lambda v: upsample(v, 3).sum())(x), np.full(x.shape, 9.0))
    largest = np.asarray(upsample(max_pool(x)) == x, np.float32)
    np.testing.assert_array_equal(jax.grad(lambda v: max_pool(v).sum())(x), largest)


@pytest.mark.parametrize("resample", [max_pool, mean_pool, upsample])
@pytest.mark.parametrize(("shape", "factor"), [((1, 4, 4, 1), 2), ((1, 3, 2, 2, 1), (3, 2, 1))])
def test_derivatives_of_both_modes_and_second_order(resample, shape, factor):
    check_grads(lambda x: jnp.sin(resample(x, factor)), (jnp.asarray(image(shape)),), order=2, atol=2e-2, rtol=2e-2)


def test_equal_maxima_share_the_gradient():
    x = jnp.asarray([3.0, 3, 1, 0]).reshape(1, 2, 2, 1)
    np.testing.assert_array_equal(jax.grad(lambda v: max_pool(v).sum())(x).ravel(), [0.5, 0.5, 0, 0])


def test_sharded_volumes_are_never_gathered():
    """With the depth split over devices every device resamples its own slices, forward and backward."""
    mesh = Mesh(np.array(jax.devices()[:4]), ("space",))
    split = NamedSharding(mesh, PartitionSpec(None, "space"))

    def chain(x):
        y = upsample(max_pool(x) + mean_pool(x))
        return pixel_shuffle(jnp.concatenate([y] * 8, -1)).sum(), y

    x = jax.device_put(image((1, 16, 4, 4, 2)), split)
    step = jax.jit(jax.value_and_grad(chain, has_aux=True))
    assert "all-gather" not in step.lower(x).compile().as_text()
    (_, y), _ = step(x)
    assert y.sharding.is_equivalent_to(split, y.ndim)
