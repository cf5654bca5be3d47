"""Contrast enhancement: curves learned with and without pairs, losses by their definition, references, mistakes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage import exposure, measure

from medjax import registry
from medjax.classical import contrast as classical
from medjax.objectives.supervised import Supervised
from medjax.tasks.enhance import Enhance
from medjax.train.optim import optimizer
from medjax.train.step import init_state, make_predict, make_step
from medjax.types import Prediction, UserError

KEY = jax.random.key(0, impl="unsafe_rbg")  # compiles faster


def batch_of(ndim: int, channels: int = 1, n: int = 2) -> dict:
    size = {2: 32, 3: 16}[ndim]
    random = np.random.default_rng(0)
    image = np.cumsum(random.normal(size=(n, *(size,) * ndim, channels)), axis=1)
    low, high = (f(image, axis=tuple(range(1, ndim + 1)), keepdims=True) for f in (np.min, np.max))
    return {"image": jnp.asarray((image - low) / (high - low), jnp.float32), "slope": jnp.ones(n), "count": jnp.ones(n),
            "intercept": jnp.zeros(n), "id": jnp.arange(n, dtype=jnp.uint32)}


CASES = {
    "pairs 2-D colour bf16": (2, 3, "l1", {"dtype": "bfloat16"}),
    "no reference 3-D": (3, 1, "spatial + 10*exposure + 5*colour + 20*smoothness", {}),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_curves_are_learned_from_a_batch(case):
    ndim, channels, loss, keys = CASES[case]
    batch = batch_of(ndim, channels)
    task = Enhance((0.0, 1.0), ndim, gamma=(2.0, 2.0), contrast=(0.6, 0.6), sigma=0.0)
    model = registry.spec("models", "zero_dce", width=8, depth=2, **keys)
    net = registry.build("models", model, ndim=ndim, channels=channels, scale=(1,) * ndim)
    objective = Supervised(task, net, loss=loss)
    rules = {"model": optimizer(80, name="adam", lr=1e-2, warmup=5)}
    state = jax.jit(partial(init_state, task, objective, rules, 0.0))(batch, KEY)
    step = jax.jit(make_step(task, objective, rules, 0.0))
    for i in range(60):
        state, logs = step(state, batch)
        if i == 0:
            first = float(logs["model/loss"])
    assert float(logs["model/loss"]) < 0.5 * first
    example, made, found = make_predict(task, objective)(state, batch, KEY)
    assert np.asarray(made.image).min() >= 0
    assert np.asarray(made.image).max() <= 1
    before = task.measure(Prediction(example.input.image), example)
    assert np.all(np.asarray(found["psnr"]) > np.asarray(before["psnr"]) + 3)


@pytest.mark.slow
def test_losses_without_a_reference_are_0_where_nothing_is_wrong():
    task, batch = Enhance((0.0, 1.0), 2), batch_of(2, 3)
    example = task.example(KEY, batch)
    given = example.input.image
    losses = jax.jit(lambda pred: {name: mean.value for name, mean in task.losses(pred, example).items()})
    assert float(task.losses(given, example)["spatial"].value) == 0
    grey = losses(jnp.full(given.shape, 0.5))
    assert float(grey["exposure"]) == pytest.approx(0, abs=1e-12)
    assert float(grey["colour"]) == pytest.approx(0, abs=1e-12)
    red = jnp.full(given.shape, 0.25) * jnp.array([2.0, 1.0, 1.0]).reshape(1, 1, 1, 3)
    assert float(losses(red)["colour"]) == pytest.approx(2 * 0.25**2, rel=1e-5)


def test_entropy_agrees_with_scikit_image():
    task, batch = Enhance((0.0, 1.0), 2), batch_of(2)
    example = task.example(KEY, batch)
    for i, bits in enumerate(np.asarray(task.measure(Prediction(example.target), example)["entropy"])):
        grey = np.clip(np.asarray(example.target)[i, ..., 0] * 256, 0, 255).astype(int)
        assert bits == pytest.approx(measure.shannon_entropy(grey), abs=1e-4)


def test_grey_references_are_those_of_scikit_image():
    image = np.asarray(batch_of(2)["image"])[0] ** 3 * 0.5 + 0.01
    grey = image[..., 0].astype(float)
    np.testing.assert_allclose(classical.histogram(image)[..., 0], exposure.equalize_hist(grey), atol=1e-5)
    np.testing.assert_allclose(classical.clahe(image)[..., 0], exposure.equalize_adapthist(grey), atol=1e-5)


@pytest.mark.parametrize("method", ["histogram", "clahe", "retinex"])
def test_references_raise_contrast_and_keep_hue(method):
    image = np.asarray(batch_of(2, 3)["image"])[0] * 0.15 + 0.05
    made = getattr(classical, method)(image)
    assert made.std() > 1.5 * image.std()
    inside = (made.max(-1) < 0.999) & (made.min(-1) > 1e-3)
    ratios = [x[inside] / x[inside].sum(-1, keepdims=True) for x in (image, made)]
    np.testing.assert_allclose(*ratios, atol=1e-4)


def test_mistakes_are_one_line():
    for keys, line in (({"gamma": (2.0, 1.0)}, "gamma"), ({"contrast": (0.0, 1.0)}, "contrast")):
        with pytest.raises(UserError, match=line):
            Enhance((0.0, 1.0), 2, **keys)
