"""Every network in 2-D and 3-D, in float32 and bfloat16: shapes, gradients, that it can learn, and what it refuses."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax import registry
from medjax.models.blocks import Conv, ConvTranspose, Norm
from medjax.models.dropout import dropout_in_use
from medjax.objectives._players import initial, trained
from medjax.objectives.supervised import Supervised
from medjax.tasks.superres import SuperRes
from medjax.train.optim import optimizer
from medjax.train.step import init_state, make_step
from medjax.types import UserError

KEY = jax.random.key(0)
SMALL = {
    "cnn": {"features": (6, 6), "kernels": (3, 3, 3)},
    "srcnn": {"features": (16, 16), "kernels": (5, 3, 3)},
    "dncnn": {"features": (6, 6), "kernels": (3, 3, 3)},
    "redcnn": {"width": 6, "depth": 3, "kernel": 3},
    "edsr": {"width": 6, "blocks": 1},
    "unet": {"width": 4, "depth": 2},
    "nafnet": {"width": 4, "encoder": (1,), "middle": 1, "decoder": (1,)},
    "restormer": {"width": 4, "blocks": (1, 1), "heads": (1, 2)},
    "swinir": {"width": 4, "depths": (2,), "heads": 2, "window": 4},
}
CRITICS = {"patch": {"width": 4, "depth": 2}, "dcgan": {"width": 4, "depth": 2}}


def network(name, ndim, scale=1, **changes):
    given = {"ndim": ndim, "channels": 1, "scale": (scale,) * ndim if isinstance(scale, int) else scale}
    return registry.build("models", registry.spec("models", name, **(SMALL | CRITICS).get(name, {}) | changes), **given)


def image(ndim, size=8, channels=1) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).uniform(size=(2, *(size,) * ndim, channels)), jnp.float32)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("name", [*SMALL, *CRITICS])
def test_shapes_and_dtypes(name, ndim, dtype):
    """Float32 parameters and a float32 answer on the input's grid, whatever is computed in."""
    x = image(ndim)
    y, variables = jax.eval_shape(network(name, ndim, dtype=dtype).init_with_output, KEY, x)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert y.dtype == jnp.float32
    assert y.shape == {"patch": (2, *(2,) * ndim, 1), "dcgan": (2, 1)}.get(name, x.shape)


@pytest.mark.parametrize("name", [*SMALL, *CRITICS])
def test_gradients_are_finite_and_reach_the_weights_and_the_image(name):
    """In 3-D and bfloat16; in 2-D and float32 the networks learn below."""
    model = network(name, 3, dtype="bfloat16")

    @jax.jit
    def program(x):
        params, rest = initial(model, KEY, x)

        def loss(params, x):
            y, changed, _ = trained(model, params, rest, x, key=KEY)
            return jnp.square(y).sum(), (y, changed)

        return rest, jax.value_and_grad(loss, (0, 1), has_aux=True)(params, x)

    rest, ((_, (y, changed)), slopes) = program(image(3, 8 if name in CRITICS else 4))
    assert np.isfinite(y).all()
    assert jax.tree.structure(changed) == jax.tree.structure(rest)
    for leaf in jax.tree.leaves(slopes):
        assert leaf.dtype == jnp.float32
        assert np.isfinite(leaf).all()
    for slope in slopes:
        assert any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(slope))


@pytest.mark.parametrize("name", SMALL)
def test_bfloat16_is_near_float32(name):
    @jax.jit
    def both(x):
        variables = network(name, 2).init(KEY, x)
        return [network(name, 2, dtype=dtype).apply(variables, x) for dtype in ("bfloat16", "float32")]

    np.testing.assert_allclose(*both(image(2)), atol=0.05)


# The published sizes: SRCNN 9-5-5 (Dong et al.), DnCNN of 17 layers and RED-CNN with one channel, counted by hand.
PUBLISHED = {
    "srcnn": (81 * 64 + 64) + (25 * 64 * 32 + 32) + (25 * 32 + 1),
    "dncnn": (9 * 64 + 64) + 15 * (9 * 64 * 64 + 2 * 64) + (9 * 64 + 1),
    "redcnn": 2 * 4 * (25 * 96 * 96 + 96) + (25 * 96 + 96) + (25 * 96 + 1),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_have_their_published_size(name):
    model = registry.build("models", registry.spec("models", name), ndim=2, channels=1, scale=(1, 1))
    shapes = jax.eval_shape(model.init, KEY, image(2, 32))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == PUBLISHED[name]


@pytest.mark.parametrize("name", [*SMALL, *CRITICS])
def test_defaults_work_at_a_usual_size(name):
    model = registry.build("models", registry.spec("models", name), ndim=2, channels=3, scale=(1, 1))
    x = jax.ShapeDtypeStruct((2, 64, 48, 3), jnp.float32)
    y, _ = jax.eval_shape(model.init_with_output, KEY, x)
    assert y.shape == {"patch": (2, 8, 6, 1), "dcgan": (2, 1)}.get(name, x.shape)


@pytest.mark.parametrize("options", [{"norm": n} for n in ("none", "batch", "group", "instance", "layer")] + [
    {"block": "residual"}, {"residual": False}, {"act": "silu"}, {"depth": 1}, {"depth": 3}, {"stride": 4}])
def test_unets_of_all_kinds_take_any_size(options):
    x = jax.ShapeDtypeStruct((1, 17, 13, 1), jnp.float32)
    y, _ = jax.eval_shape(network("unet", 2, **options).init_with_output, KEY, x)
    assert y.shape == x.shape


@pytest.mark.parametrize(("ndim", "scale"), [(2, 2), (2, 3), (3, 2), (3, (4, 1, 1))])
def test_edsr_enlarges_by_the_scale(ndim, scale):
    model, x = network("edsr", ndim, scale), image(ndim, 5)
    y, _ = jax.eval_shape(model.init_with_output, KEY, x)
    assert y.shape == (2, *(5 * s for s in model.scale), 1)


def test_more_input_channels_than_output_channels():
    """Context channels (other modalities, neighbouring slices) come after the image's own."""
    for name in ("cnn", "redcnn", "edsr", "unet"):
        y, _ = jax.eval_shape(network(name, 2).init_with_output, KEY, image(2, channels=3))
        assert y.shape == (2, 8, 8, 1), name


def test_dropout_only_in_training():
    model, x = network("unet", 2, width=2, dropout=0.5), image(2)

    @jax.jit
    def answers(key):
        variables = model.init(KEY, x)
        return [model.apply(variables, x, train=train, rngs={"dropout": key}) for train in (False, True)]

    (quiet_one, one), (quiet_two, two) = (answers(jax.random.key(seed)) for seed in (1, 2))
    np.testing.assert_array_equal(quiet_one, quiet_two)
    assert not np.array_equal(one, two)


def test_dropout_in_use_follows_from_the_key_of_each_sample():
    """Of whichever batch the sample is; everything else stays as in use."""
    x, keys = jnp.ones((3, 40, 40, 2)), jax.random.split(KEY, 3)
    layer = nn.Dropout(0.3, deterministic=True)

    def dropped(x, keys):
        with dropout_in_use(keys):
            return layer.apply({}, x)

    made = dropped(x, keys)
    np.testing.assert_allclose(np.unique(made), [0, 1 / 0.7], rtol=1e-6)
    assert float((made == 0).mean()) == pytest.approx(0.3, abs=0.02)  # 5 standard errors of 9600 draws are 0.023
    assert not np.array_equal(made[0], made[1])
    np.testing.assert_array_equal(made[1], dropped(x[1:2], keys[1:2])[0])
    np.testing.assert_array_equal(layer.apply({}, x), x)


def test_dropout_in_use_leaves_normalisation_as_it_is():
    model, x = network("unet", 2, width=2, depth=2, norm="batch", dropout=1e-9), image(2)

    @jax.jit
    def both():
        variables = model.init(KEY, x)
        with dropout_in_use(jax.random.split(KEY, len(x))):
            made = model.apply(variables, x)
        return made, model.apply(variables, x)

    np.testing.assert_array_equal(*both())
    with pytest.raises(UserError, match=r"^--uncertainty=dropout: the run's network leaves out no features"), \
            dropout_in_use(jax.random.split(KEY, len(x))):
        jax.eval_shape(network("unet", 2, width=2, depth=2).init, KEY, x)


def test_batch_norm_learns_its_statistics_in_training_only():
    layer, x = Norm("batch"), 3 + 2 * jax.random.normal(KEY, (8, 16, 16, 4))
    variables = layer.init(KEY, x)
    np.testing.assert_array_equal(variables["batch_stats"]["mean"], 0)
    for _ in range(60):
        _, changed = layer.apply(variables, x, train=True, mutable=["batch_stats"])
        variables = variables | changed
    np.testing.assert_allclose(variables["batch_stats"]["mean"], x.mean((0, 1, 2)), rtol=0.01)
    np.testing.assert_allclose(layer.apply(variables, x), layer.apply(variables, x, train=True, mutable=["batch_stats"])[0],
                               atol=0.03)


@pytest.mark.parametrize(("kind", "oracle"), [
    ("group", partial(nn.GroupNorm, 8)), ("instance", nn.InstanceNorm), ("layer", nn.LayerNorm),
    ("batch", partial(nn.BatchNorm, use_running_average=False)),
])
@pytest.mark.parametrize("ndim", [2, 3])
def test_norms_agree_with_flax(kind, oracle, ndim):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, *(5,) * ndim, 16)) * rng.uniform(0.1, 3, 16) + rng.normal(size=16), jnp.float32)
    weights = {name: jnp.asarray(rng.normal(size=16), jnp.float32) for name in ("scale", "bias")}
    stats = {"mean": jnp.zeros(16), "var": jnp.ones(16)}
    exact = oracle(epsilon=1e-5, use_fast_variance=False)
    expected, _ = exact.apply({"params": weights, "batch_stats": stats}, x, mutable=["batch_stats"])
    found, _ = Norm(kind).apply({"params": weights, "batch_stats": stats}, x, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("kind", ["group", "instance", "layer", "batch"])
def test_norms_far_from_zero(kind):
    """Means of 3000 standard deviations, beside a first row and a corner of zeros; the oracle is float64."""
    rng = np.random.default_rng(0)
    x = np.float32(3000 + rng.normal(size=(2, 24, 20, 16)))
    for case in (x, x * np.pad(np.ones((1, 23, 20, 1), np.float32), ((0, 0), (1, 0), (0, 0), (0, 0)))):
        groups = np.float64(case).reshape(2, 24, 20, *((8, 2) if kind == "group" else (16, 1)))
        axes = {"group": (1, 2, 4), "instance": (1, 2), "layer": (3,), "batch": (0, 1, 2)}[kind]
        expected = (groups - groups.mean(axes, keepdims=True)) / np.sqrt(groups.var(axes, keepdims=True) + 1e-5)
        found, _ = Norm(kind).init_with_output(KEY, case, train=True)
        np.testing.assert_allclose(found, expected.reshape(case.shape), atol=2e-3)


@pytest.mark.parametrize(("ndim", "stride", "padding"), [(2, 1, "SAME"), (2, 2, "SAME"), (3, 1, "VALID"), (3, 2, "SAME")])
def test_transposed_convolution_is_the_adjoint(ndim, stride, padding):
    x = jax.random.normal(KEY, (2, *(8,) * ndim, 3))
    forward, back = Conv(5, 3, stride, padding), ConvTranspose(3, 3, stride, padding)
    params = {"kernel": jax.random.normal(KEY, (*(3,) * ndim, 3, 5))}
    ax = forward.apply({"params": params | {"bias": jnp.zeros(5)}}, x)
    y = jax.random.normal(jax.random.key(1), ax.shape)
    aty = back.apply({"params": params | {"bias": jnp.zeros(3)}}, y)
    np.testing.assert_allclose(jnp.vdot(ax, y), jnp.vdot(x, aty), rtol=1e-4)


def enlarging(ndim, name):
    return SuperRes((0.0, 1.0), ndim, factor=2, grid="coarse" if name == "edsr" else "fine")


@pytest.mark.parametrize(("name", "ndim"), [
    *((name, 2) for name in SMALL), *(pytest.param(name, 3, marks=pytest.mark.slow) for name in ("unet", "edsr"))])
def test_learns_one_batch_by_heart(name, ndim):
    """Through task, objective and step, as in a run: the loss falls far below where the input is."""
    task = enlarging(ndim, name)
    objective = Supervised(task, network(name, ndim, task.scale), "l2")
    rules = {"model": optimizer(150, name="adam", lr=3e-2, warmup=5)}
    sharp = np.float32(np.random.default_rng(0).uniform(size=(1, *(8,) * ndim, 1)) > 0.5)
    batch = {"image": jnp.asarray(sharp), "slope": jnp.ones(1), "intercept": jnp.zeros(1), "count": jnp.ones(1),
             "id": jnp.zeros(1, jnp.uint32)}
    state = jax.jit(lambda batch: init_state(task, objective, rules, 0.0, batch, KEY))(batch)
    step = jax.jit(make_step(task, objective, rules, 0.0))
    losses = []
    for _ in range(150):
        state, logs = step(state, batch)
        losses.append(float(logs["model/loss"]))
    assert int(state.step) == 150
    if name in ("cnn", "dncnn", "edsr", "unet"):  # these begin near their input
        assert losses[0] < 0.5
    assert losses[-1] < 0.1 * losses[0], losses[::25]


@pytest.mark.parametrize("name", [*SMALL, *CRITICS])
def test_images_of_the_wrong_dimension_are_one_line(name):
    with pytest.raises(UserError, match=r"^config\.data\.ndim: the model is 3-D and the images are 2-D"):
        jax.eval_shape(network(name, 3).init, KEY, image(2))


@pytest.mark.parametrize("name", [name for name in SMALL if name not in ("edsr", "swinir")])
def test_networks_that_keep_the_grid_refuse_to_enlarge(name):
    with pytest.raises(UserError, match=r"^config\.model\.name: .*\(2, 2\).*edsr") as error:
        jax.eval_shape(network(name, 2, 2).init, KEY, image(2))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("options", "key"), [({"norm": "batchh"}, "norm"), ({"act": "rellu"}, "act"),
                                              ({"block": "resdual"}, "block")])
def test_unknown_parts_are_one_line(options, key):
    with pytest.raises(UserError, match=rf"^config\.model\.{key}: [^\n]*there is"):
        jax.eval_shape(network("unet", 2, **options).init, KEY, image(2))


def test_layers_and_kernels_must_fit():
    with pytest.raises(UserError, match=r"config\.model\.kernels"):
        jax.eval_shape(network("cnn", 2, kernels=(3, 3)).init, KEY, image(2))
