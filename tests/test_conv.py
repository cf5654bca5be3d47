"""Convolutions against XLA's own, with every transformation, on oneDNN where it is there."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from medjax import native
from medjax.ops.conv import conv, conv_transpose, jax_convolutions
from medjax.train.sharding import make_mesh

needs_onednn = pytest.mark.skipif(bool(native.problem()), reason=native.problem())


def draw(seed, *shape, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def error(got, want):
    """Largest difference, relative to the largest value."""
    return max(float(jnp.abs(jnp.asarray(g, jnp.float32) - jnp.asarray(w, jnp.float32)).max()
                     / jnp.maximum(jnp.abs(jnp.asarray(w, jnp.float32)).max(), 1e-30))
               for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True))


def oracle(x, w, *, stride=1, dilation=1, padding="SAME", groups=1):
    n = x.ndim - 2
    image = "N" + "DHW"[-n:] + "C"
    def each(v):
        return (v,) * n if isinstance(v, int) else v
    return lax.conv_general_dilated(x, w, each(stride), padding, rhs_dilation=each(dilation),
                                    feature_group_count=groups,
                                    dimension_numbers=(image, image[1:-1] + "IO", image))


def with_gradients(f):
    """`f(a, b)` and its gradients for a cotangent, in one program."""
    def run(a, b):
        y, vjp = jax.vjp(f, a, b)
        return y, vjp(jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape).astype(y.dtype))
    return jax.jit(run)


CASES = [
    # space, C_in, kernel, C_out, options
    ((16,), 3, (5,), 4, {}),
    ((17,), 4, (3,), 6, {"stride": 2, "groups": 2}),
    ((12, 10), 1, (3, 3), 32, {}),
    ((12, 10), 32, (3, 3), 1, {}),
    ((12, 10), 16, (1, 1), 48, {}),
    ((12, 11), 16, (3, 3), 16, {"stride": 2}),
    ((12, 11), 5, (3, 2), 7, {"stride": (2, 3), "padding": "VALID"}),
    ((13, 12), 6, (3, 3), 6, {"groups": 6}),
    ((13, 12), 32, (3, 3), 32, {"groups": 2}),
    ((13, 12), 8, (3, 3), 8, {"dilation": 2}),
    ((13, 12), 8, (3, 3), 8, {"dilation": (1, 3), "padding": [(0, 3), (2, 1)]}),
    ((10, 10), 4, (4, 4), 4, {"stride": 4, "padding": "VALID"}),
    ((11, 9), 4, (2, 2), 4, {"stride": 3, "padding": [(1, 0), (0, 0)]}),
    ((9, 9), 3, (3, 3), 4, {"padding": [(-1, 2), (1, -2)]}),
    ((9, 9), 3, (3, 3), 4, {"padding": [(5, 4), (0, 6)]}),
    ((6, 7, 8), 1, (3, 3, 3), 16, {}),
    ((6, 7, 8), 16, (3, 3, 3), 16, {"stride": 2}),
    ((6, 7, 8), 4, (1, 3, 3), 8, {"dilation": (1, 2, 1), "groups": 2}),
]


@pytest.mark.parametrize(("space", "c_in", "kernel", "c_out", "options"), CASES)
def test_values_and_gradients_equal_xla(space, c_in, kernel, c_out, options):
    x, w = draw(0, 2, *space, c_in), draw(1, *kernel, c_in // options.get("groups", 1), c_out)
    want = with_gradients(functools.partial(oracle, **options))(x, w)
    assert error(with_gradients(functools.partial(conv, **options))(x, w), want) < 2e-6


@pytest.mark.parametrize("case", [(4, (5, 6, 7), (3, 3, 3), {}), *((c, space, k, o) for space, c, k, _, o in CASES[-3:]),
                                  (4, (7, 5, 6), (3, 1, 2), {"dilation": (2, 1, 1), "padding": [(3, -1), (0, 1), (1, 1)]})])
@pytest.mark.parametrize("planes", [True, False])
def test_exported_volumes_are_convolved_in_planes(case, planes):
    """By 2-D convolutions alone where these are asked for; else as well where XLA runs on a CPU."""
    c_in, space, kernel, options = case
    x, w = draw(0, 2, *space, c_in), draw(1, *kernel, c_in // options.get("groups", 1), 6)
    with jax_convolutions(planes=planes):
        program = jax.jit(lambda x, w: conv(x, w, **options)).lower(x, w)
    assert error(program.compile()(x, w), oracle(x, w, **options)) < 2e-6
    text = program.as_text()
    assert "dim_numbers = [b, 0, 1, f]" in text
    assert "dim_numbers = [b, 0, 1, 2, f]" not in text


@pytest.mark.parametrize("case", [2, 3, 5, 8, 16])
def test_bfloat16_is_float32_rounded(case):
    space, c_in, kernel, c_out, options = CASES[case]
    x, w = draw(0, 2, *space, c_in), draw(1, *kernel, c_in // options.get("groups", 1), c_out)
    x, w = x.astype(jnp.bfloat16), w.astype(jnp.bfloat16)
    got = with_gradients(functools.partial(conv, **options))(x, w)
    want = with_gradients(functools.partial(oracle, **options))(x.astype(jnp.float32), w.astype(jnp.float32))
    assert {leaf.dtype for leaf in jax.tree.leaves(got)} == {jnp.dtype("bfloat16")}
    assert error(got, want) < 1e-2


@pytest.mark.parametrize(("space", "kernel"), [
    ((2, 8, 8), 3), ((1, 1, 1), 5), ((4, 4, 4), 5), ((2, 1, 1), 3), ((3, 4, 4), 3),
])
@pytest.mark.parametrize("channels", [(1, 16), (4, 8), (16, 16)])
def test_shallow_volumes_in_bfloat16(space, kernel, channels):
    """A thread's part of such a weight gradient once held taps that nothing was written to."""
    program = with_gradients(conv)

    def drawn(*shape):
        return draw(0, *shape, dtype=jnp.bfloat16)
    program(drawn(4, 8, 8, 8, 32), drawn(5, 5, 5, 32, 32) * jnp.inf)  # leaves no number in the memory it used
    x, w = drawn(2, *space, channels[0]), drawn(*(kernel,) * 3, *channels)
    want = with_gradients(oracle)(x.astype(jnp.float32), w.astype(jnp.float32))
    assert error(program(x, w), want) < 1e-2


@pytest.mark.parametrize(("space", "kernel", "options"), [
    ((8,), (3,), {"stride": 2}),
    ((6, 5), (3, 3), {}),
    ((6, 5), (5, 5), {"padding": "VALID"}),
    ((6, 5), (2, 2), {"stride": 2, "groups": 2}),
    ((6, 5), (4, 3), {"stride": (2, 1), "padding": [(1, 1), (0, 2)]}),
    ((3, 4, 3), (3, 3, 3), {"stride": 2}),
])
def test_transposed_is_the_adjoint(space, kernel, options):
    x, w = draw(0, 2, *space, 6), draw(1, *kernel, 4 // options.get("groups", 1), 6)
    out = conv_transpose(x, w, **options)
    if options.get("padding", "SAME") == "SAME":
        assert out.shape[1:-1] == tuple(np.multiply(space, options.get("stride", 1)))
    def adjoint(x, w):
        return jax.linear_transpose(lambda y: oracle(y, w, **options), out)(x)[0]
    assert error(with_gradients(functools.partial(conv_transpose, **options))(x, w),
                 with_gradients(adjoint)(x, w)) < 2e-6


TARGET = "medjax_convolve"
X, W, V = draw(0, 8, 8, 8, 3), draw(1, 3, 3, 3, 4), draw(2, 3, 3, 4, 4)


def loss(kernels, x, conv=conv, conv_transpose=conv_transpose):
    """A little network, so that derivatives pass through all three primitives."""
    y = jnp.tanh(conv(x, kernels[0], stride=2))
    return jnp.square(conv_transpose(y, kernels[1], stride=2)).mean()


def oracle_loss(kernels, x):
    def up(y, w, stride):
        return jax.linear_transpose(
            lambda z: oracle(z, w, stride=stride), jnp.zeros((len(y), 8, 8, 4)))(y)[0]
    return loss(kernels, x, oracle, up)


@pytest.fixture(scope="module")
def gradients():
    return jax.jit(jax.grad(oracle_loss))((W, V), X)


def calls(jitted, *args) -> int:
    """How many convolutions of the program call oneDNN."""
    return jitted.lower(*args).as_text().count(TARGET)


@needs_onednn
def test_one_of_many_devices_calls_onednn(gradients):
    f = jax.jit(jax.grad(loss))
    assert calls(f, (W, V), X) == 5
    assert error(f((W, V), X), gradients) < 2e-6


def test_gradient_of_gradient():
    def penalty(loss, kernels, x):  # of a Wasserstein critic (Gulrajani et al., 2017)
        return jnp.square(jnp.linalg.norm(jax.grad(loss, 1)(kernels, x)) - 1)
    got = jax.jit(jax.grad(functools.partial(penalty, loss)))((W, V), X)
    with jax.enable_x64(True):  # in float32 the oracle is off by as much as what it is to check
        exact = jax.tree.map(lambda v: jnp.asarray(v, jnp.float64), ((W, V), X))
        want = jax.jit(jax.grad(functools.partial(penalty, oracle_loss)))(*exact)
    assert error(got, want) < 2e-6


def test_hessian_vector_product():
    got, want = (jax.jit(lambda k, f=f: jax.jvp(jax.grad(lambda k: f(k, X)), (k,), ((V[:, :, :3], V),))[1])((W, V))
                 for f in (loss, oracle_loss))
    assert error(got, want) < 2e-6


def test_remat_and_scan():
    def deep(conv, w, x):
        layer = jax.checkpoint(lambda h, _: (jnp.tanh(conv(h, w)), None))
        return lax.scan(layer, x, None, length=3)[0].sum()
    x = draw(3, 2, 6, 6, 4)
    got, want = (jax.jit(jax.grad(functools.partial(deep, f)))(V, x) for f in (conv, oracle))
    assert error(got, want) < 2e-6


@pytest.mark.parametrize("mapped", [(0, None, None), (None, 3, None), (None, None, 1), (0, 0, None), (2, 1, 0)])
@pytest.mark.parametrize("groups", [1, 2])
def test_vmap_of_value_and_gradients(mapped, groups):
    shapes = [(2, 6, 5, 4), (3, 3, 4 // groups, 6), (2, 3, 3, 6)]
    args = [draw(i, *(s if at is None else (*s[:at], 3, *s[at:])))
            for i, (s, at) in enumerate(zip(shapes, mapped, strict=True))]

    def both(conv, x, w, ct):
        y, vjp = jax.vjp(functools.partial(conv, stride=2, groups=groups), x, w)
        return y, vjp(ct)
    got, want = (jax.jit(jax.vmap(functools.partial(both, f), mapped))(*args) for f in (conv, oracle))
    assert error(got, want) < 2e-6


@pytest.fixture(scope="module")
def mesh():
    return jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))


@pytest.mark.parametrize("check_vma", [True, False])
def test_shard_map(mesh, gradients, check_vma):
    if check_vma:
        step = jax.grad(lambda kernels, x: lax.pmean(loss(kernels, x), "data"))
    else:
        def step(kernels, x):
            return lax.pmean(jax.grad(loss)(kernels, x), "data")
    f = jax.jit(jax.shard_map(step, mesh=mesh, in_specs=(P(), P("data")), out_specs=P(), check_vma=check_vma))
    assert calls(f, (W, V), X) == (0 if native.problem() else 5)
    assert error(f((W, V), X), gradients) < 2e-6


def test_batch_stays_sharded_over_devices(mesh, gradients):
    f = jax.jit(jax.grad(loss), in_shardings=(NamedSharding(mesh, P()), NamedSharding(mesh, P("data"))))
    compiled = f.lower((W, V), X).compile()
    assert "all-gather" not in compiled.as_text()
    assert calls(f, (W, V), X) == 0
    assert error(compiled(*jax.device_put(((W, V), X), compiled.input_shardings[0])), gradients) < 2e-6


def test_other_platforms_and_exports_use_xla():
    f = jax.jit(jax.grad(loss))
    assert "custom_call" not in f.trace((W, V), X).lower(lowering_platforms=("tpu",)).as_text()
    shape = jax.export.symbolic_shape("b,2*h,2*w,3")
    exported = jax.export.export(jax.jit(lambda x: conv(x, W, stride=2)))(jax.ShapeDtypeStruct(shape, jnp.float32))
    assert TARGET not in exported.mlir_module()
    assert error(exported.call(X), oracle(X, W, stride=2)) < 2e-6


def test_other_dtypes():
    x, w = X + 1j * X[::-1], W - 2j * W[::-1]
    assert error(abs(conv(x, w)), abs(oracle(x, w))) < 2e-6
    with jax.enable_x64(True):
        x, w = draw(0, 2, 5, 5, 2, dtype=jnp.float64), draw(1, 3, 3, 2, 2, dtype=jnp.float64)
        assert conv(x, w).dtype == jnp.float64
        assert jnp.abs(conv(x, w) - oracle(x, w)).max() < 1e-12


def test_nothing_in_gives_nothing_out():
    assert conv(X[:0], W).shape == (0, 8, 8, 4)


def test_bias_keeps_the_dtype():
    x, w, bias = X.astype(jnp.bfloat16), W.astype(jnp.bfloat16), jnp.arange(4.0)
    y = conv(x, w, bias=bias)
    assert y.dtype == jnp.bfloat16
    assert error(y, conv(x, w).astype(jnp.float32) + bias.reshape(1, 1, 1, 4)) < 1e-2
    total = jax.grad(lambda b: conv(x, w, bias=b).astype(jnp.float32).sum())(bias)
    np.testing.assert_allclose(total, 8 * 8 * 8)


def in_steps(x, w, bias, leak=1.0, **options):
    y = oracle(x, w, **options) + bias.reshape((1,) * (x.ndim - 1) + bias.shape)
    return jnp.where(y > 0, y, leak * y)


@pytest.mark.parametrize("leak", [1.0, 0.0, 0.2])
@pytest.mark.parametrize("case", [0, 2, 4, 8, 13, 16])
def test_bias_and_leak_equal_the_steps(case, leak):
    space, c_in, kernel, c_out, options = CASES[case]
    args = draw(0, 2, *space, c_in), draw(1, *kernel, c_in // options.get("groups", 1), c_out), draw(2, c_out)

    def both(f, *args):
        y, vjp = jax.vjp(f, *args)
        return y, vjp(jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape))
    got, want = (jax.jit(functools.partial(both, functools.partial(f, leak=leak, **options)))(*args)
                 for f in (lambda x, w, b, **o: conv(x, w, bias=b, **o), in_steps))
    assert error(got, want) < 2e-6


def ours(x, w, bias, leak):
    return conv(x, w, bias=bias, leak=leak)


def biased_loss(bias, x, conv=ours):
    return jnp.square(conv(conv(x, W, bias, 0.2), V, bias, 0.0)).mean()


BIAS = jnp.array([0.5, -1.0, 0.0, 2.0])


def test_derivatives_of_bias_and_leak(mesh):
    want = jax.jit(jax.grad(functools.partial(biased_loss, conv=in_steps)))(BIAS, X)
    assert error(jax.jit(jax.grad(biased_loss))(BIAS, X), want) < 2e-6
    step = jax.shard_map(jax.grad(lambda b, x: lax.pmean(biased_loss(b, x), "data")), mesh=mesh,
                         in_specs=(P(), P("data")), out_specs=P(), check_vma=True)
    assert error(jax.jit(step)(BIAS, X), want) < 2e-6
    biases = jnp.stack([BIAS, -BIAS, BIAS**2])
    for derivative in (lambda f: f, jax.grad, jax.hessian):
        got, want = (jax.jit(jax.vmap(derivative(f), (0, None)))(biases, X)
                     for f in (biased_loss, functools.partial(biased_loss, conv=in_steps)))
        assert error(got, want) < 5e-6


@needs_onednn
def test_bias_and_leak_are_part_of_the_convolution():
    f = jax.jit(lambda b, x: conv(x, W, bias=b, leak=0.0))
    assert calls(f, BIAS, X) == 1
    assert "select" not in f.lower(BIAS, X).as_text()
    half = f(BIAS, X.astype(jnp.bfloat16))
    assert error(half, in_steps(X, W, BIAS, 0.0)) < 1e-2


@pytest.mark.parametrize(("depth", "kernel"), [(2, 3), (2, 5), (4, 5)])
def test_short_volumes_split_over_devices_have_the_gradient_of_one(depth, kernel):
    """Batch and depth are split, as at the lowest level of a U-Net, and the kernel is longer than what comes out."""
    x, w, y = draw(0, 4, depth, 4, 4, 8), draw(1, kernel, 3, 3, 8, 8), draw(2, 4, depth, 4, 4, 8)

    def gradients(x, w, y):
        return jax.grad(lambda x, w: (conv(x, w) * y).sum(), (0, 1))(x, w)

    mesh = make_mesh(2, 2)
    rows, whole = NamedSharding(mesh, P("data", "space")), NamedSharding(mesh, P())
    split = jax.jit(gradients, in_shardings=(rows, whole, rows), out_shardings=(rows, whole))
    for found, expected in zip(split(x, w, y), gradients(x, w, y), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
