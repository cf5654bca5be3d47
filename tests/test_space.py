"""Volumes that don't divide over devices, and evaluation over all of them."""

import jax
import numpy as np
import pytest

from configs import quickstart
from medjax import registry
from medjax.data.pipeline import train_stream
from medjax.train import sharding
from medjax.train.evaluator import Evaluator
from medjax.train.loop import train
from medjax.train.padding import multiple_of
from medjax.train.run import Run, assemble, load_splits, resolve
from medjax.train.step import init_state
from medjax.types import Prediction, Record, Region, UserError


def volumes(model: str = "unet", **changes):
    """A run on small phantoms: seven of eleven slices and 16 x 16 voxels."""
    config = quickstart.get_config(f"model={model}")
    config.model.update(changes)
    config.data.source = registry.spec("data.sources", "phantoms", kind="brain", shape=(11, 16, 16), count=9)
    config.data.update(ndim=3, patch=(11, 16, 16), range=(0.0, 1.0), fractions=(0.1, 0.1, 0.8))
    config.update(batch_size=2, steps=1, eval_samples=1)
    config.mesh.update(data=2, space=2)
    return config


BATCH = {"image": np.zeros((2, 11, 16, 16, 1), np.float32), "id": np.zeros(2, np.uint32),
         **{name: np.ones(2, np.float32) for name in ("slope", "intercept", "count")}}


@pytest.mark.parametrize(("model", "changes", "strides"), [
    ("unet", {"width": 4, "depth": 3}, 4), ("attention_unet", {"width": 4, "depth": 2}, 2), ("cnn", {}, 1)])
def test_the_multiple_follows_from_the_network(model, changes, strides):
    config = volumes(model, **changes)
    run = assemble(resolve(config, load_splits(config)))
    assert multiple_of(run, BATCH, space=4) == 4 * strides
    assert multiple_of(run, BATCH, space=1) == 1


@pytest.mark.slow
def test_a_depth_that_does_not_divide_names_those_that_do_or_is_padded(tmp_path):
    config = volumes(width=4, depth=2)
    with pytest.raises(UserError, match=r"^config\.data\.patch: a first axis of 11 [^\n]*multiples of 4 do, [^\n]*8 and 12"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    config.mesh.pad = True
    state = train(config, tmp_path / "run")
    assert int(state.step) == 1


def test_padding_counts_neither_in_losses_nor_in_metrics():
    record = Record(np.zeros((11, 16, 16, 1), np.float32), "a", "a", extras={"label": np.ones((11, 16, 16, 1), np.int32)})
    padded = train_stream([Region.whole(record)], batch_size=2, ndim=3, multiple_of=4).first()
    assert padded["image"].shape == padded["label"].shape == (2, 12, 16, 16, 1)
    config = volumes(width=4, depth=2)
    task = assemble(resolve(config, load_splits(config))).task
    example = task.example(jax.random.PRNGKey(0), padded)
    pred = np.random.default_rng(0).normal(size=(2, 12, 16, 16, 1)).astype(np.float32)
    other = pred.copy()
    other[:, 11:] = 1e3
    for name, mean in task.losses(pred, example).items():
        np.testing.assert_allclose(task.losses(other, example)[name].value, mean.value, rtol=1e-5, err_msg=name)
    for name, value in task.measure(Prediction(pred), example).items():
        np.testing.assert_allclose(task.measure(Prediction(other), example)[name], value, rtol=1e-5, err_msg=name)


@pytest.fixture(scope="module")
def trained() -> tuple[Run, object, list]:
    config = volumes(width=4, depth=2)
    splits = load_splits(config)
    run = assemble(resolve(config, splits))
    state = jax.jit(lambda key: init_state(run.task, run.objective, run.optimizers, 0.0, BATCH, key))(jax.random.PRNGKey(0))
    return run, jax.device_get(state), splits["test"]


def evaluated(trained, data: int, space: int) -> dict[str, dict[str, float]]:
    run, state, regions = trained
    mesh = sharding.make_mesh(data, space)
    evaluate = Evaluator(run, mesh, only_metrics=True)
    batches = evaluate.batches(regions)
    assert batches.samples == 7
    found = list(evaluate(jax.device_put(state, sharding.replicated(mesh)), batches))
    return {name: metrics for batch in found for name, metrics in zip(batch.names, batch.metrics, strict=True)}


def test_metrics_of_an_uneven_set_are_those_of_one_device(trained):
    one, four = evaluated(trained, 1, 1), evaluated(trained, 4, 1)
    assert list(one) == list(four)
    for name, metrics in one.items():
        assert four[name] == pytest.approx(metrics, rel=1e-5, nan_ok=True)  # the window of SSIM fits in no mask
