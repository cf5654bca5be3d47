"""How networks learn: weighted losses, three adversarial games through the one train step, averaged weights."""

import functools
from dataclasses import replace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from medjax.models.cnn import CNN
from medjax.models.patch import Patch
from medjax.objectives._players import parse_loss, weighted
from medjax.objectives.adversarial import GAMES, Adversarial
from medjax.objectives.supervised import Supervised
from medjax.tasks.denoise import Denoise
from medjax.train.step import init_state, make_predict, make_step
from medjax.types import Example, Mean, NetworkInput, UserError

KEY = jax.random.key(0)
TASK = Denoise((0.0, 2.0), 2, "gaussian", (0.1, 0.1))
MODEL = CNN(ndim=2, channels=1, scale=(1, 1), features=(4,), kernels=(3, 3))
CRITIC = Patch(ndim=2, width=4, depth=1, norm="instance")


def batch_of(n: int) -> dict:
    image = np.random.default_rng(0).uniform(0, 2, size=(n, 12, 12, 1))
    return {"image": jnp.asarray(image, jnp.float32), "slope": jnp.ones(n), "intercept": jnp.zeros(n), "count": jnp.ones(n),
            "id": jnp.arange(n, dtype=jnp.uint32)}


BATCH = batch_of(2)
DEALT = batch_of(6)  # two samples for each of three moves


def start(objective, rules, ema_decay=0.0):
    state = jax.jit(lambda batch: init_state(TASK, objective, rules, ema_decay, batch, KEY))(BATCH)
    return state, jax.jit(make_step(TASK, objective, rules, ema_decay))


def same(a: Any, b: Any) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.fixture(scope="module")
def trained():
    """Three steps of supervised learning with averaged weights: the states before and after each, and the logs."""
    objective = Supervised(TASK, MODEL, "l1 + 0.5*l2")
    state, step = start(objective, {"model": optax.sgd(0.1)}, ema_decay=0.9)
    states, logs = [state], []
    for _ in range(3):
        state, log = step(states[-1], BATCH)
        states.append(state)
        logs.append(log)
    return objective, states, logs, step


@pytest.mark.parametrize(("text", "weights"), [
    ("l1", (("l1", 1.0),)), ("charbonnier + 0.2*ssim", (("charbonnier", 1.0), ("ssim", 0.2))),
    ("2 * l1+1e-3*gradient", (("l1", 2.0), ("gradient", 1e-3))),
])
def test_losses_are_written_as_a_sum(text, weights):
    assert parse_loss(text) == weights


@pytest.mark.parametrize("text", ["x*l1", "l1 + two*l2"])
def test_a_weight_that_is_no_number_is_one_line(text):
    with pytest.raises(UserError, match=r"^config\.objective\.loss: .*WEIGHT\*NAME"):
        parse_loss(text)


@pytest.mark.parametrize("text", ["l3", "l1 + 0.1*", ""])
def test_a_loss_that_the_task_lacks_lists_those_it_has(text):
    with pytest.raises(UserError, match=r"^config\.objective\.loss: unknown .*; choose from l1, l2"):
        weighted({name: Mean(jnp.zeros(()), jnp.ones(())) for name in ("l1", "l2")}, text)


def test_the_logged_loss_is_the_weighted_sum(trained):
    _, states, logs, _ = trained
    params = states[0].params["model"]
    key = jax.random.split(jax.random.fold_in(states[0].key, 0), 3)[0]
    example = TASK.example(key, BATCH)
    error = np.asarray(MODEL.apply({"params": params}, example.input.image) - example.target)
    np.testing.assert_allclose(logs[0]["model/l1"], np.abs(error).mean(), rtol=1e-5)
    np.testing.assert_allclose(logs[0]["model/l2"], 0.5 * np.square(error).mean(), rtol=1e-5)
    np.testing.assert_allclose(logs[0]["model/loss"], np.abs(error).mean() + 0.5 * np.square(error).mean(), rtol=1e-5)


def test_a_step_is_one_update_along_the_gradient(trained):
    _, states, logs, _ = trained
    moved = jax.tree.map(lambda old, new: (old - new) / 0.1, states[0].params["model"], states[1].params["model"])
    np.testing.assert_allclose(optax.tree.norm(moved), logs[0]["model/grad_norm"], rtol=1e-3)
    assert [int(state.step) for state in states] == [0, 1, 2, 3]


def test_noise_is_new_in_every_step_and_the_same_when_run_again(trained):
    _, states, logs, step = trained
    again, log = step(states[1], BATCH)
    assert same((again.params, again.ema), (states[2].params, states[2].ema))
    assert same(log, logs[1])
    later, _ = step(replace(states[1], step=states[1].step + 1), BATCH)
    assert not same(later.params, states[2].params)


def test_averaged_weights_follow_their_recurrence_and_are_used(trained):
    """The first averages are nearly means: the decay grows to 0.9 only by and by."""
    objective, states, _, _ = trained
    expected = states[0].params["model"]
    for step, state in enumerate(states[1:]):
        decay = min(0.9, (1 + step) / (10 + step))
        expected = jax.tree.map(lambda old, new, decay=decay: decay * old + (1 - decay) * new, expected,
                                state.params["model"])
        for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(state.ema["model"]["params"]), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)
    example, pred, metrics = make_predict(TASK, objective)(states[-1], BATCH, KEY)
    averaged = {"params": states[-1].ema["model"]["params"]}
    np.testing.assert_array_equal(pred.image, MODEL.apply(averaged, example.input.image))
    assert metrics["psnr"].shape == (2,)


def test_the_decay_is_the_given_one_after_many_steps(trained):
    _, states, _, step = trained
    late = replace(states[1], step=jnp.int32(10_000))
    after, _ = step(late, BATCH)
    expected = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, late.ema["model"]["params"], after.params["model"])
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(after.ema["model"]["params"]), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_batch_statistics_are_averaged_with_the_weights():
    objective = Supervised(TASK, CNN(ndim=2, channels=1, scale=(1, 1), features=(4, 4), kernels=(3, 3, 3), norm="batch"))
    state, step = start(objective, {"model": optax.sgd(0.1)}, ema_decay=0.5)
    after, _ = step(state, BATCH)
    expected = jax.tree.map(lambda old, new: 0.1 * old + 0.9 * new, state.variables["model"], after.variables["model"])
    assert jax.tree.leaves(expected)
    assert not same(state.variables, after.variables)
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(after.ema["model"]["variables"]), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    _, variables = after.for_use()
    assert same(variables["model"], after.ema["model"]["variables"])


def test_without_averaging_the_weights_themselves_are_used():
    objective = Supervised(TASK, MODEL)
    state = init_state(TASK, objective, {"model": optax.sgd(0.1)}, 0.0, BATCH, KEY)
    assert state.ema == {}
    example, pred, _ = make_predict(TASK, objective)(state, BATCH, KEY)
    np.testing.assert_array_equal(pred.image, MODEL.apply({"params": state.params["model"]}, example.input.image))


@pytest.mark.parametrize(("game", "critic", "model"), [
    ("nonsaturating", lambda t, m: np.mean(-np.log(1 / (1 + np.exp(-t)))) + np.mean(-np.log(1 - 1 / (1 + np.exp(-m)))),
     lambda m: np.mean(-np.log(1 / (1 + np.exp(-m))))),
    ("least_squares", lambda t, m: np.mean((t - 1) ** 2) + np.mean(m**2), lambda m: np.mean((m - 1) ** 2)),
    ("wgan_gp", lambda t, m: np.mean(m) - np.mean(t), lambda m: -np.mean(m)),
])
def test_the_rules_of_the_games(game, critic, model):
    true, made = np.random.default_rng(0).normal(size=(2, 40))
    np.testing.assert_allclose(GAMES[game][0](jnp.float32(true), jnp.float32(made)).mean(), critic(true, made), rtol=1e-5)
    np.testing.assert_allclose(GAMES[game][1](jnp.float32(made)).mean(), model(made), rtol=1e-5)


@functools.cache
def played(game):
    """A game of two moves of the critic for one of the model: the objective, its first state, its step."""
    objective = Adversarial(TASK, MODEL, CRITIC, game=game, weight=0.1, critic_steps=2, conditional=game == "least_squares")
    return objective, *start(objective, {"model": optax.adam(1e-3), "critic": optax.adam(1e-2)}, ema_decay=0.9)


@pytest.mark.parametrize("game", GAMES)
def test_a_game_through_the_step(game):
    """The critic moves twice, then the model, once, against the critic as it has become."""
    objective, before, step = played(game)
    assert objective.players == ("critic", "critic", "model")
    after, logs = step(before, DEALT)
    assert {player: int(after.opt_state[player][0].count) for player in after.opt_state} == {"critic": 2, "model": 1}
    assert set(before.ema) == {"model"}
    assert all(np.isfinite(value) for value in logs.values())
    assert {"critic/game", "model/l1", "model/adversarial", "model/loss", "critic/grad_norm"} <= set(logs)
    assert ("critic/penalty" in logs) == (game == "wgan_gp")

    own = {name: array[2::3] for name, array in DEALT.items()}  # of every three rows the last is the model's
    example = TASK.example(jax.random.split(jax.random.fold_in(KEY, 0), 3)[0], own)
    made = MODEL.apply({"params": before.params["model"]}, example.input.image)
    seen = jnp.concatenate([made, example.input.image], -1) if objective.conditional else made
    for player in ("critic", "model"):
        assert not same(before.params[player], after.params[player])
    expected = 0.1 * GAMES[game][1](CRITIC.apply({"params": after.params["critic"]}, seen)).mean()
    np.testing.assert_allclose(logs["model/adversarial"], expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(logs["model/loss"], logs["model/l1"] + logs["model/adversarial"], rtol=1e-5)


def test_each_move_has_samples_of_its_own():
    """With several moves of the critic; what only the model sees changes nothing in the critic."""
    objective, before, step = played("wgan_gp")
    assert objective.batches == 3
    assert replace(objective, critic_steps=1).batches == 1
    after, logs = step(before, DEALT)
    for move, critics in ((0, True), (1, True), (2, False)):
        other, others = step(before, DEALT | {"image": DEALT["image"].at[move::3].multiply(0.5)})
        assert same(other.params["critic"], after.params["critic"]) != critics
        assert float(others["model/l1"]) != float(logs["model/l1"]) or critics


@pytest.mark.parametrize("game", GAMES)
def test_the_critic_learns_to_tell(game):
    """Kept against the model of the first step, it gets better at its game."""
    _, state, step = played(game)
    model, games = state.params["model"], []
    for _ in range(60):
        state, logs = step(replace(state, params=state.params | {"model": model}), DEALT)
        games.append(float(logs["critic/loss"]))
    assert np.mean(games[-10:]) < np.mean(games[:10]) - 0.01


class Linear(nn.Module):
    """The inner product with a weight image: its slope is that image everywhere."""

    @nn.compact
    def __call__(self, x, train=False):
        w = self.param("w", nn.initializers.normal(0.3), x.shape[1:])
        return (x * w[None]).sum((1, 2, 3), keepdims=True)


class Curved(nn.Module):
    """Two layers with a smooth bend, in the inputs' precision."""

    @nn.compact
    def __call__(self, x, train=False):
        w = self.param("w", nn.initializers.normal(0.2), (x[0].size, 5))
        v = self.param("v", nn.initializers.normal(0.5), (5, 1))
        return jax.nn.softplus(x.reshape(x.shape[0], -1) @ w.astype(x.dtype)) @ v.astype(x.dtype)


def penalty(critic, dtype=jnp.float32):
    """The critic's parameters, and its loss as a function of them."""
    objective = Adversarial(TASK, MODEL, critic, game="wgan_gp", penalty=10.0)
    target = jax.random.uniform(KEY, (3, 5, 5, 1), dtype)
    example = Example(NetworkInput(target + jnp.asarray(0.3, dtype)), target, jnp.ones((3, 5, 5, 1), bool), jnp.arange(3),
                      jnp.full((3, 2), jnp.nan))
    params, variables = objective.init(KEY, example)

    def loss(own):
        terms, _ = objective.losses(params | {"critic": own}, "critic", variables, example, jax.random.key(5))
        return terms["penalty"].value

    return params["critic"], loss


def test_the_penalty_of_a_linear_critic_is_known():
    params, loss = penalty(Linear())
    w = np.asarray(params["w"])
    size = np.linalg.norm(w)
    np.testing.assert_allclose(loss(params), 10 * (size - 1) ** 2, rtol=1e-4)
    slope = jax.grad(loss)(params)["w"]
    np.testing.assert_allclose(slope, 10 * 2 * (size - 1) * w / size, rtol=1e-3, atol=1e-5)


def test_the_penaltys_gradient_is_that_of_finite_differences():
    """A second derivative of the critic, in float64 along random directions."""
    with jax.enable_x64(True):
        params, loss = penalty(Curved(), jnp.float64)
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params)
        value = jax.jit(loss)
        slope = jax.jit(jax.grad(value))(params)
        for seed in range(3):
            flat, shape = jax.flatten_util.ravel_pytree(params)
            way = jax.random.normal(jax.random.key(seed), flat.shape, jnp.float64)
            ahead, back = (value(shape(flat + sign * 1e-5 * way)) for sign in (1, -1))
            expected = (ahead - back) / 2e-5
            assert abs(float(expected)) > 1e-3
            np.testing.assert_allclose(jnp.vdot(jax.flatten_util.ravel_pytree(slope)[0], way), expected, rtol=1e-5)


def test_wrong_games_are_one_line():
    with pytest.raises(UserError, match=r"^config\.objective\.game: unknown 'wgan'; choose from .*wgan_gp"):
        Adversarial(TASK, MODEL, CRITIC, game="wgan")
    with pytest.raises(UserError, match=r"^config\.critic\.norm: batch norm .*instance"):
        Adversarial(TASK, MODEL, Patch(ndim=2, norm="batch"), game="wgan_gp")
