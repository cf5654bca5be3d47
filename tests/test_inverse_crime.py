"""What simulates a measurement differs from what inverts it, and still measures the same object."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.ops.fft import ifft
from medjax.ops.window import WATER_PER_MM
from medjax.physics.analytic import Ellipsoids, shepp_logan
from medjax.physics.mri import birdcage, ring_covariance
from medjax.physics.noise import CoilNoise
from medjax.tasks.ct_recon import CtRecon
from medjax.tasks.mri_recon import MriRecon
from tests.test_recon import HU, KEY, batch, squares

SCANNERS = [("parallel", (64, 64)), ("parallel", (48, 61)), ("fan", (47, 72))]
TOP = 2 * WATER_PER_MM  # of the range, per mm


def sinogram(task: CtRecon, unit: np.ndarray, pixel_mm: float = 1.0) -> np.ndarray:
    """Line integrals `(B, views, detectors)` of images in unit range."""
    images = batch(unit, HU, pixel_mm)
    return np.asarray(jax.jit(lambda images: task.simulate(KEY, images, task.clean(images)[0]))(images)["sinogram"][..., 0])


def blob(shape: tuple[int, int], row: float, column: float, width: float = 4.0) -> np.ndarray:
    """A smooth spot `(1, H, W, 1)` at a place in pixels from the middle."""
    i, j = (np.arange(n) - (n - 1) / 2 for n in shape)
    return np.exp(-0.5 * ((i[:, None] - row) ** 2 + (j - column) ** 2) / width**2).astype(np.float32)[None, ..., None]


@pytest.mark.parametrize(("beam", "shape"), SCANNERS)
def test_elements_read_the_mean_intensity_of_the_exact_line_integrals(beam, shape):
    """Nearer to the analytic sinogram of two ellipses than the operator that inverts, which takes the ray in the middle."""
    pixel, parts = 3.0, 16
    ellipses = Ellipsoids(pixel * np.array([[6.0, -4.0], [8.0, -3.0]]), pixel * np.array([[15.0, 9.0], [4.0, 6.0]]),
                          np.array([0.4, 1.0]), np.array([TOP, -TOP / 2]))
    error = {}
    for oversampling in (1, 2, 3):
        task = CtRecon(HU, 2, views=30, beam=beam, oversampling=oversampling)
        found = sinogram(task, ellipses.image(shape, (pixel, pixel), 8)[None] / TOP, pixel)[0]
        scan = task.operator(shape).geometry
        rays = replace(scan, detectors=scan.detectors * parts, detector_mm=scan.detector_mm / parts).rays()
        exact = ellipses.line_integrals(pixel * rays[0], rays[1]).reshape(30, scan.detectors, parts)
        exact = -np.log(np.exp(-exact).mean(-1))
        error[oversampling] = np.linalg.norm(found - exact) / np.linalg.norm(exact)
    assert error[1] < 0.03
    assert error[2] < error[1]
    assert error[3] < error[2]


@pytest.mark.parametrize(("beam", "shape"), SCANNERS)
def test_a_finer_simulation_shifts_nothing(beam, shape):
    """Half a fine pixel would be 0.25 pixels."""
    spot = blob(shape, -7.0, 9.5)
    for oversampling in (1, 2, 3):
        task = CtRecon(HU, 2, views=180, span=360.0, beam=beam, oversampling=oversampling)
        image = np.asarray(jax.jit(task.example)(KEY, batch(spot, HU)).input.image)[0, ..., 0]
        i, j = np.nonzero(spot[0, ..., 0] > 1e-3)
        weights = image[i, j] / image[i, j].sum()
        place = [(weights * (at - (n - 1) / 2)).sum() for at, n in zip((i, j), shape, strict=True)]
        np.testing.assert_allclose(place, (-7.0, 9.5), atol=0.01)


@pytest.mark.parametrize(("beam", "shape"), SCANNERS)
def test_a_sinogram_is_not_what_the_inverting_operator_gives(beam, shape):
    """With `oversampling=1` it is; of a smooth image the two agree, of one with edges they do not."""
    sharp = np.zeros((1, *shape, 1), np.float32)
    sharp[:, 12:-14, 15:-11], sharp[:, 20:23, 20:31] = 0.5, 0.9
    for unit, least, most in ((blob(shape, -7.0, 9.5), 1e-5, 3e-3), (sharp, 2e-3, 3e-2)):
        difference = {}
        for oversampling in (1, 2):
            task = CtRecon(HU, 2, views=30, beam=beam, oversampling=oversampling)
            given = jax.jit(task.example)(KEY, batch(unit, HU, 3.0)).input.context
            inverting = np.asarray(given.operator(jnp.asarray(unit)))
            difference[oversampling] = np.linalg.norm(given.y - inverting) / np.linalg.norm(inverting)
        assert difference[1] < 1e-6
        assert least < difference[2] < most


def test_measured_sinograms_are_as_they_were_measured():
    measured = np.random.default_rng(0).random((2, 30, 24, 1), np.float32)
    task = CtRecon(HU, 2, views=30)
    images = batch(squares(2, 16), HU) | {"sinogram": jnp.asarray(measured)}
    context = task.input(images).context
    np.testing.assert_allclose(context.y * context.operator.norm * TOP, measured, rtol=1e-5)


HEAD = np.maximum(shepp_logan(60.0).image((128, 112), (1.0, 1.0)), 0)[None]


def test_sensitivities_are_estimated_from_what_was_measured():
    """Not those that simulated, but like them in the object, up to the first coil's phase."""
    coils = 6
    example = jax.jit(MriRecon((0.0, 1.0), 2, coils=coils).example)(KEY, batch(HEAD))
    found = np.asarray(example.input.context.operator.operator.maps[0])
    truth = np.asarray(birdcage(coils, HEAD.shape[1:-1]))
    truth = truth * np.conj(truth[:1]) / np.abs(truth[:1])
    inside = HEAD[0, ..., 0] > 0.1
    error = np.linalg.norm((found - truth)[:, inside]) / np.linalg.norm(truth[:, inside])
    assert 1e-3 < error < 0.08
    assert np.abs(np.angle(found[0]))[inside].max() < 1e-3


@pytest.mark.parametrize("acceleration", [1.0, 4.0])
def test_a_target_is_the_clean_image_with_the_phase_that_the_sensitivities_combine(acceleration):
    """So that a method which inverts what was measured finds it: of all of k-space without noise, the adjoint does."""
    task = MriRecon((0.0, 1.0), 2, acceleration=acceleration, sigma=0.0)
    example = jax.jit(task.example)(KEY, batch(HEAD))
    target = np.asarray(example.target)
    np.testing.assert_allclose(np.hypot(target[..., 0], target[..., 1]), HEAD[..., 0], atol=1e-6)
    if acceleration == 1:
        inside = HEAD[..., 0] > 0.1
        np.testing.assert_allclose(np.asarray(example.input.image)[inside], target[inside], atol=0.03)


def test_coils_have_the_noise_that_is_stated():
    """Through the task, of an image of nothing; its covariance matrix, and that real and imaginary part are independent."""
    coils, sigma, correlation = 5, 0.02, 0.4
    task = MriRecon((0.0, 1.0), 2, acceleration=1.0, coils=coils, sigma=sigma, coil_correlation=correlation)
    nothing = np.zeros((16, 64, 64, 1), np.float32)
    y = np.asarray(jax.jit(task.example)(KEY, batch(nothing)).input.context.y)
    for noise in (y, np.asarray(ifft(jnp.asarray(y), 2))):
        samples = np.moveaxis(noise, 1, 0).reshape(coils, -1)
        parts = np.concatenate([samples.real, samples.imag]) / sigma
        expected = np.kron(np.eye(2), [[correlation ** min(abs(a - b), coils - abs(a - b)) for b in range(coils)]
                                       for a in range(coils)])
        np.testing.assert_allclose(parts @ parts.T / parts.shape[1], expected, atol=0.02)  # 65536 samples: 5 deviations


@pytest.mark.parametrize("coils", [1, 2, 3, 8, 33])
def test_the_noise_of_any_number_of_coils_has_a_covariance(coils):
    for correlation in (0.0, 0.1, 0.9):
        covariance = ring_covariance(coils, correlation)
        assert np.linalg.eigvalsh(covariance).min() > 0
        np.testing.assert_array_equal(np.diag(covariance), 1)
    independent = CoilNoise(0.1, jnp.eye(coils))(KEY, jnp.zeros((coils, 3, 2), complex))
    assert independent.shape == (coils, 3, 2)
