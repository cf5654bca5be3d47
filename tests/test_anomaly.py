"""Autoencoders and anomaly maps: a batch learned by heart, the KL term, planted lesions, scores against scikit-learn."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sklearn

from medjax import registry
from medjax.classical import compress
from medjax.measures import classification
from medjax.models.vae import VAE
from medjax.objectives.supervised import Supervised
from medjax.tasks.anomaly import Anomaly
from medjax.train.optim import optimizer
from medjax.train.step import init_state, make_step
from medjax.types import Prediction, UserError

KEY = jax.random.key(0, impl="unsafe_rbg")  # compiles faster


def batch_of(ndim: int, n: int = 2) -> dict:
    size = {2: 26, 3: 12}[ndim]
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, size),) * ndim, indexing="ij"), -1)
    image = 0.6 * np.exp(-2 * (grid**2).sum(-1))[None, ..., None] * np.linspace(0.8, 1.2, n).reshape(-1, *(1,) * (ndim + 1))
    return {"image": jnp.asarray(image, jnp.float32), "slope": jnp.ones(n), "intercept": jnp.zeros(n), "count": jnp.ones(n),
            "id": jnp.arange(n, dtype=jnp.uint32)}


CASES = {
    "autoencoder 2-D bf16": (2, "autoencoder", {"dtype": "bfloat16", "bits": 4}, "l2"),
    "vae 3-D": (3, "vae", {}, "l2 + 0.00001*kl"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_network_learns_a_batch_by_heart(case):
    ndim, name, keys, loss = CASES[case]
    task, batch = Anomaly((0.0, 1.0), ndim, sigma=0.0), batch_of(ndim)
    model = registry.spec("models", name, width=4, depth=2, latent=4, **keys)
    net = registry.build("models", model, ndim=ndim, channels=1, scale=(1,) * ndim)
    objective = Supervised(task, net, loss=loss)
    rules = {"model": optimizer(100, name="adam", lr=2e-2, warmup=5)}
    state = jax.jit(partial(init_state, task, objective, rules, 0.0))(batch, KEY)
    step = jax.jit(make_step(task, objective, rules, 0.0))
    for i in range(80):
        state, logs = step(state, batch)
        if i == 0:
            first = float(logs["model/l2"])
    assert float(logs["model/l2"]) < 0.1 * first
    assert ("model/kl" in logs) == (name == "vae")


@pytest.mark.slow
def test_the_kl_term_agrees_with_its_integral():
    """KL of the code from the standard normal, by the mean of log q - log p over many draws, per voxel of the image."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 8, 8, 1)), jnp.float32)
    net = VAE(2, 1, (1, 1), width=4, depth=1, latent=2)
    variables = net.init(KEY, x)
    _, changed = net.apply(variables, x, train=True, mutable=["losses"], rngs={"sample": KEY})
    _, seen = net.apply(variables, x, capture_intermediates=lambda module, _: module.name == "encoder",
                        mutable=["intermediates"])
    mean, log_var = np.split(np.asarray(seen["intermediates"]["encoder"]["__call__"][0], np.float64), 2, -1)
    noise = np.random.default_rng(1).normal(size=(20000, *mean.shape))
    draws = mean + np.exp(log_var / 2) * noise
    nats = (-0.5 * noise**2 - log_var / 2 + 0.5 * draws**2).sum(axis=(1, 2, 3, 4)).mean()
    assert float(sum(changed["losses"]["kl"])[0]) == pytest.approx(nats / 64, rel=0.02)


def test_the_map_of_a_sample_is_scored_as_scikit_learn_does():
    random = np.random.default_rng(2)
    score = np.round(random.random((2, 6, 7, 1)), 1)  # with ties
    truth, mask = random.random(score.shape) < 0.3, random.random(score.shape) < 0.8
    got = classification.auroc_map(*(jnp.asarray(a) for a in (score.astype(np.float32), truth, mask)))
    for i in range(2):
        expected = sklearn.roc_auc_score(truth[i][mask[i]], score[i][mask[i]])
        assert float(got[i]) == pytest.approx(expected, abs=1e-6)
        assert classification.auroc(score[i][mask[i]], truth[i][mask[i]]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("ndim", [2, 3])
def test_lesions_are_planted_in_tissue_for_evaluation_only(ndim):
    task, batch = Anomaly((0.0, 1.0), ndim, sigma=0.0, radius=(2.0, 3.0)), batch_of(ndim)
    assert np.array_equal(task.example(KEY, batch).input.image, batch["image"])
    plant = jax.jit(task.evaluation_example)
    sick = plant(jax.random.key(0), batch)
    lesion = np.asarray(sick.extras["lesion"])
    change = np.abs(np.asarray(sick.input.image - sick.target))
    assert np.all(lesion.any(tuple(range(1, ndim + 2))))
    assert np.median(change[lesion]) > 0.1
    assert change[~lesion].mean() < 0.1 * change[lesion].mean()
    assert np.array_equal(sick.target, batch["image"])
    apart = plant(jax.random.key(0), {name: value[1:] for name, value in batch.items()})
    np.testing.assert_array_equal(apart.extras["lesion"][0], lesion[1])
    perfect = task.measure(Prediction(sick.target), sick)
    assert np.all(np.asarray(perfect["auroc"]) > 0.95)


def test_mistakes_are_one_line():
    for keys, line in (({"radius": (0.0, 2.0)}, "radius"), ({"contrast": (0.5, 0.2)}, "contrast")):
        with pytest.raises(UserError, match=line):
            Anomaly((0.0, 1.0), 2, **keys)
    model = registry.spec("models", "autoencoder", width=2, depth=1)
    net = registry.build("models", model, ndim=2, channels=1, scale=(1, 1))
    objective = Supervised(Anomaly((0.0, 1.0), 2), net, loss="l2 + kl")
    batch = batch_of(2)
    example = objective.task.example(KEY, batch)
    params, variables = jax.eval_shape(objective.init, KEY, example)
    with pytest.raises(UserError, match="unknown 'kl'; choose from l1"):
        jax.eval_shape(partial(objective.losses, player="model"), params, variables=variables, example=example, key=KEY)


@pytest.mark.parametrize("codec", [compress.jpeg, compress.jpeg2000])
def test_codecs_keep_to_their_rate(codec, monkeypatch):
    image = np.asarray(batch_of(2)["image"])[0].repeat(4, 0).repeat(4, 1)
    files = []
    encoded = compress._encoded
    monkeypatch.setattr(compress, "_encoded", lambda *given: files.append(encoded(*given)) or files[-1])
    errors = []
    for rate in (0.8, 1.6):
        made = codec(image, rate)
        assert made.shape == image.shape
        errors.append(np.abs(made - image).mean())
        assert 0.5 * rate < 8 * len(files[-1]) / image[..., 0].size <= rate  # the last is what is read back
    assert errors[1] <= errors[0] < 0.05
    assert codec(np.repeat(image, 3, -1), 1.0).shape == (*image.shape[:2], 3)


@pytest.mark.slow
@pytest.mark.parametrize("bits", [0, 2])
def test_a_code_of_few_bits_does_not_see_what_is_smaller_than_its_levels(bits):
    model = registry.spec("models", "autoencoder", width=2, depth=1, latent=3, bits=bits)
    net = registry.build("models", model, ndim=2, channels=1, scale=(1, 1))
    x = batch_of(2)["image"]
    variables = net.init(KEY, x)
    apply = jax.jit(net.apply)
    assert np.array_equal(apply(variables, x), apply(variables, x * 1.000002)) == (bits > 0)
