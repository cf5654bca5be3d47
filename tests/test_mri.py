"""MRI: operators against plain Fourier sums, sampling masks, coil maps of a known coil, and non-Cartesian transforms."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from medjax.ops.fft import fft, ifft
from medjax.physics import mri, nufft
from medjax.physics.analytic import shepp_logan
from medjax.physics.espirit import espirit
from medjax.physics.noise import Gaussian
from medjax.types import Operator, UserError

KEY = jax.random.key(0)


def noise(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


def fourier_matrix(frequencies, size):
    """Rows of the orthonormal, centred transform at `frequencies` in cycles per field of view, float64."""
    return np.exp(-2j * np.pi * np.outer(frequencies, np.arange(size) - size // 2) / size) / np.sqrt(size)


def cycles(size):
    return np.arange(size) - size // 2


OPERATORS = {
    "2-D": (mri.Cartesian(mri.birdcage(3, (6, 9))[None], mri.random_lines(KEY, (6, 9), 2.0)[None, None]), (6, 9)),
    "3-D": (mri.Cartesian(mri.birdcage(2, (4, 5, 6))[None], mri.random_lines(KEY, (4, 5, 6), 2.0)[None, None]), (4, 5, 6)),
    "radial": (nufft.NonCartesian(mri.birdcage(3, (10, 12))[None], nufft.plan(nufft.radial(7, 16, 10), (10, 12))), (10, 12)),
}
apply, adjoint, init = (jax.jit(f) for f in (lambda A, x: A(x), lambda A, y: A.adjoint(y), lambda A, y: A.init(y)))


@pytest.mark.parametrize("shape", [(8, 10), (7, 9), (5, 4, 6)])
def test_centred_transforms_are_fourier_sums(shape):
    x = noise(3, *shape)
    expected = x.astype(complex)
    for axis, n in enumerate(shape, start=1):
        expected = np.moveaxis(np.tensordot(fourier_matrix(cycles(n), n), expected, (1, axis)), 0, axis)
    np.testing.assert_allclose(fft(jnp.asarray(x), len(shape)), expected, atol=2e-6)
    np.testing.assert_allclose(ifft(jnp.asarray(expected, jnp.complex64), len(shape)), x, atol=2e-6)


@pytest.mark.parametrize("name", ["2-D", "3-D"])
def test_cartesian_is_maps_then_fourier_then_mask_element_by_element(name):
    A, space = OPERATORS[name]
    assert isinstance(A, Operator)
    transform = np.eye(1)
    for n in space:
        transform = np.kron(transform, fourier_matrix(cycles(n), n))
    maps, mask = np.asarray(A.maps[0], complex).reshape(len(A.maps[0]), -1), np.asarray(A.mask).ravel()
    dense = np.concatenate([mask[:, None] * transform * m for m in maps])
    unit = jnp.eye(dense.shape[1], dtype=jnp.complex64).reshape(-1, *space, 1)
    columns = apply(A, unit).reshape(dense.shape[::-1]).T
    np.testing.assert_allclose(columns, dense, atol=2e-6 * np.abs(dense).max())
    unit = jnp.eye(len(dense), dtype=jnp.complex64).reshape(-1, len(maps), *space)
    rows = adjoint(A, unit).reshape(dense.shape)
    np.testing.assert_allclose(rows, dense.conj(), atol=2e-6 * np.abs(dense).max())


@pytest.mark.parametrize("name", OPERATORS)
def test_adjoint_is_the_conjugate_transpose(name):
    A, space = OPERATORS[name]
    x = noise(2, *space, 1)
    Ax = apply(A, x)
    y = noise(*Ax.shape, seed=1)
    At_y = adjoint(A, y)
    left, right = np.vdot(y.astype(complex), Ax), np.vdot(np.asarray(At_y, complex), x)
    assert abs(left - right) < 1e-6 * np.linalg.norm(Ax) * np.linalg.norm(y)
    transposed = jax.jit(lambda y: jnp.conj(jax.linear_transpose(A, jnp.asarray(x))(jnp.conj(y))[0]))(y)
    np.testing.assert_allclose(transposed, At_y, atol=2e-6 * np.abs(At_y).max())


@pytest.mark.parametrize("name", ["2-D", "radial"])
def test_derivatives_of_any_order(name):
    A, space = OPERATORS[name]
    x, t = jnp.asarray(noise(1, *space, 1)), jnp.asarray(noise(1, *space, 1, seed=2))

    def loss(x):
        return jnp.sum(jnp.log1p(jnp.abs(A(x)) ** 2))

    def along(x):
        return jnp.sum(jnp.real(jnp.conj(t) * jnp.conj(jax.grad(loss)(x))))

    forward_over_reverse = jax.jit(lambda x: jnp.conj(jax.jvp(jax.grad(loss), (x,), (t,))[1]))(x)
    reverse_over_reverse = jax.jit(lambda x: jnp.conj(jax.grad(along)(x)))(x)
    scale = jnp.abs(forward_over_reverse).max()
    np.testing.assert_allclose(forward_over_reverse, reverse_over_reverse, atol=1e-5 * scale)


@pytest.mark.parametrize("name", ["2-D", "radial"])
def test_a_sharded_batch_needs_no_communication(name):
    A, space = OPERATORS[name]
    split = NamedSharding(Mesh(jax.devices(), "data"), PartitionSpec("data"))
    x = noise(8, *space, 1)
    y = apply(A, x)
    for fn, v in ((lambda x: A(x), x), (lambda y: A.adjoint(y), y)):
        compiled = jax.jit(fn).lower(jax.device_put(v, split)).compile()
        assert not re.findall(r"all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter", compiled.as_text())
        np.testing.assert_allclose(compiled(jax.device_put(v, split)), jax.jit(fn)(v), atol=1e-5)


@pytest.mark.parametrize("acceleration", [4, 8])
@pytest.mark.parametrize("lines", [mri.random_lines, mri.equispaced_lines])
def test_line_masks_keep_the_acceleration(lines, acceleration):
    mask = np.asarray(jax.jit(lambda key: lines(key, (32, 320), acceleration, 0.32 / acceleration))(KEY))
    assert mask.sum() * acceleration == mask.size
    assert (mask == mask[:1]).all()
    centre = round(320 * 0.32 / acceleration)
    assert mask[0, 160 - centre // 2:160 - centre // 2 + centre].all()
    outside = np.diff(np.flatnonzero(mask[0, :160 - centre // 2]))
    if lines is mri.equispaced_lines:
        assert np.ptp(outside) <= 1
    assert not (mask == np.asarray(lines(jax.random.key(1), (32, 320), acceleration, 0.32 / acceleration))).all()


def test_two_dimensional_masks():
    mask = np.asarray(mri.poisson_disc((96, 80), 6.0, (12, 10)))
    assert mask.size / mask.sum() == pytest.approx(6, rel=0.02)
    assert mask[42:54, 35:45].all()
    taken = np.argwhere(mask[:, :30])  # away from the centre no two samples touch
    apart = np.abs(taken[:, None] - taken[None]).sum(-1)
    assert apart[apart > 0].min() > 1
    spokes = np.asarray(mri.radial_lines((64, 64), 1))
    np.testing.assert_array_equal(spokes, np.broadcast_to(np.arange(64)[:, None] == 32, (64, 64)))


def test_ssdu_split_is_disjoint_and_keeps_the_centre():
    mask = mri.random_lines(KEY, (64, 64), 2.0)
    shown, held = (np.asarray(m) for m in mri.split_samples(KEY, mask, held=0.4, keep=4))
    assert not (shown & held).any()
    np.testing.assert_array_equal(shown | held, mask)
    assert shown[30:34, 30:34].sum() == mask[30:34, 30:34].sum()
    assert held.sum() / mask.sum() == pytest.approx(0.4, abs=0.03)


def test_birdcage_maps_are_normalised_and_smooth():
    for shape in ((20, 24), (8, 9, 10)):
        maps = np.asarray(mri.birdcage(6, shape))
        np.testing.assert_allclose((np.abs(maps) ** 2).sum(0), 1, atol=1e-5)
        assert np.abs(np.diff(np.abs(maps), axis=-1)).max() < 0.2


def test_coil_maps_are_found_from_the_centre_of_k_space():
    """Of an object that a birdcage measures, the calibration recovers the birdcage, up to the first coil's phase."""
    size, coils = 64, 6
    disc = shepp_logan(size / 2).image((size, size), (1.0, 1.0))
    truth = np.asarray(mri.birdcage(coils, (size, size)))
    measured = fft(jnp.asarray(truth * disc[None, ..., 0]), 2)
    measured = jnp.where(mri.random_lines(KEY, (size, size), 2.0, 0.4)[None], Gaussian(1e-4)(KEY, measured), 0)
    maps = np.asarray(espirit(measured))
    inside = np.hypot(*(np.mgrid[:size, :size] - size / 2)) < 0.25 * size
    overlap = np.abs((maps * truth.conj()).sum(0))[inside]
    assert overlap.min() > 0.999
    assert (np.abs(np.angle(maps[0]))[inside] < 1e-3).all()
    assert (np.abs(maps[:, 0, 0]) == 0).all()
    with pytest.raises(UserError, match="fit into k-space"):
        espirit(measured, calibration=80)


TRAJECTORIES = {
    "scattered": (np.random.default_rng(0).uniform(-9, 9, (150, 2)), (20, 18)),
    "radial": (nufft.radial(9, 33, 17), (17, 21)),
    "scattered 3-D": (np.random.default_rng(0).uniform(-4, 4, (60, 3)), (8, 10, 9)),
}


@pytest.mark.parametrize("name", TRAJECTORIES)
def test_nufft_is_the_fourier_sum(name):
    trajectory, shape = TRAJECTORIES[name]
    plan = nufft.plan(trajectory, shape)
    x = noise(2, *shape)
    letters = "ijk"[: len(shape)]
    factors = [fourier_matrix(trajectory[:, axis], n) for axis, n in enumerate(shape)]
    exact = np.einsum(",".join(f"m{a}" for a in letters) + f",b{letters}->bm", *factors, x)
    found = jax.jit(nufft.nufft)(x, plan)
    assert np.linalg.norm(found - exact) < 3e-5 * np.linalg.norm(exact)
    y = noise(*exact.shape, seed=1)
    transposed = ",".join(f"m{a}" for a in letters) + f",bm->b{letters}"
    exact = np.einsum(transposed, *(f.conj() for f in factors), y)
    found = jax.jit(nufft.nufft_adjoint)(y, plan)
    assert np.linalg.norm(found - exact) < 3e-5 * np.linalg.norm(exact)


@pytest.mark.slow
@pytest.mark.parametrize("trajectory", [nufft.radial(80, 96, 48), nufft.spiral(8, 900, 48, turns=4.5)],
                         ids=["radial", "spiral"])
def test_gridding_has_the_objects_intensity(trajectory):
    truth = shepp_logan(24).image((48, 48), (1.0, 1.0))
    A = nufft.NonCartesian(jnp.ones((1, 1, 48, 48), jnp.complex64), nufft.plan(trajectory, (48, 48)))
    image = init(A, apply(A, jnp.asarray(truth[None], jnp.complex64)))[0]
    assert np.vdot(truth, image).real / np.vdot(truth, truth) == pytest.approx(1, abs=0.03)
    assert np.linalg.norm(image - truth) < 0.15 * np.linalg.norm(truth)


def test_complex_images_as_channels():
    x = jnp.asarray(noise(2, 5, 6, 1))
    np.testing.assert_array_equal(mri.to_complex(mri.to_channels(x)), x)
    assert mri.to_channels(x).shape == (2, 5, 6, 2)
    phase = mri.smooth_phase(KEY, (16, 16), 0.5)
    np.testing.assert_allclose(jnp.abs(phase), np.ones((16, 16)), atol=1e-6)
    assert float(jnp.abs(jnp.diff(phase)).max()) < 0.5


@pytest.mark.parametrize(("make", "message"), [
    (lambda: OPERATORS["2-D"][0](jnp.ones((1, 6, 8, 1), jnp.complex64)), r"\(6, 8\) where the coil maps have \(6, 9\)"),
    (lambda: mri.random_lines(KEY, (8, 32), 8.0, 0.5), "fewer than the centre's 16"),
    (lambda: mri.poisson_disc((32, 32), 4.0, (24, 24)), "can't be met"),
    (lambda: nufft.plan(np.zeros((5, 3)), (8, 8)), r"give \(samples, 2\)"),
    (lambda: nufft.plan(np.full((5, 2), 9.0), (8, 8)), "half the image's size"),
])
def test_mistakes_are_named(make, message):
    with pytest.raises(UserError, match=message):
        make()
