"""Rematerialisation: the same losses and gradients, less memory."""

import jax
import numpy as np
import pytest

from configs import quickstart
from medjax import registry
from medjax.bench import memory
from medjax.models.rematerialise import COMPILER_OPTIONS, rematerialised
from medjax.types import UserError

NETWORKS = {"unet": {"width": 4, "depth": 2, "dropout": 0.2}, "edsr": {"width": 4, "blocks": 2, "norm": "batch"}}


def gradient(name: str, policy: str, **changes):
    """Loss and gradient of a network."""
    network = registry.build("models", registry.spec("models", name, **changes), ndim=2, channels=1, scale=(1, 1))
    x = np.random.default_rng(0).normal(size=(1, 16, 16, 1)).astype(np.float32)
    variables = jax.jit(network.init)(jax.random.PRNGKey(0), x)

    def loss(variables):
        with rematerialised(policy):
            y, _ = network.apply(variables, x, train=True, rngs={"dropout": jax.random.PRNGKey(1)}, mutable=["batch_stats"])
        return (y**2).mean()

    options = COMPILER_OPTIONS if policy != "none" else None
    value, grads = jax.jit(jax.value_and_grad(loss), compiler_options=options)(variables)
    return float(value), grads["params"]


@pytest.mark.parametrize("name", NETWORKS)
def test_losses_and_gradients_stay(name):
    kept, recomputed = (gradient(name, policy, **NETWORKS[name]) for policy in ("none", "full"))
    assert recomputed[0] == pytest.approx(kept[0], rel=1e-6)
    for a, b in zip(jax.tree.leaves(recomputed[1]), jax.tree.leaves(kept[1]), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * max(1.0, np.abs(b).max()))


@pytest.mark.slow
def test_a_3d_unet_takes_less_memory():
    """`bench memory` of its train step on 64^3: at most four fifths are left, and that is what a user is shown."""
    taken = []
    for policy in ("none", "full"):
        config = quickstart.get_config()
        config.data.update(ndim=3, patch=(64, 64, 64))
        config.model.update(width=16, depth=4, norm="group")
        config.remat = policy
        plan = next(memory.plans(config, [], ["f32"], ["1"], [], ["1x1"]))
        taken.append(memory.measure(plan)["temporaries_mb"])
    assert taken[1] < 0.8 * taken[0]


def test_an_unknown_policy_lists_what_there_is():
    says = r"^config\.remat: unknown 'all'; choose from none, full, dots$"
    with pytest.raises(UserError, match=says), rematerialised("all"):
        pass
