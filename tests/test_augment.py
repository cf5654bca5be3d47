"""Augmentation on the device."""


import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from medjax.data.augment import Augment
from medjax.types import UserError


def batch_of(image: np.ndarray, **more) -> dict:
    n = len(image)
    return {"image": jnp.asarray(image), "slope": jnp.full(n, 2.0), "intercept": jnp.full(n, -3.0),
            "id": jnp.arange(n, dtype=jnp.uint32), "count": jnp.ones(n)} | {k: jnp.asarray(v) for k, v in more.items()}


@pytest.fixture(scope="module")
def pictures():
    random = np.random.default_rng(0)
    return ndimage.gaussian_filter(random.normal(size=(4, 24, 20, 1)), (0, 2, 2, 0)).astype(np.float32) * 100


def test_augmentation_off_is_the_batch_itself(pictures):
    batch = batch_of(pictures)
    assert Augment()(jax.random.key(0), batch) is batch


def test_flips_mirror_image_and_label_alike(pictures):
    label = (pictures > 0).astype(np.uint8)
    out = jax.jit(Augment(flip=0.5))(jax.random.key(1), batch_of(pictures, label=label))
    kinds = set()
    for before, after, mark in zip(pictures * 2 - 3, out["image"], out["label"], strict=True):
        mirrored = {axes: np.flip(before, axes) for axes in [(), (0,), (1,), (0, 1)]}
        (axes,) = [axes for axes, image in mirrored.items() if np.array_equal(image, after)]
        np.testing.assert_array_equal(mark, (after > -3).astype(np.uint8))
        kinds.add(axes)
    assert len(kinds) > 1
    np.testing.assert_array_equal(out["slope"], np.ones(4))


@pytest.mark.parametrize("shape", [(24, 20), (10, 12, 14)])
def test_the_warp_is_scipys(shape):
    image = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(2, *shape, 1)), 2).astype(np.float32) * 100
    augment = Augment(rotate=30.0, shear=0.2, zoom=0.3)
    key = jax.random.key(3)
    mask = np.ones(image.shape, bool)
    out = jax.jit(augment)(key, batch_of(image, mask=mask))
    for i in range(2):
        place_key, _ = jax.random.split(jax.random.fold_in(key, i))
        matrix = np.asarray(augment.matrix(jax.random.split(place_key)[1], len(shape)), np.float64)
        assert not np.allclose(matrix, np.eye(len(shape)), atol=0.05)
        centre = (np.array(shape) - 1) / 2
        expected = ndimage.affine_transform(image[i, ..., 0] * 2 - 3, matrix, centre - matrix @ centre, order=1,
                                            mode="nearest")
        np.testing.assert_allclose(out["image"][i, ..., 0], expected, atol=2e-2)
        grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
        places = (grid - centre) @ matrix.T + centre
        inside = ((places > 0.01) & (places < np.array(shape) - 1.01)).all(-1)
        outside = ((places < -0.51) | (places > np.array(shape) - 0.49)).any(-1)
        assert np.asarray(out["mask"])[i, ..., 0][inside].all()
        assert not np.asarray(out["mask"])[i, ..., 0][outside].any()


def test_rotation_alone_is_a_rotation():
    draw = jax.jit(lambda key: Augment(rotate=180.0).matrix(key, 3))
    for seed in range(5):
        matrix = np.asarray(draw(jax.random.key(seed)), np.float64)
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-5)
        np.testing.assert_allclose(np.linalg.det(matrix), 1, atol=1e-5)


def test_intensity_keeps_its_bounds_and_a_sample_its_draw(pictures):
    augment = jax.jit(Augment(scale=0.1, shift=0.05, contrast=0.3))
    out = np.asarray(augment(jax.random.key(0), batch_of(pictures))["image"])
    units = pictures * 2 - 3
    assert not np.allclose(out, units, atol=1)
    spans = np.ptp(out, axis=(1, 2, 3)) / np.ptp(units, axis=(1, 2, 3))
    assert ((spans >= 0.9 - 1e-5) & (spans <= 1.1 + 1e-5)).all()
    for before, after in zip(units, out, strict=True):
        np.testing.assert_array_equal(np.argsort(after.ravel(), kind="stable")[[0, -1]],
                                      np.argsort(before.ravel(), kind="stable")[[0, -1]])
    turned = {key: value[::-1] for key, value in batch_of(pictures).items()}
    np.testing.assert_array_equal(augment(jax.random.key(0), turned)["image"][::-1], out)


def test_augmentation_says_what_is_wrong():
    for given in ({"flip": 1.5}, {"zoom": -0.1}, {"scale": 2.0}):
        with pytest.raises(UserError, match=r"config\.augment\."):
            Augment(**given)


def test_measurements_are_not_augmented():
    batch = {"image": jnp.zeros((1, 4, 4, 1)), "kspace": jnp.zeros((1, 4, 4, 2)), "id": jnp.zeros(1, jnp.uint32)}
    with pytest.raises(UserError, match=r"^config\.augment: what was measured can't be changed"):
        Augment(flip=0.5)(jax.random.key(0), batch)
    assert Augment()(jax.random.key(0), batch) is batch
