"""Meshes of any shape: a volume split over devices, batches that are not full, sizes that do not fit."""

import jax
import numpy as np
import optax
import pytest

from medjax.models.unet import UNet
from medjax.objectives.supervised import Supervised
from medjax.tasks.denoise import Denoise
from medjax.train.sharding import batch_sharding, check_batch, make_mesh, replicated
from medjax.train.step import init_state, make_step
from medjax.types import UserError

KEY = jax.random.key(0)


def setting(ndim):
    task = Denoise((0.0, 1.0), ndim, "gaussian", (0.1, 0.1))
    objective = Supervised(task, UNet(ndim=ndim, channels=1, scale=(1,) * ndim, width=4, depth=2), "l2")
    return task, objective, {"model": optax.sgd(0.5)}


def batch(ndim, n=4, size=8):
    images = np.random.default_rng(0).uniform(size=(n, *(size,) * ndim, 1)).astype(np.float32)
    return {"image": images, "slope": np.ones(n, np.float32), "intercept": np.zeros(n, np.float32),
            "count": np.float32(np.arange(n) < n - 1), "id": np.arange(n, dtype=np.uint32)}


def curve(mesh, ndim, steps=3):
    task, objective, rules = setting(ndim)
    images = batch(ndim)
    placed = jax.device_put(images, batch_sharding(mesh, images))
    init = jax.jit(lambda b: init_state(task, objective, rules, 0.9, b, KEY), out_shardings=replicated(mesh))
    state = init({name: array[:1] for name, array in images.items()})
    step = jax.jit(make_step(task, objective, rules, 0.9)).lower(state, placed).compile()
    found = []
    for _ in range(steps):
        state, logs = step(state, placed)
        found.append((float(logs["model/loss"]), float(logs["model/grad_norm"])))
    return np.array(found), state, step.as_text()


def test_split_volumes_train_like_whole_ones():
    """Losses and gradient norms to 1e-5, with one sample that does not count; volumes are never gathered."""
    alone, one, _ = curve(make_mesh(1, 1), ndim=3)
    found, many, text = curve(make_mesh(2, 2), ndim=3)
    np.testing.assert_allclose(found, alone, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(many.params), jax.tree.leaves(one.params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert "all-gather" not in text
    assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(many.params))


def test_a_mesh_takes_all_devices_or_those_asked_for():
    assert dict(make_mesh().shape) == {"data": 8, "space": 1}
    assert dict(make_mesh(space=4).shape) == {"data": 2, "space": 4}
    assert dict(make_mesh(3, 2).shape) == {"data": 3, "space": 2}


@pytest.mark.parametrize(("data", "space"), [(-1, 3), (9, 1), (4, 4), (0, 1), (-1, 0), (-2, 1), (2, -1)])
def test_a_mesh_that_does_not_fit_is_one_line(data, space):
    with pytest.raises(UserError, match=r"^config\.mesh[^\n]*8"):
        make_mesh(data, space)


@pytest.mark.parametrize(("size", "hint"), [(12, 16), (3, 8), (17, 16), (0, 8), (-8, 8)])
def test_a_batch_that_does_not_split_is_one_line(size, hint):
    with pytest.raises(UserError, match=rf"^config\.batch_size: {size} [^\n]*8 devices[^\n]*nearest that does is {hint}$"):
        check_batch(make_mesh(8, 1), size)
    check_batch(make_mesh(8, 1), 16)
