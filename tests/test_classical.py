"""Classical methods: solvers against dense linear algebra, wavelets against PyWavelets, and what they gain on phantoms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import pywt
from skimage import restoration

from medjax.classical import denoise, inpaint, interpolate, iterative
from medjax.classical._declared import NoiseModel
from medjax.ops import wavelet
from medjax.ops.solve import conjugate_gradients
from medjax.physics import mri
from medjax.physics.analytic import shepp_logan
from medjax.physics.ct import Parallel, angles
from medjax.physics.optics import Blur, Decimate
from medjax.types import UserError

KEY = jax.random.key(0)
CT = Parallel((12, 10), 1.0, angles(9), 15, 1.0)
HEAD = shepp_logan(32).image((64, 64), (1.0, 1.0))


def psnr(image, truth):
    return float(10 * np.log10(1 / np.mean(np.abs(np.asarray(image) - truth) ** 2)))


def dense(A, shape):
    return np.asarray(A(jnp.eye(int(np.prod(shape))).reshape(-1, *shape)), np.float64).reshape(int(np.prod(shape)), -1).T


def hermitian(batch=3, n=6):
    rng = np.random.default_rng(0)
    root = rng.normal(size=(batch, n, n)) + 1j * rng.normal(size=(batch, n, n))
    matrix = root @ root.conj().swapaxes(1, 2) + 3 * np.eye(n)
    return jnp.asarray(matrix, jnp.complex64), jnp.asarray(rng.normal(size=(batch, n)) + 1j, jnp.complex64)


def test_conjugate_gradients_and_their_derivatives_are_those_of_a_direct_solve():
    matrix, b = hermitian()
    weights = jnp.arange(6.0)[None]

    def symmetric(matrix):
        return (matrix + jnp.conj(matrix.swapaxes(1, 2))) / 2

    def by_cg(matrix, shift, b):
        matrix = symmetric(matrix)  # changes of the matrix that leave it Hermitian
        x = conjugate_gradients(lambda x: jnp.einsum("bij,bj->bi", matrix, x) + shift * x, b, iterations=14)
        return jnp.sum(weights * jnp.abs(x) ** 2)

    def direct(matrix, shift, b):
        x = jnp.linalg.solve(symmetric(matrix) + shift * jnp.eye(6)[None], b[..., None])[..., 0]
        return jnp.sum(weights * jnp.abs(x) ** 2)

    at, along = (matrix, 0.5, b), (0.1 * matrix, 1.0, 2j * b)
    first, second = (jax.jit(jax.value_and_grad(fn, argnums=(0, 1, 2)))(*at) for fn in (by_cg, direct))
    for ours, theirs in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5 * np.abs(theirs).max())
    tangents = [float(jax.jit(lambda *v, fn=fn: jax.jvp(fn, v[:3], v[3:])[1])(*at, *along)) for fn in (by_cg, direct)]
    assert tangents[0] == pytest.approx(tangents[1], rel=1e-4)
    curvatures = [float(jax.jit(jax.grad(jax.grad(lambda s, fn=fn: fn(matrix, s, b))))(0.5)) for fn in (by_cg, direct)]
    assert curvatures[0] == pytest.approx(curvatures[1], rel=1e-4)


def test_a_solved_sample_rests_beside_one_that_is_not():
    matrix, b = hermitian()
    b = b.at[0].set(0)
    x = conjugate_gradients(lambda x: jnp.einsum("bij,bj->bi", matrix, x), b, start=jnp.ones_like(b), iterations=40)
    np.testing.assert_allclose(x, np.linalg.solve(matrix, b[..., None])[..., 0], atol=1e-5)


@pytest.mark.parametrize("scale", [1e-12, 1e-7])
def test_derivatives_of_a_small_residual_are_those_of_a_large_one(scale):
    """A network that agrees with the measurement leaves little to solve, and squares of its energy leave float32's range."""
    matrix, b = hermitian()

    def gradient(scale):
        def total(start):
            x = conjugate_gradients(lambda x: jnp.einsum("bij,bj->bi", matrix, x), 0 * b, start, iterations=4)
            return jnp.sum(jnp.real(x) * jnp.arange(6.0)[None])

        return jax.grad(total)(scale * b)

    np.testing.assert_allclose(gradient(scale), gradient(1.0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("damping", [0.1, 2.0])
def test_cgls_is_damped_least_squares(damping):
    matrix, y = dense(CT, (12, 10, 1)), jax.random.normal(KEY, (2, 9, 15, 1))
    found = jax.jit(lambda y: iterative.cgls(CT, y, 120, damping))(y)
    residuals = np.asarray(y, np.float64).reshape(2, -1)
    exact = np.linalg.solve(matrix.T @ matrix + damping * np.eye(120), matrix.T @ residuals.T).T.reshape(found.shape)
    np.testing.assert_allclose(found, exact, atol=2e-5)


def test_the_norm_is_the_largest_singular_value():
    exact = np.linalg.svd(dense(CT, (12, 10, 1)), compute_uv=False)[0]
    found = iterative.operator_norm(CT, jax.ShapeDtypeStruct((2, 12, 10, 1), jnp.float32))
    np.testing.assert_allclose(found, [exact, exact], rtol=1e-3)


def test_tv_of_an_identity_is_scikit_images_denoiser():
    noisy = HEAD + 0.1 * np.random.default_rng(0).normal(size=HEAD.shape).astype(np.float32)
    identity = Blur((jnp.ones((1, 1)),))
    found = jax.jit(lambda y: iterative.tv(identity, y, 0.1, iterations=600, nonnegative=False))(noisy[None])[0, ..., 0]
    expected = restoration.denoise_tv_chambolle(noisy[..., 0].astype(np.float64), weight=0.1, eps=1e-8, max_num_iter=3000)
    np.testing.assert_allclose(found, expected, atol=2e-3)


@pytest.mark.slow
def test_sparse_view_reconstructions_gain_in_order():
    A = Parallel((64, 64), 1.0, angles(24), 64, 1.0)
    y = A(HEAD[None])
    fbp = psnr(A.fbp(y)[0], HEAD)
    sirt = psnr(jax.jit(lambda y: iterative.sirt(A, y, 100))(y)[0], HEAD)
    tv = psnr(jax.jit(lambda y: iterative.tv(A, y, 0.03, 250))(y)[0], HEAD)
    assert fbp + 3 < sirt
    assert sirt + 8 < tv


@pytest.mark.slow
def test_mri_reconstructions_gain_in_order():
    mask = mri.poisson_disc((64, 64), 4.0, (10, 10))
    A = mri.Cartesian(mri.birdcage(4, (64, 64))[None], mask[None, None])
    truth = HEAD * np.asarray(mri.smooth_phase(KEY, (64, 64), 0.5))[..., None]
    y = A(jnp.asarray(truth[None]))
    zero_filled = psnr(A.init(y)[0], truth)
    sense = psnr(jax.jit(lambda y: iterative.cgls(A, y, 20, 1e-3))(y)[0], truth)
    sparse = psnr(jax.jit(lambda y: iterative.l1_wavelet(A, y, 2e-3, 60, 3))(y)[0], truth)
    assert zero_filled + 5 < sense
    assert sense + 2 < sparse


@pytest.mark.parametrize("name", ["haar", "db4"])
def test_one_wavelet_level_is_pywavelets(name):
    x = np.random.default_rng(0).normal(size=(16, 24)).astype(np.float32)
    low, (vertical, horizontal, diagonal) = pywt.dwt2(x, name, "periodization")
    found = wavelet.forward(jnp.asarray(x), (0, 1), 1, name)
    np.testing.assert_allclose(found, np.block([[low, horizontal], [vertical, diagonal]]), atol=1e-5)


def test_wavelets_are_orthonormal():
    x = jax.random.normal(KEY, (2, 16, 8, 24))
    coefficients = wavelet.forward(x, (1, 2, 3), 2, "sym3")
    assert float(jnp.sum(coefficients**2)) == pytest.approx(float(jnp.sum(x**2)), rel=1e-5)
    np.testing.assert_allclose(wavelet.inverse(coefficients, (1, 2, 3), 2, "sym3"), x, atol=1e-5)
    shrunk = wavelet.shrink(jnp.array([3 + 4j, 0.1j, 0]), 1.0)
    np.testing.assert_allclose(shrunk, [2.4 + 3.2j, 0, 0], atol=1e-6)


@pytest.mark.parametrize("name", ["nlm", "tv", "wavelet"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_denoisers_gain_with_a_known_and_an_estimated_noise(name, ndim):
    clean = HEAD if ndim == 2 else np.repeat(HEAD[None, ::2, ::2], 12, axis=0)
    noisy = clean + 0.1 * np.random.default_rng(0).normal(size=clean.shape).astype(np.float32)
    before = psnr(noisy, clean)
    method = getattr(denoise, name)
    for sigma in (None, 0.1):
        image = method(noisy, NoiseModel("gaussian", sigma))
        assert image.dtype == noisy.dtype
        assert psnr(image, clean) > before + 2
    assert denoise.noise_level(noisy) == pytest.approx(0.1, rel=0.15)
    flat = np.full_like(clean, 0.5)
    np.testing.assert_allclose(method(flat, NoiseModel("gaussian", 0.0)), flat, atol=1e-6)


@pytest.mark.parametrize("ndim", [2, 3])
def test_missing_pixels_are_interpolated(ndim):
    """A plane exactly, a quadratic nearly."""
    grid = np.stack(np.meshgrid(*(np.linspace(0, 1, n) for n in (3, 24, 20)[-ndim:]), indexing="ij"), -1)
    image = np.stack([grid[..., -1] + 0.5 * grid[..., -2], (grid**2).sum(-1)], -1).astype(np.float32)
    known = np.random.default_rng(0).random(image.shape[:-1]) < 0.5
    known[..., [0, 0, -1, -1], [0, -1, 0, -1]] = True
    filled = inpaint.clough_tocher(np.where(known[..., None], image, 7), known)
    np.testing.assert_array_equal(filled[known], image[known])
    np.testing.assert_allclose(filled[..., 0], image[..., 0], atol=1e-5)
    assert np.abs(filled[..., 1] - image[..., 1]).max() < 0.02


def test_pixels_beyond_all_known_ones_take_the_nearest():
    image = np.full((6, 6, 1), 7, np.float32)
    known = np.zeros((6, 6), bool)
    assert (inpaint.clough_tocher(image, known) == 7).all()  # nothing is known
    known[2, 1:4] = True
    image[2, 1:4, 0] = 1, 2, 3
    np.testing.assert_array_equal(inpaint.clough_tocher(image, known)[5, :, 0], [1, 1, 2, 3, 3, 3])


def test_colours_are_denoised_one_by_one():
    colour = np.random.default_rng(0).normal(size=(24, 24, 3)).astype(np.float32)
    noise = NoiseModel("gaussian", 0.2)
    np.testing.assert_array_equal(denoise.tv(colour, noise)[..., 1:2], denoise.tv(colour[..., 1:2], noise))


@pytest.mark.parametrize("name", ["bicubic", "lanczos", "spline"])
def test_interpolators_keep_places(name):
    x, y, z = np.meshgrid(np.arange(12.0), np.arange(10.0), np.arange(8.0), indexing="ij")
    ramp = (0.3 * x + 0.2 * y - 0.1 * z)[..., None].astype(np.float32)
    fine = getattr(interpolate, name)(ramp, (3, 2, 1))
    assert fine.shape == (36, 20, 8, 1)
    x, y, z = np.meshgrid((np.arange(36) - 1) / 3, (np.arange(20) - 0.5) / 2, np.arange(8.0), indexing="ij")
    expected = (0.3 * x + 0.2 * y - 0.1 * z)[..., None]
    np.testing.assert_allclose(fine[12:-12, 8:-8], expected[12:-12, 8:-8], atol=0.02 if name == "lanczos" else 1e-3)


def test_bicubic_is_the_operators_own_interpolation():
    coarse = np.random.default_rng(0).normal(size=(12, 10, 1)).astype(np.float32)
    ours = Decimate((2, 3)).init(jnp.asarray(coarse[None]))[0]
    np.testing.assert_allclose(interpolate.bicubic(coarse, (2, 3))[6:-6, 9:-9], ours[6:-6, 9:-9], atol=1e-5)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: interpolate.bicubic(HEAD, (2, 2, 2)), "one factor per axis"),
    (lambda: wavelet.forward(jnp.ones((12, 12)), (0, 1), 3), "multiples of 8, not 12"),
    (lambda: wavelet.forward(jnp.ones((12, 12)), (0, 1), 1, "bior2.2"), "no orthogonal wavelet"),
])
def test_mistakes_are_named(make, message):
    with pytest.raises(UserError, match=message):
        make()
