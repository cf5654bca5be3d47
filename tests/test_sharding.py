"""One device or eight: the same run."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax import registry
from medjax.train import sharding
from medjax.train.optim import optimizer
from medjax.train.step import init_state, make_step
from medjax.types import UserError

STEPS = 4


def curves(data: int, mode: str = "jit", fsdp: bool = False, accumulate: int = 1,
           offload: bool = False) -> dict[str, list[float]]:
    """Losses and gradient norms of a small denoiser on the first `data` devices."""
    task = registry.build("tasks", registry.spec("tasks", "denoise"), data_range=(0.0, 255.0), ndim=2)
    network = registry.spec("models", "unet", width=4, depth=2)
    model = registry.build("models", network, ndim=2, channels=1, scale=task.scale)
    objective = registry.build("objectives", registry.spec("objectives", "supervised"), task=task, model=model)
    optimizers = {"model": optimizer(100, warmup=2)}
    mesh = sharding.make_mesh(data)
    random = np.random.default_rng(0)
    batch = {
        "image": random.integers(0, 255, (8, 16, 16, 1), np.uint8), "slope": np.ones(8, np.float32),
        "intercept": np.zeros(8, np.float32), "id": np.arange(8, dtype=np.uint32), "count": np.ones(8, np.float32),
    }
    batch = jax.device_put(batch, sharding.batch_sharding(mesh, batch))
    init = partial(init_state, task, objective, optimizers, 0.9, key=jax.random.PRNGKey(0))
    shardings = sharding.state_sharding(mesh, jax.eval_shape(init, batch), fsdp)
    shardings = sharding.offloaded(shardings) if offload else shardings
    state = jax.jit(init, out_shardings=shardings)(batch)
    step = make_step(task, objective, optimizers, 0.9, accumulate=accumulate, axis=None if mode == "jit" else "data")
    step = sharding.parallel(step, mesh, mode, shardings)
    logs = []
    for _ in range(STEPS):
        state, log = step(state, batch)
        logs.append(jax.device_get(log))
    assert all((leaf.sharding.memory_kind == "pinned_host") == offload for leaf in jax.tree.leaves(state.opt_state))
    split = [leaf for leaf in jax.tree.leaves(state.params) if not leaf.sharding.is_fully_replicated]
    assert bool(split) == fsdp
    return {name: [float(log[name]) for log in logs] for name in ("model/loss", "model/grad_norm")}


@pytest.fixture(scope="module")
def one() -> dict[str, list[float]]:
    """The run on one device."""
    return curves(1)


VARIANTS = {
    "shard_map": {"mode": "shard_map"}, "pmap": {"mode": "pmap"}, "accumulate": {"accumulate": 2},
    "fsdp": {"fsdp": True, "offload": True},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_eight_devices_make_the_run_of_one(variant, one, monkeypatch):
    monkeypatch.setattr(sharding, "FSDP_FROM", 64)
    data = 4 if variant == "accumulate" else 8
    eight = curves(data, **VARIANTS[variant])
    np.testing.assert_allclose(eight["model/loss"], one["model/loss"], rtol=1e-5)
    np.testing.assert_allclose(eight["model/grad_norm"], one["model/grad_norm"], rtol=1e-5)
    assert one["model/loss"][-1] < one["model/loss"][0]


def test_a_batch_that_does_not_divide_names_the_nearest_that_does():
    with pytest.raises(UserError, match="12 does not split over 8 devices; the nearest that does is 16"):
        sharding.check_batch(sharding.make_mesh(8), 12)
    with pytest.raises(UserError, match="3 does not divide the 8 devices"):
        sharding.make_mesh(-1, 3)
    with pytest.raises(UserError, match="unknown 'pjit'; choose from jit, shard_map, pmap"):
        sharding.check_mode(sharding.make_mesh(8), "pjit", fsdp=False)
    with pytest.raises(UserError, match="need mode=jit"):
        sharding.check_mode(sharding.make_mesh(2, 4), "pmap", fsdp=False)


def test_images_go_over_both_axes_of_the_mesh():
    mesh = sharding.make_mesh(2, 4)
    batch = {"image": jnp.zeros((2, 8, 6, 6, 1)), "id": jnp.zeros(2, jnp.uint32)}
    placed = jax.device_put(batch, sharding.batch_sharding(mesh, batch))
    assert placed["image"].addressable_shards[0].data.shape == (1, 2, 6, 6, 1)
    assert placed["id"].addressable_shards[0].data.shape == (1,)
