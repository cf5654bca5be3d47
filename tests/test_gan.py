"""Games of several networks: perceptual and adversarial losses, synthesis from noise, cycles between modalities."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import linalg

from medjax.measures import sets
from medjax.models.cnn import CNN
from medjax.models.dcgan import DCGAN
from medjax.models.dcgan_generator import DCGANGenerator
from medjax.models.edsr import EDSR
from medjax.models.features import FeatureNetwork, Features, random_network
from medjax.models.patch import Patch
from medjax.models.redcnn import REDCNN
from medjax.models.rrdb import RRDB
from medjax.objectives.adversarial import Adversarial
from medjax.objectives.cycle import Cycle, replayed
from medjax.objectives.perceptual import Perceptual
from medjax.objectives.supervised import Supervised
from medjax.tasks.superres import SuperRes
from medjax.tasks.synthesis import Synthesis
from medjax.tasks.translate import Translate
from medjax.train.step import init_state, make_predict, make_step
from medjax.types import Example, NetworkInput, UserError

RANGE = (0.0, 1.0)
KEY = jax.random.PRNGKey(0)


def make_batch(space: tuple[int, ...], channels: int = 1, count: int = 4):
    """Smooth images between 0 and 1, as the pipeline streams them."""
    random = np.random.default_rng(0)
    grid = np.meshgrid(*(np.linspace(-1, 1, n) for n in space), indexing="ij")
    centres = random.uniform(-0.5, 0.5, (count, channels, len(space)))
    images = [[np.exp(-3 * sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True))) for centre in one]
              for one in centres]
    return {"image": jnp.asarray(np.moveaxis(np.array(images), 1, -1), jnp.float32), "slope": jnp.ones(count),
            "intercept": jnp.zeros(count), "id": jnp.arange(count, dtype=jnp.uint32), "count": jnp.ones(count)}


def learn(task, objective, batch, steps: int, lr: float = 3e-3):
    """The state before and after `steps` updates on one batch, and the logs of every step."""
    optimizers = {player: optax.adam(lr, b1=0.5) for player in set(objective.players)}
    start = jax.jit(partial(init_state, task, objective, optimizers, 0.0))
    state = before = start({k: v[:1] for k, v in batch.items()}, KEY)
    step = jax.jit(make_step(task, objective, optimizers, 0.0))
    logs = []
    for _ in range(steps):
        state, log = step(state, batch)
        logs.append({name: float(value) for name, value in log.items()})
    return before, state, logs


@pytest.mark.slow
def test_rrdb_overfits_a_batch_on_the_fine_grid():
    task = SuperRes(RANGE, 2)
    model = RRDB(2, 1, (2, 2), width=8, growth=4, blocks=1, dense=1)
    *_, logs = learn(task, Supervised(task, model), make_batch((16, 16)), 30)
    assert logs[-1]["model/loss"] < 0.1 * logs[0]["model/loss"]


def test_rrdb_takes_volumes_in_half_precision():
    volumes = jnp.zeros((1, 4, 4, 4, 1))
    made, _ = jax.eval_shape(RRDB(3, 1, (2, 2, 2), width=8, blocks=1, dtype="bfloat16").init_with_output, KEY, volumes)
    assert (made.shape, made.dtype) == ((1, 8, 8, 8, 1), jnp.float32)


@pytest.mark.slow
def test_a_perceptual_game_lowers_what_the_trained_network_sees():
    task = SuperRes(RANGE, 2, grid="fine")
    trained = CNN(2, 1, (1, 1), features=(4, 8), kernels=(3, 3, 3))
    look = FeatureNetwork(trained, jax.jit(trained.init)(KEY, jnp.zeros((1, 8, 8, 1))), 2, 1)
    game = Perceptual(task, CNN(2, 1, (1, 1), features=(8,), kernels=(3, 3)), Patch(2, width=4, depth=1),
                      features=Features(lambda: look))
    *_, logs = learn(task, game, make_batch((16, 16)), 30)
    assert logs[-1]["model/perceptual"] < 0.4 * logs[0]["model/perceptual"]
    assert {"model/l1", "model/adversarial", "critic/game"} <= set(logs[-1])


def test_a_perceptual_loss_needs_a_trained_network_of_the_same_kind():
    parts = (SuperRes(RANGE, 2), EDSR(2, 1, (2, 2)), Patch(2))
    example = jax.eval_shape(parts[0].example, KEY, make_batch((16, 16)))
    with pytest.raises(UserError, match="features_workdir"):
        jax.eval_shape(Perceptual(*parts, features=Features()).offered, example.target, example)
    with pytest.raises(UserError, match="2-D images with 3 channels"):
        FeatureNetwork(None, {}, 2, 3)(jnp.zeros((1, 16, 16, 1)))
    plain = REDCNN(2, 1, (1, 1), width=4)
    with pytest.raises(UserError, match="unet or vgg"):
        FeatureNetwork(plain, jax.jit(plain.init)(KEY, jnp.zeros((1, 8, 8, 1))), 2, 1)(jnp.zeros((1, 8, 8, 1)))


def test_the_features_of_an_image_do_not_depend_on_its_batch():
    images = make_batch((16, 16))["image"]
    look = jax.jit(random_network(2, 1).code)
    np.testing.assert_allclose(look(images)[0], look(images[jnp.array([0, 0, 0, 0])])[1], rtol=1e-5, atol=1e-6)


def test_frechet_distance_is_that_of_scipy():
    random = np.random.default_rng(1)
    one, other = random.normal(size=(60, 5)), random.normal(size=(50, 5)) @ random.normal(size=(5, 5)) + 1
    cov_1, cov_2 = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    expected = (np.square(one.mean(0) - other.mean(0)).sum()
                + np.trace(cov_1 + cov_2 - 2 * linalg.sqrtm(cov_1 @ cov_2).real))
    assert sets.frechet(one, other) == pytest.approx(expected, rel=1e-8)
    assert sets.frechet(one, one) == pytest.approx(0, abs=1e-8)


@pytest.mark.slow
def test_synthesis_by_wgan_gp_comes_nearer_to_the_data():
    task = Synthesis(RANGE, 2, noise=8, size=16, features=Features())
    game = Adversarial(
        task,
        DCGANGenerator(2, 1, (1, 1), width=4, depth=2), DCGAN(2, width=4, depth=2, norm="layer"), loss="none",
        game="wgan_gp", weight=1.0)
    batch = make_batch((20, 16), count=8)

    predict = jax.jit(make_predict(task, game))

    def distance(state):
        _, pred, codes = predict(state, batch, KEY)
        assert pred.image.shape == (8, 16, 16, 1)
        return task.summarise([{k: np.asarray(v[i]) for k, v in codes.items()} for i in range(8)])["frechet"]

    first, last, logs = learn(task, game, batch, 200, lr=5e-3)
    assert distance(last) < 0.35 * distance(first)
    assert logs[-1]["critic/penalty"] >= 0


def test_the_generator_makes_volumes_and_says_what_does_not_fit():
    make = DCGANGenerator(3, 1, (1, 1, 1), width=4, depth=2, dtype="bfloat16")
    images, _ = jax.eval_shape(make.init_with_output, KEY, jnp.zeros((2, 5)), jnp.zeros((2, 8, 8, 8, 0)))
    assert images.shape == (2, 8, 8, 8, 1)
    assert images.dtype == jnp.float32
    with pytest.raises(UserError, match="multiples of 4"):
        jax.eval_shape(make.init, KEY, jnp.zeros((2, 5)), jnp.zeros((2, 9, 8, 8, 0)))
    with pytest.raises(UserError, match="task=synthesis"):
        jax.eval_shape(make.init, KEY, jnp.zeros((2, 8, 8, 8, 1)))


TRANSLATE = partial(Translate, RANGE, 2, ("T1",), "T2", contrasts=("T1", "T2"), curve=(0.0, 1.0))


def test_unpaired_translation_learns_from_different_samples_and_is_evaluated_on_pairs():
    batch, task = make_batch((8, 8), channels=2), TRANSLATE(paired=False)
    shown, evaluated = task.example(KEY, batch), task.evaluation_example(KEY, batch)
    np.testing.assert_array_equal(shown.input.image[..., 0], batch["image"][..., 0])
    np.testing.assert_array_equal(shown.target[1:, ..., 0], batch["image"][:-1, ..., 1])
    np.testing.assert_array_equal(evaluated.target[..., 0], batch["image"][..., 1])


@pytest.fixture(scope="module")
def cycled():
    task = TRANSLATE(paired=False)
    model = CNN(2, 1, (1, 1), features=(8,), kernels=(3, 3), residual=False)
    game = Cycle(task, model, Patch(2, width=4, depth=1), buffer=6)
    return game, *learn(task, game, make_batch((16, 16), channels=2), 40)


def test_a_cycle_comes_back_to_where_it_began(cycled):
    game, _, state, logs = cycled
    for way in ("there", "back"):
        assert logs[-1][f"model/cycle_{way}"] < 0.15 * logs[0][f"model/cycle_{way}"]
        assert logs[-1][f"model/identity_{way}"] < logs[0][f"model/identity_{way}"]
    example = game.task.evaluation_example(KEY, make_batch((16, 16), channels=2))
    predict = partial(jax.eval_shape, game.predict, state.params, state.variables)
    assert predict(example.input, jax.random.split(KEY, 4)).image.shape == (4, 16, 16, 1)


def test_the_state_holds_the_buffer_of_made_images(cycled):
    _, _, state, _ = cycled
    buffer = state.variables["buffer"]["there"]
    assert bool(buffer["filled"].all())
    assert float(jnp.abs(buffer["images"]).max()) > 0


def test_the_buffer_shows_new_images_and_earlier_ones():
    empty = {"images": jnp.zeros((4, 2)), "filled": jnp.zeros(4, bool)}
    shown, full = replayed(empty, jnp.ones((4, 2)), KEY)
    np.testing.assert_array_equal(shown, 1)
    np.testing.assert_array_equal(full["images"], 1)
    old = 0
    for seed in range(50):
        shown, after = replayed(full, jnp.full((4, 2), 2.0), jax.random.PRNGKey(seed))
        swapped = np.asarray(shown[:, 0] == 1)
        old += swapped.sum()
        assert np.asarray(after["images"][:, 0] == 2).sum() == swapped.sum()
    assert 70 < old < 130
    with pytest.raises(UserError, match="buffer"):
        replayed(full, jnp.ones((5, 2)), KEY)


def test_games_that_do_not_fit_are_refused():
    model, critic = CNN(2, 1, (1, 1)), Patch(2)
    with pytest.raises(UserError, match="task=translate"):
        Cycle(SuperRes(RANGE, 2), model, critic)
    with pytest.raises(UserError, match="identity"):
        Cycle(Translate(RANGE, 2, ("T1", "T2"), "PD"), model, critic)
    with pytest.raises(UserError, match="wgan"):
        Cycle(TRANSLATE(), model, critic, game="wgan")
    flat_critic = Cycle(TRANSLATE(), CNN(3, 1, (1, 1, 1), features=(4,), kernels=(3, 3)), critic)
    volumes = jnp.zeros((1, 8, 8, 8, 1))
    with pytest.raises(UserError, match="2-D"):
        jax.eval_shape(flat_critic.init, KEY, Example(NetworkInput(volumes), volumes, volumes > 0, jnp.arange(1),
                                                      jnp.full((1, 3), jnp.nan)))
