"""Differential privacy of training patients: the accountant, the clipped and noisy gradient, draws, runs and refusals."""

import json
import math
import shutil
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import binom

from configs import base, quickstart
from medjax.data.patients import Drawing, patient_stream
from medjax.data.pipeline import Share
from medjax.measures.privacy import epsilon, noise_for, renyi
from medjax.models.cnn import CNN
from medjax.objectives.supervised import Supervised
from medjax.tasks.denoise import Denoise
from medjax.train import privacy, sharding
from medjax.train.loop import train, train_side_by_side
from medjax.train.privacy import Plan
from medjax.train.step import init_state, make_step
from medjax.types import UserError
from tests.records import numbered, regions_of

# rate, noise, steps, delta; then epsilon by RDP (from above) and by privacy loss distributions (the truth, to 0.001) of
# dp-accounting 0.6.0, RdpAccountant and PLDAccountant(value_discretization_interval=1e-3).
KNOWN = [
    (0.01, 4, 10000, 1e-5, 1.0354900660, 0.9600452105), (0.01, 1.1, 1000, 1e-5, 1.7117701662, 1.5161946679),
    (16 / 97, 2, 500, 1e-3, 8.4622074143, 7.4666545839), (0.5, 5, 200, 1e-3, 5.5754137550, 4.9196685609),
    (1.0, 10, 100, 1e-5, 4.7285070672, 4.3772203397), (256 / 60000, 1.1, 14063, 1e-5, 2.5966555295, 2.3906234144),
    (0.2, 0.7, 50, 1e-5, 21.921540993, 19.570495986), (1 / 17, 0.5, 100, 1e-3, 17.182520544, 13.956183561),
]


@pytest.mark.parametrize(("rate", "noise", "steps", "delta", "above", "truth"), KNOWN)
def test_epsilon_lies_between_those_of_another_accountant(rate, noise, steps, delta, above, truth):
    found = epsilon(rate, noise, steps, delta)
    assert truth <= found <= above * (1 + 1e-6)
    assert found >= 0.98 * above  # its orders are on a grid, ours are not


def test_the_moments_accountant_of_abadi_et_al():
    """Sampling 1 %, noise 4, 10,000 steps, delta 1e-5: epsilon 1.26 (CCS 2016, section 5), by their tail bound."""
    found = min(10_000 * renyi(0.01, 4, order) + math.log(1e5) / (order - 1) for order in range(2, 34))
    assert abs(found - 1.26) < 0.005


@pytest.mark.parametrize("order", [2, 3, 8, 40])
@pytest.mark.parametrize(("rate", "noise"), [(0.01, 0.6), (0.3, 2.0), (1.0, 5.0)])
def test_divergence_of_whole_orders(rate, noise, order):
    k = np.arange(order + 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.log(binom(order, k)) + np.where(k < order, (order - k) * np.log1p(-rate), 0) + k * np.log(rate)
    exact = np.logaddexp.reduce(terms + (k**2 - k) / (2 * noise**2)) / (order - 1)
    np.testing.assert_allclose(renyi(rate, noise, order), exact, rtol=1e-9, atol=1e-14)


def test_the_noise_of_a_budget():
    for target in (0.3, 2.0, 40.0):
        noise = noise_for(target, 0.2, 300, 1e-4)
        assert 0.999 * target < epsilon(0.2, noise, 300, 1e-4) <= target
    assert math.isinf(noise_for(1e-5, 0.5, 10_000, 1e-5))
    assert epsilon(0.2, 1.0, 0, 1e-5) == 0


# The gradient. Six patients of two rows each; the fourth is not there, and of the fifth one row.

PLAN = Plan(noise=0.0, clip=0.1, delta=1e-3, samples=2, patients=6, batch=4, width=2)
COUNT = np.array([[1, 1], [1, 1], [1, 1], [0, 0], [1, 0], [1, 1]], np.float32)


def laid_out(plan: Plan, rows: dict) -> dict:
    """Rows `(patients, samples, ...)` as a batch of the plan: patient p is the `p % width`-th of chunk `p // width`."""
    room = plan.chunks * plan.width
    slots = [(p % plan.width) * plan.chunks + p // plan.width for p in range(len(rows["count"]))]
    batch = {}
    for name, array in rows.items():
        whole = np.zeros((room, *array.shape[1:]), array.dtype)
        whole[slots] = array
        batch[name] = jnp.asarray(whole.reshape(-1, *array.shape[2:]))
    return batch


def rows_of(count: np.ndarray) -> dict:
    random = np.random.default_rng(0)
    shape = count.shape
    image = random.uniform(size=(*shape, 12, 12, 1)) * np.geomspace(0.1, 3, shape[0]).reshape(-1, 1, 1, 1, 1)
    return {"image": image.astype(np.float32), "slope": np.ones(shape, np.float32), "intercept": np.zeros(shape, np.float32),
            "id": np.arange(count.size, dtype=np.uint32).reshape(shape), "count": count}


def setting():
    task = Denoise((0.0, 1.0), 2, "gaussian", (0.1, 0.1))
    return Supervised(task, CNN(2, 1, (1, 1), features=(4,), kernels=(3, 3)), "l2")


def stepped(plan: Plan | None, batch: dict, ways: int = 0, mode: str = "jit", secret: int = 7):
    """The logs of a step, and the gradient that it went along."""
    objective, rules = setting(), {"model": optax.sgd(1.0)}
    state = jax.jit(partial(init_state, objective.task, objective, rules, 0.0))(batch, jax.random.PRNGKey(3))
    first = jax.device_get(state.params)
    more = () if plan is None else (jax.random.PRNGKey(secret),)
    step = make_step(objective.task, objective, rules, 0.0, axis=None if mode == "jit" else "data", privacy=plan)
    if ways:
        mesh = sharding.make_mesh(ways)
        shardings = sharding.state_sharding(mesh, state, False)
        state = jax.device_put(state, shardings)
        batch = jax.device_put(batch, sharding.batch_sharding(mesh, batch))
        step = sharding.parallel(step, mesh, mode, shardings, more=jax.device_put(more, sharding.replicated(mesh)))
        after, logs = step(state, batch)
    else:
        after, logs = jax.jit(step)(state, batch, *more)
    return jax.device_get(logs), jax.tree.map(np.subtract, first, jax.device_get(after.params))


def flat(tree) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def one_by_one(plan: Plan, rows: dict) -> tuple[list[float], np.ndarray, int]:
    """Losses, the sum of clipped gradients, and how many were clipped: each patient's alone, in a loop."""
    objective = setting()
    init = partial(init_state, objective.task, objective, {"model": optax.sgd(1.0)}, 0.0)
    state = jax.jit(init)(laid_out(plan, rows), jax.random.PRNGKey(3))
    example_key, _, play_key = jax.random.split(jax.random.fold_in(state.key, state.step), 3)

    @jax.jit
    def of_patient(own):
        def loss(params):
            example, key = objective.task.example(example_key, own), jax.random.fold_in(play_key, 0)
            terms, _ = objective.losses({"model": params}, "model", state.variables, example, key)
            return sum(mean.value for mean in terms.values())
        return jax.value_and_grad(loss)(state.params["model"])

    losses, total, clipped = [], 0.0, 0
    for p, count in enumerate(rows["count"]):
        if not count.any():
            continue
        loss, grads = of_patient({name: jnp.asarray(array[p]) for name, array in rows.items()})
        grad = flat(grads)
        clipped += np.linalg.norm(grad) > plan.clip
        losses.append(float(loss))
        total = total + grad * min(1, plan.clip / np.linalg.norm(grad))
    return losses, total, clipped


def test_the_gradient_is_the_sum_of_each_patients_clipped_one():
    rows = rows_of(COUNT)
    losses, total, clipped = one_by_one(PLAN, rows)
    assert 0 < clipped < 5
    logs, gradient = stepped(PLAN, laid_out(PLAN, rows))
    np.testing.assert_allclose(flat(gradient), total / PLAN.batch, atol=1e-7)
    np.testing.assert_allclose(logs["model/loss"], np.mean(losses), rtol=1e-6)
    np.testing.assert_allclose(logs["model/clipped"], clipped / 5, rtol=1e-6)


def test_without_noise_and_bound_the_step_is_the_ordinary_one():
    plan = Plan(noise=0.0, clip=1e9, delta=1e-3, samples=1, patients=4, batch=4, width=4)
    batch = laid_out(plan, rows_of(np.ones((4, 1), np.float32)))
    (logs, gradient), (usual, expected) = stepped(plan, batch), stepped(None, batch)
    np.testing.assert_allclose(flat(gradient), flat(expected), rtol=1e-5, atol=1e-8)
    for name, value in usual.items():
        np.testing.assert_allclose(logs[name], value, rtol=1e-5, err_msg=name)


def test_a_step_that_draws_nobody_is_noise_alone():
    plan = replace(PLAN, noise=2.0)
    batch = laid_out(plan, rows_of(np.zeros_like(COUNT)))
    logs, gradient = stepped(plan, {**batch, "image": jnp.full_like(batch["image"], jnp.nan)})
    assert np.isfinite(flat(gradient)).all()
    assert np.abs(flat(gradient)).min() > 0
    assert logs["model/loss"] == 0


def test_noise_has_the_deviation_that_is_counted_and_another_one_in_each_step():
    plan = replace(PLAN, noise=3.0, clip=0.5)
    zeros = {"a": jnp.zeros((40, 50)), "b": jnp.zeros(3000)}
    one, other = (privacy._noisy(zeros, plan, jax.random.fold_in(jax.random.PRNGKey(1), step)) for step in (0, 1))
    for tree in (one, other):
        np.testing.assert_allclose(np.std(flat(tree)), 3.0 * 0.5 / 4, rtol=0.03)
    assert abs(np.corrcoef(flat(one), flat(other))[0, 1]) < 0.05
    assert abs(np.corrcoef(np.ravel(one["a"]), one["b"][:2000])[0, 1]) < 0.07


def test_patients_at_a_time_change_nothing():
    rows, plan = rows_of(COUNT), replace(PLAN, noise=0.7)
    _, expected = stepped(plan, laid_out(plan, rows))
    for width in (1, 4):
        other = replace(plan, width=width)
        _, gradient = stepped(other, laid_out(other, rows))
        np.testing.assert_allclose(flat(gradient), flat(expected), atol=1e-7)


@pytest.mark.parametrize("mode", ["jit", "shard_map", "pmap"])
def test_two_devices_make_the_step_of_one(mode):
    plan = replace(PLAN, noise=0.7)
    batch = laid_out(plan, rows_of(COUNT))
    (logs, gradient), (one, expected) = stepped(plan, batch, 2, mode), stepped(plan, batch)
    np.testing.assert_allclose(flat(gradient), flat(expected), atol=1e-7)
    np.testing.assert_allclose([logs[name] for name in one], list(one.values()), rtol=1e-5)


# Draws


def voices(batch: dict) -> list[int]:
    """The patient of each row: the values of patient p are from 1000 p on; -1 for a row that has none."""
    return [int(image.min()) // 1000 if count else -1 for image, count in zip(batch["image"], batch["count"], strict=True)]


def people(n: int = 10):
    return regions_of(*(numbered((3, 8, 8), f"{p}{half}", 1000 * p + 300 * half, subject=str(p)) for p in range(n)
                        for half in range(2)))


def test_each_patient_is_drawn_by_chance_with_rows_of_their_own():
    drawing = Drawing(rate=0.3, samples=2, chunks=3, width=3, seed=5)
    stream = patient_stream(people(), drawing, patch=(4, 4))
    often, together = np.zeros(10), np.zeros((10, 10))
    for _ in range(600):
        batch = next(stream)
        patients = np.array(voices(batch)).reshape(3, 3, 2)  # place in the chunk, chunk, sample
        assert (patients[..., 0] == patients[..., 1]).all()
        dealt = patients[..., 0].T.ravel()
        there = dealt[dealt >= 0]
        assert (dealt[:len(there)] >= 0).all()  # the first chunks are filled first
        assert len(set(there)) == len(there)
        often[there] += 1
        together[np.ix_(there, there)] += 1
    assert (np.abs(often / 600 - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 600)).all()
    pairs = together[np.triu_indices(10, 1)] / 600
    assert abs(pairs.mean() - 0.09) < 0.01  # independent of each other


def test_a_patients_images_come_equally_often():
    regions = regions_of(numbered((5, 8, 8), "a", 0, subject="p"), numbered((1, 8, 8), "b", 5000, subject="p"))
    stream = patient_stream(regions, Drawing(1.0, 60, 1, 1, 0), patch=(8, 8))
    batches = [next(stream) for _ in range(20)]
    first = np.concatenate([batch["image"].reshape(60, -1).min(1) for batch in batches])
    _, counts = np.unique(first, return_counts=True)
    assert len(counts) == 6
    assert (np.abs(counts / 1200 - 1 / 6) < 0.05).all()


def test_a_batch_has_room_and_streams_resume_and_are_shared():
    drawing = Drawing(rate=1.0, samples=1, chunks=2, width=2, seed=5)
    assert sorted(voices(patient_stream(people(), drawing, patch=(4, 4)).first()))[0] >= 0  # ten drawn, room for four
    drawing = replace(drawing, rate=0.3, width=4)
    stream = patient_stream(people(), drawing, patch=(4, 4), foreground=0.5)
    batches = [next(stream) for _ in range(4)]
    again = patient_stream(people(), drawing, patch=(4, 4), foreground=0.5)
    again.set_state(stream.get_state() | {"batches": 2})
    parts = [patient_stream(people(), drawing, patch=(4, 4), foreground=0.5, share=Share(row, 2)) for row in range(2)]
    halves = [[next(part) for _ in range(4)] for part in parts]
    for name in ("image", "count", "id"):
        np.testing.assert_array_equal(next(again)[name], batches[2][name])
        again.set_state(stream.get_state() | {"batches": 2})
        whole = [np.concatenate(pair) for pair in zip(*[[batch[name] for batch in half] for half in halves], strict=True)]
        np.testing.assert_array_equal(whole[3][batches[3]["count"] > 0], batches[3][name][batches[3]["count"] > 0])
    other = patient_stream(people(), replace(drawing, seed=6), patch=(4, 4))
    assert [voices(next(other)) for _ in range(4)] != [voices(batch) for batch in batches]


# Runs


def small(**changes):
    config = quickstart.get_config("source=phantoms,model=cnn")
    config.data.source.update(kind="brain", shape=(24, 24), count=12)
    config.model.update(features=(4,), kernels=(3, 3))
    config.update(steps=4, batch_size=4, log_every=1, eval_every=2, eval_samples=2, checkpoint_every=2, references=("none",))
    config.data.update(patch=(16, 16), range=(0.0, 1000.0))
    config.optim.update(schedule="constant", warmup=0)
    config.mesh.data = 1
    config.privacy.update(noise=1.5, delta=1e-2, samples=2)
    for key, value in changes.items():
        group, _, name = key.rpartition("__")
        (config[group] if group else config)[name] = value
    return config


def test_a_run_counts_what_it_spends_and_resumes_to_the_same_weights(tmp_path):
    whole, halved = tmp_path / "whole", tmp_path / "halved"
    state = train(small(), whole)
    key = whole / privacy.FILE
    assert key.stat().st_mode & 0o777 == 0o600
    halved.mkdir()
    shutil.copy(key, halved)
    train(small(steps=2), halved)
    again = train(small(), halved)
    jax.tree.map(np.testing.assert_array_equal, again.params, state.params)
    lines = [json.loads(line) for line in (halved / "metrics.jsonl").read_text().splitlines()]
    spent = {line["step"]: line["train/privacy/epsilon"] for line in lines if "train/privacy/epsilon" in line}
    assert spent == {step: pytest.approx(epsilon(4 / 10, 1.5, step, 1e-2)) for step in (1, 2, 3, 4)}
    with pytest.raises(UserError, match=r"holds a run with privacy.noise=1.5"):
        train(small(privacy__noise=2.0), whole)
    other = train(small(), tmp_path / "other")  # of another secret
    assert not np.array_equal(flat(other.params), flat(state.params))


def test_a_budget_chooses_the_noise_and_is_kept(tmp_path):
    config = small(privacy__noise=0.0, privacy__epsilon=5.0)
    train(config, tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())["privacy"]
    assert saved["patients"] == 10
    assert 0.999 * 5 < epsilon(4 / 10, saved["noise"], 4, 1e-2) <= 5
    with pytest.raises(UserError, match=r"config.steps: 8 steps with noise .* spend epsilon .* more than"):
        train(small(privacy__noise=0.0, privacy__epsilon=5.0, steps=8), tmp_path)
    config.data.source.count = 14
    with pytest.raises(UserError, match="has 12 patients to train on where the run began with 10"):
        train(config, tmp_path)


REFUSED = {
    "epsilon": ({"privacy__epsilon": 1e-4, "privacy__noise": 0.0, "privacy__delta": 1e-6},
                "config.privacy.epsilon: 0.0001 can't be kept over 4 steps"),
    "negative": ({"privacy__epsilon": -1.0}, "config.privacy: give samples of 1 or more"),
    "delta": ({"privacy__delta": 0.2}, "config.privacy.delta: 0.2; give a number above 0 and below 1 / 10"),
    "batch": ({"batch_size": 12}, "config.batch_size: 12, but there are 10 patients"),
    "range": ({"data__range": ()}, "config.data.range: would be taken from the training images"),
    "norm": ({"model__norm": "batch", "model__features": (4, 4), "model__kernels": (3, 3, 3)},
             "config.model: the network keeps batch_stats"),
    "slabs": ({}, "config.privacy: fewer than three patients"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_can_not_be_private_is_refused_before_anything_is_written(what, tmp_path):
    changes, said = REFUSED[what]
    config = small(**changes)
    if what == "slabs":
        config.data.source = quickstart.get_config().data.source
    with pytest.raises(UserError) as raised:
        train(config, tmp_path / "run")
    assert said in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_several_networks_and_members_side_by_side_are_refused(tmp_path):
    names = {"task": "denoise", "objective": "adversarial", "model": "cnn", "critic": "patch", "source": "phantoms"}
    config, like = base.get_config(**names), small()
    config.data, config.privacy, config.mesh, config.batch_size, config.steps = like.data, like.privacy, like.mesh, 4, 4
    with pytest.raises(UserError, match="Adversarial trains several networks"):
        train(config, tmp_path / "run")
    with pytest.raises(UserError, match="--side_by_side: private runs"):
        train_side_by_side([small(), small(seed=1)], [tmp_path / "a", tmp_path / "b"])


def test_weights_that_have_seen_the_patients_are_refused(tmp_path):
    usual = small(privacy__noise=0.0, steps=2)
    train(usual, tmp_path / "usual")
    with pytest.raises(UserError, match=r"config.init_workdir: .* was trained on 10 of the patients"):
        train(small(init_workdir=str(tmp_path / "usual")), tmp_path / "run")
