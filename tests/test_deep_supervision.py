"""Outputs of coarser levels: what they learn and how much it counts; in use there are none; who refuses them."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.metrics import log_loss

from medjax import registry
from medjax.models.blocks import Conv, coarse_output, pad_to_multiple, sow_coarse
from medjax.models.features import Features
from medjax.objectives._players import deeply_weighted
from medjax.objectives.noise2noise import Noise2Noise
from medjax.objectives.supervised import Supervised
from medjax.ops.resample import mean_pool, nearest
from medjax.tasks.denoise import Denoise
from medjax.tasks.segment import Segment
from medjax.train.sharding import batch_sharding, make_mesh, parallel, replicated
from medjax.train.step import init_state, make_step
from medjax.types import CoarseOutput, Example, NetworkInput, UserError

KEY = jax.random.key(0, impl="unsafe_rbg")  # compiles faster
UNIT = (0.0, 1.0)
RANDOM = np.random.default_rng(0)
MODELS = {"unet": {"width": 2, "depth": 4, "deep_supervision": 1},
          "nnunet": {"width": 2, "depth": 4, "deep_supervision": 2, "blocks": (1,) * 4, "decoder_blocks": (1,) * 3}}


def network(name: str, ndim: int = 2, channels: int = 1, **changes):
    return registry.build("models", registry.spec("models", name, **MODELS[name] | changes), ndim=ndim, channels=channels,
                          scale=(1,) * ndim)


@pytest.mark.parametrize("factors", [(2, 2), (1, 4), (3, 2), (5, 3)])
def test_the_nearest_voxel_is_that_of_nearest_exact(factors):
    """PyTorch's formula: the voxel floor((i + 0.5) * factor); sizes that don't divide are rounded up."""
    image = RANDOM.normal(size=(1, 11, 12, 2)).astype(np.float32)
    sizes = [-(-size // f) for size, f in zip(image.shape[1:-1], factors, strict=True)]
    rows, columns = (np.floor((np.arange(n) + 0.5) * f).astype(int) for n, f in zip(sizes, factors, strict=True))
    beyond = np.pad(image, [(0, 0), (0, 9), (0, 9), (0, 0)])
    np.testing.assert_array_equal(nearest(jnp.asarray(image), factors), beyond[:, rows][:, :, columns])


def segmentation() -> tuple[Segment, Example]:
    """Random labels of sizes that don't divide, of which two thirds count."""
    labels = np.eye(3, dtype=np.float32)[RANDOM.integers(0, 3, (2, 11, 14))]
    mask = RANDOM.random((2, 11, 14, 1)) < 0.7
    example = Example(NetworkInput(jnp.zeros((2, 11, 14, 1))), jnp.asarray(labels), jnp.asarray(mask),
                      jnp.arange(2, dtype=jnp.uint32), jnp.ones((2, 2)))
    return Segment(UNIT, 2, ("background", "a", "b")), example


def test_levels_count_as_in_nnunet():
    """1, 1/2, 1/4 over their sum, each against the nearest labels that count; what a network sows counts as ever."""
    task, example = segmentation()
    grids = [(slice(None), slice(0, None), slice(0, None)), (slice(None), slice(1, None, 2), slice(1, None, 2)),
             (slice(None), slice(2, None, 4), slice(2, None, 4))]
    shapes = [(11, 14), (6, 7), (3, 4)]
    logits = [RANDOM.normal(size=(2, *shape, 3)).astype(np.float32) for shape in shapes]
    coarse = [CoarseOutput(jnp.asarray(found), (2**level,) * 2) for level, found in enumerate(logits[1:], 1)]
    text = "0.5*cross_entropy + 2*kl"
    terms = jax.jit(partial(deeply_weighted, task, text))(logits[0], coarse, example, {"kl": jnp.array([1.0, 3.0])})
    assert set(terms) == {"cross_entropy", "kl", "cross_entropy_coarser1", "cross_entropy_coarser2"}
    assert float(terms["kl"].value) == pytest.approx(4.0)
    for level, (name, grid) in enumerate(zip([name for name in terms if name != "kl"], grids, strict=True)):
        labels, mask = np.asarray(example.target)[grid], np.asarray(example.mask)[grid][..., 0]
        found = logits[level][:, :mask.shape[1], :mask.shape[2]][mask]
        shares = np.exp(found) / np.exp(found).sum(-1, keepdims=True)
        entropy = log_loss(labels[mask].argmax(-1), shares, labels=[0, 1, 2])
        assert float(terms[name].value) == pytest.approx(0.5 * entropy * 0.5**level / 1.75, rel=1e-5)
        assert float(terms[name].count) == mask.sum()


def test_a_restoration_learns_its_image_on_every_grid():
    """What a level of a residual network makes is added to its input's nearest voxels, in the units of `standardise`."""
    model, x = network("unet", standardise=True), jnp.asarray(RANDOM.normal(3, 2, (1, 13, 16, 1)), jnp.float32)

    @jax.jit
    def levels(x):
        variables = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), jax.eval_shape(model.init, KEY, x))
        variables["params"]["head1"]["bias"] += 0.5
        return model.apply(variables, x, train=True, mutable=["coarse"])[1]["coarse"]["outputs"]

    (found,) = levels(x)
    np.testing.assert_allclose(found.image, nearest(x, 2) + 0.5 * x.std(ddof=1), atol=1e-5)
    assert found.factors == (2, 2)


def convolutions(jaxpr) -> int:
    """How many a program has, inside of its functions too."""
    inner = [value for eqn in jaxpr.eqns for value in jax.tree.leaves(eqn.params, is_leaf=lambda v: hasattr(v, "jaxpr"))
             if hasattr(value, "jaxpr")]
    return sum("conv" in eqn.primitive.name for eqn in jaxpr.eqns) + sum(convolutions(value.jaxpr) for value in inner)


@pytest.mark.parametrize("name", MODELS)
def test_in_use_no_coarser_output_is_computed(name):
    x = jnp.zeros((1, 16, 16, 1))
    counts = {}
    for levels in (0, MODELS[name]["deep_supervision"]):
        model = network(name, deep_supervision=levels)
        variables = jax.eval_shape(model.init, KEY, x)
        for train in (False, True):
            program = jax.make_jaxpr(partial(model.apply, train=train, mutable=["coarse"]))(variables, x)
            counts[bool(levels), train] = convolutions(program.jaxpr)
    assert counts[True, False] == counts[False, False] > 0
    assert counts[True, True] > counts[False, True] == counts[False, False]


def batch(n: int = 4, filled: int = 0, ndim: int = 2) -> dict[str, np.ndarray]:
    """Labelled images whose masks differ, and `filled` rows that only fill up."""
    random, space = np.random.default_rng(1), (15, 14) if ndim == 2 else (32, 16, 16)
    found = {"image": random.uniform(size=(n, *space, 1)).astype(np.float32),
             "label": random.integers(0, 3, (n, *space, 1)).astype(np.uint8),
             "mask": random.uniform(size=(n, *space, 1)) < np.linspace(0.1, 1, n).reshape(n, *(1,) * (ndim + 1)),
             "slope": np.ones(n, np.float32), "intercept": np.zeros(n, np.float32), "count": np.ones(n, np.float32),
             "id": np.arange(n, dtype=np.uint32)}
    found = {name: np.concatenate([array, *[array[:1]] * filled]) for name, array in found.items()}
    found["count"][n:], found["image"][n:] = 0, 7.0
    return found


class TwoLevels(nn.Module):
    """As small as a network with an output on a coarser grid can be."""

    channels: int

    @nn.compact
    def __call__(self, x, context=None, train=False):
        h, _ = pad_to_multiple(Conv(4, act="relu")(x), 2)
        if train or self.is_initializing():
            factors, head = (2,) * (x.ndim - 2), Conv(self.channels, name="head1")
            sow_coarse(self, [coarse_output(head(mean_pool(h)), factors, x.shape[1:-1])])
        return Conv(self.channels)(h)[tuple(slice(0, size) for size in x.shape[:-1])]


def moved(data: int = 1, space: int = 1, mode: str = "jit", filled: int = 0, accumulate: int = 1,
          model: nn.Module | None = None, ndim: int = 2) -> tuple[dict, list, str]:
    """Logs of a step, how far it goes along the gradient, and the program of volumes that are split."""
    objective = Supervised(Segment(UNIT, ndim, ("background", "a", "b")), model or TwoLevels(3), "cross_entropy + dice")
    mesh, rules, images = make_mesh(data, space), {"model": optax.sgd(1.0)}, batch(filled=filled, ndim=ndim)
    state = jax.jit(lambda b: init_state(objective.task, objective, rules, 0.0, b, KEY))(batch(1, ndim=ndim))
    shardings = jax.tree.map(lambda _: replicated(mesh), state)
    state, placed = jax.device_put(state, shardings), jax.device_put(images, batch_sharding(mesh, images))
    before = jax.device_get(state.params)
    step = parallel(make_step(objective.task, objective, rules, 0.0, accumulate=accumulate,
                              axis=None if mode == "jit" else "data"), mesh, mode, shardings)
    text = step.lower(state, placed).compile().as_text() if space > 1 else ""
    after, logs = step(state, placed)
    return jax.device_get(logs), jax.tree.leaves(jax.tree.map(np.subtract, before, jax.device_get(after.params))), text


@pytest.fixture(scope="module")
def one() -> tuple[dict, list, str]:
    """On one device."""
    return moved()


def same(found: tuple[dict, list, str], one: tuple[dict, list, str]) -> None:
    assert found[0].keys() == one[0].keys() >= {"model/dice_coarser1", "model/cross_entropy_coarser1"}
    for name, value in one[0].items():
        np.testing.assert_allclose(found[0][name], value, rtol=1e-5, err_msg=name)
    norm = np.sqrt(sum(np.square(b).sum() for b in one[1]))
    for a, b in zip(found[1], one[1], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * max(np.abs(b).max(), 0.1 * norm))


@pytest.mark.parametrize("changes", [{"filled": 2}, {"accumulate": 4}, {"data": 4, "mode": "shard_map"}], ids=str)
def test_rows_that_fill_up_microbatches_and_devices_change_nothing(changes, one):
    same(moved(**changes), one)


@pytest.mark.slow
def test_volumes_that_are_split_are_not_gathered():
    model = network("unet", 3, 3, residual=False)
    found = moved(data=2, space=2, ndim=3, model=model)
    same(found, moved(ndim=3, model=model))
    assert "all-gather" not in found[2]


def losses_of(objective):
    """An objective's terms, their shapes, on a small image."""
    example = jax.eval_shape(objective.task.example, KEY, batch(1))
    params, variables = jax.eval_shape(objective.init, KEY, example)
    player = objective.players[-1]
    return jax.eval_shape(partial(objective.losses, player=player), params, variables=variables, example=example, key=KEY)[0]


def test_noise2noise_learns_at_all_levels():
    terms = losses_of(Noise2Noise(Denoise(UNIT, 2, "gaussian", (0.1, 0.1)), network("unet")))
    assert list(terms) == ["l2", "l2_coarser1"]


@pytest.mark.parametrize(("objective", "task", "said"), [
    ("sure", "denoise", "this objective does not train the outputs of coarser levels; set it to 0, or use supervised or"),
    ("supervised", "register", "the losses of Register don't fit coarser levels; set it to 0"),
    ("supervised ssim", "denoise", "the loss 'ssim' doesn't fit the level of 8x7 voxels; give fewer levels, or larger"),
])
def test_who_cannot_use_coarser_outputs_says_so(objective, task, said):
    name, _, loss = objective.partition(" ")
    found = registry.build("tasks", registry.spec("tasks", task), data_range=UNIT, ndim=2, features=Features())
    model = network("unet", channels=2 if task == "register" else 1)
    spec = registry.spec("objectives", name, **{"loss": loss or "supervised"} if task == "register" or loss else {})
    built = registry.build("objectives", spec, task=found, model=model)
    with pytest.raises(UserError, match=f"^config.model.deep_supervision: {said}"):
        losses_of(built)


def test_a_unet_without_levels_between_says_so():
    says = r"^config\.model\.deep_supervision: 1 coarser [^\n]* have 0; give 0, or a larger depth"
    with pytest.raises(UserError, match=says):
        jax.eval_shape(network("unet", depth=3).init, KEY, jnp.zeros((1, 16, 16, 1)))
