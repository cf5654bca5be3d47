"""Optimizers and schedules against their formulas, written out in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.train.optim import learning_rate, optimizer
from medjax.types import UserError

USUAL = {"lr": 0.01, "warmup": 10, "decay_rate": 0.5, "decay_every": 20}
AFTER = {
    "constant": lambda t: 0.01,
    "exponential": lambda t: 0.01 * 0.5 ** (t / 20),
    "step": lambda t: 0.01 * 0.5 ** (t // 20),
    "cosine": lambda t: 0.01 * 0.5 * (1 + np.cos(np.pi * min(t / 90, 1))),
}


@pytest.mark.parametrize("schedule", AFTER)
def test_schedule(schedule):
    rate = learning_rate(100, schedule=schedule, **USUAL)
    for step in (0, 1, 5, 9):
        np.testing.assert_allclose(rate(step), 0.01 * step / 10, rtol=1e-5)
    for step in (10, 11, 29, 30, 31, 55, 99, 100):
        np.testing.assert_allclose(rate(step), AFTER[schedule](step - 10), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("schedule", AFTER)
@pytest.mark.parametrize("steps", [1, 3, 50])
def test_short_runs_and_no_warmup(schedule, steps):
    np.testing.assert_allclose(learning_rate(steps, schedule=schedule, **USUAL | {"warmup": 0})(0), 0.01, rtol=1e-6)
    peak = max(float(learning_rate(steps, schedule=schedule, **USUAL | {"warmup": 1000})(step)) for step in range(steps))
    np.testing.assert_allclose(peak, 0.01, rtol=0.05)


def steps_of(name, slopes, start, **changes) -> np.ndarray:
    """The parameter after each update."""
    rule = optimizer(100, **{"name": name, "lr": 0.1, "schedule": "constant", "warmup": 0, "clip": 0.0} | changes)
    params = {"w": jnp.float32(start)}
    state, path = rule.init(params), []
    for slope in slopes:
        updates, state = rule.update({"w": jnp.float32(slope)}, state, params)
        params = {"w": params["w"] + updates["w"]}
        path.append(float(params["w"]))
    return np.array(path)


SLOPES = [0.5, -1.0, 0.25, 2.0]


def by_hand(name, w) -> np.ndarray:
    velocity = m = v = 0.0
    path = []
    for t, g in enumerate(SLOPES, start=1):
        if name == "sgd":
            velocity = 0.9 * velocity + g
            w -= 0.1 * velocity
        elif name == "rmsprop":
            v = 0.99 * v + 0.01 * g * g
            velocity = 0.9 * velocity + 0.1 * g / np.sqrt(v + 1e-8)
            w -= velocity
        else:
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            decay = 0.04 * w if name == "adamw" else 0.0
            w -= 0.1 * (m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8) + decay)
        path.append(w)
    return np.array(path)


@pytest.mark.parametrize("name", ["sgd", "rmsprop", "adam", "adamw"])
def test_updates_by_hand(name):
    np.testing.assert_allclose(steps_of(name, SLOPES, 2.0, weight_decay=0.04), by_hand(name, 2.0), rtol=1e-4)


def test_adafactor_by_hand():
    """Rows and columns of squared slopes stand for the whole; small arrays keep theirs."""
    rule = optimizer(100, name="adafactor", lr=0.1, schedule="constant", warmup=0, clip=0.0)
    slope = np.outer(np.arange(1.0, 17), np.arange(1.0, 33)).astype(np.float32)  # of rank one, so nothing is lost
    params = {"w": jnp.zeros((16, 32)), "b": jnp.zeros(4)}
    state = rule.init(params)
    updates, _ = rule.update({"w": jnp.asarray(slope), "b": jnp.full(4, -3.0)}, state, params)
    np.testing.assert_allclose(updates["w"], -0.1, rtol=1e-4)  # the first step is the sign, as Adam's is
    np.testing.assert_allclose(updates["b"], 0.1, rtol=1e-4)
    assert max(leaf.size for leaf in jax.tree.leaves(state)) == 32


def test_a_first_moment_in_bfloat16_takes_half_and_moves_alike():
    half = optimizer(100, name="adamw", moments="bfloat16").init({"w": jnp.zeros(64)})
    sizes = sorted(leaf.nbytes for leaf in jax.tree.leaves(half) if leaf.size == 64)
    assert sizes == [128, 256]
    np.testing.assert_allclose(steps_of("adam", SLOPES, 2.0, moments="bfloat16"), by_hand("adam", 2.0), rtol=5e-3)


def test_weight_decay_is_adamws_alone():
    assert steps_of("adam", [0.0], 2.0, weight_decay=0.5)[0] == 2.0
    np.testing.assert_allclose(steps_of("adamw", [0.0], 2.0, weight_decay=0.5)[0], 2 - 0.1 * 0.5 * 2, rtol=1e-6)


def test_clipping_bounds_the_norm_over_all_parameters():
    rule = optimizer(10, name="sgd", lr=1.0, schedule="constant", warmup=0, clip=1.0, momentum=0.0)
    params = {"a": jnp.zeros(3), "b": jnp.zeros(2)}
    large = {"a": jnp.full(3, 30.0), "b": jnp.full(2, 40.0)}
    updates, _ = rule.update(large, rule.init(params), params)
    norm = np.sqrt(3 * 30**2 + 2 * 40**2)
    np.testing.assert_allclose(updates["a"], -30 / norm, rtol=1e-5)
    np.testing.assert_allclose(updates["b"], -40 / norm, rtol=1e-5)
    small = {"a": jnp.full(3, 0.1), "b": jnp.full(2, 0.1)}
    np.testing.assert_allclose(rule.update(small, rule.init(params), params)[0]["a"], -0.1, rtol=1e-6)


@pytest.mark.parametrize(("key", "value", "offered"), [("name", "adan", "adamw"), ("schedule", "cosin", "cosine"),
                                                       ("moments", "float16", "bfloat16")])
def test_an_unknown_name_lists_what_there_is(key, value, offered):
    with pytest.raises(UserError, match=rf"^config\.optim\.{key}: unknown '{value}'; choose from .*{offered}"):
        optimizer(10, **{key: value})
