"""CT: operators element by element against rays traced one at a time in float64; reconstructions of known objects."""

import re
from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from medjax.ops.window import WATER_PER_MM, attenuation_to_hu, hu_to_attenuation, window
from medjax.physics import cone, ct, dose, fbp
from medjax.physics.analytic import Ellipsoids, shepp_logan
from medjax.physics.cone import Cone
from medjax.physics.ct import Fan, Parallel, angles
from medjax.types import Operator, UserError

KEY = jax.random.key(0)
GEOMETRIES = {
    "parallel": Parallel((14, 17), 0.7, angles(13, 180, 3), 25, 0.8, 0.13),
    "parallel, 45 degrees, wide detectors": Parallel((16, 16), 1.0, angles(8), 14, 1.5),
    "parallel, narrow detectors": Parallel((13, 12), (1.1, 0.7), angles(9), 40, 0.4),
    "flat fan": Fan((14, 17), 0.7, angles(13, 360, 3), 30, 1.0, 0.2, source_mm=30, detector_distance_mm=50),
    "curved fan": Fan((15, 12), (1.0, 0.8), angles(13, 220), 30, 1.0, source_mm=30, detector_distance_mm=50, curved=True),
    "cone": Cone((5, 9, 8), (1.1, 0.8, 0.9), angles(5, 360, 7), (6, 12), (1.3, 1.2), 20, 33, 0.2),
}


def ends(A):
    """Source-side point and direction of every ray, from the geometry's description alone, `(views, ..., 3)` x y z."""
    theta = np.asarray(A.angles).reshape(-1, 1, 1)
    across, along = (np.stack(np.broadcast_arrays(*v, 0.0), -1) for v in
                     ((np.cos(theta), np.sin(theta)), (-np.sin(theta), np.cos(theta))))
    rows, columns = A.detectors if isinstance(A, Cone) else (1, A.detectors)
    height, width = A.detector_mm if isinstance(A, Cone) else (1.0, A.detector_mm)
    u = ((np.arange(columns) - (columns - 1) / 2) * width + A.shift_mm)[None, None, :, None]
    v = ((np.arange(rows) - (rows - 1) / 2) * height)[None, :, None, None] * np.array([0.0, 0, 1])
    if isinstance(A, Parallel):
        return u * across - 100 * along, along + 0 * u
    source = -A.source_mm * along
    if getattr(A, "curved", False):
        turn = u / A.detector_distance_mm
        return source + 0 * u, np.sin(turn) * across + np.cos(turn) * along
    return source + 0 * u, A.detector_distance_mm * along + u * across + v


def hat(size, place):
    return np.maximum(0, 1 - np.abs(np.arange(size) - place))


@cache
def dense(name):
    """The matrix of the operator, by Joseph's rule, one ray at a time in float64."""
    A = GEOMETRIES[name]
    shape, spacing = (A.shape, A.voxel_mm) if isinstance(A, Cone) else ((1, *A.shape), (1, *A.spacing))
    (slices, rows, columns), (dz, dy, dx) = shape, spacing
    points, directions = (v.reshape(-1, 3) for v in np.broadcast_arrays(*ends(A)))
    matrix = np.zeros((len(points), slices, rows, columns))
    for ray, (p, e) in enumerate(zip(points, directions, strict=True)):
        e = e / np.linalg.norm(e)
        if abs(e[1]) / dy >= abs(e[0]) / dx * (1 - 1e-12):
            for i in range(rows):
                x, _, z = p + ((rows - 1) / 2 - i - p[1] / dy) * dy / e[1] * e
                weights = np.outer(hat(slices, z / dz + (slices - 1) / 2), hat(columns, x / dx + (columns - 1) / 2))
                matrix[ray, :, i] += weights * dy / abs(e[1])
        else:
            for j in range(columns):
                _, y, z = p + (j - (columns - 1) / 2 - p[0] / dx) * dx / e[0] * e
                weights = np.outer(hat(slices, z / dz + (slices - 1) / 2), hat(rows, (rows - 1) / 2 - y / dy))
                matrix[ray, :, :, j] += weights * dx / abs(e[0])
    return matrix.reshape(len(points), -1)


def shapes(A):
    detectors = A.detectors if isinstance(A, Cone) else (A.detectors,)
    return (*A.shape, 1), (len(A.angles), *detectors, 1)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_every_element_forward_and_adjoint(name):
    A, matrix = GEOMETRIES[name], dense(name)
    assert isinstance(A, Operator)
    image, sinogram = shapes(A)
    columns = jax.jit(A)(jnp.eye(matrix.shape[1]).reshape(-1, *image)).reshape(matrix.shape[::-1])
    np.testing.assert_allclose(columns.T, matrix, atol=2e-6 * matrix.max())
    rows = jax.jit(A.adjoint)(jnp.eye(len(matrix)).reshape(-1, *sinogram)).reshape(matrix.shape)
    np.testing.assert_allclose(rows, matrix, atol=2e-6 * matrix.max())


@pytest.mark.parametrize("name", ["parallel", "flat fan", "cone"])
def test_adjoint_is_what_jax_transposes_to(name):
    A = GEOMETRIES[name]
    image, sinogram = shapes(A)
    x, y = (jax.random.normal(KEY, (3, *s[:-1], 2)) for s in (image, sinogram))
    Ax, At_y = (np.asarray(v, np.float64) for v in (A(x), A.adjoint(y)))
    assert abs(np.vdot(Ax, y) - np.vdot(x, At_y)) < 1e-6 * np.linalg.norm(Ax) * np.linalg.norm(y)
    np.testing.assert_array_equal(jax.linear_transpose(A, x)(y)[0], At_y)
    np.testing.assert_array_equal(jax.linear_transpose(A.adjoint, y)(x)[0], Ax)


def test_derivatives_of_any_order_and_maps():
    A = GEOMETRIES["parallel"]
    x, t = jax.random.normal(KEY, (2, 2, *A.shape, 1))

    def loss(x):
        return jnp.sum(jnp.tanh(A(x)) ** 2)

    np.testing.assert_allclose(jax.jvp(A, (x,), (t,))[1], A(t), atol=1e-5)
    forward_over_reverse = jax.jvp(jax.grad(loss), (x,), (t,))[1]
    reverse_over_reverse = jax.grad(lambda x: jnp.vdot(jax.grad(loss)(x), t))(x)
    np.testing.assert_allclose(forward_over_reverse, reverse_over_reverse, atol=1e-5 * jnp.abs(forward_over_reverse).max())
    np.testing.assert_allclose(jax.vmap(A)(jnp.stack([x, t]))[1], A(t), atol=1e-5)
    np.testing.assert_allclose(jax.jit(jax.vmap(jax.grad(loss)))(x[:, None])[1, 0], jax.grad(loss)(x)[1], atol=1e-4)


@pytest.mark.parametrize("name", ["parallel", "flat fan", "cone"])
def test_a_sharded_batch_needs_no_communication(name):
    A = GEOMETRIES[name]
    image, sinogram = shapes(A)
    split = NamedSharding(Mesh(jax.devices(), "data"), PartitionSpec("data"))
    for fn, shape in ((A, image), (A.adjoint, sinogram), (A.fbp, sinogram)):
        v = jax.random.normal(KEY, (8, *shape))
        compiled = jax.jit(fn).lower(jax.device_put(v, split)).compile()
        assert not re.findall(r"all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter", compiled.as_text())
        expected = jax.jit(fn)(v)
        np.testing.assert_allclose(compiled(jax.device_put(v, split)), expected, atol=2e-6 * jnp.abs(expected).max())


def test_gradients_inside_shard_map():
    A, mesh = GEOMETRIES["parallel"], Mesh(jax.devices(), "data")
    x = jax.random.normal(KEY, (8, *A.shape, 1))
    weights = jnp.ones((1, *A.shape, 1))

    def loss(weights, x):
        return jnp.mean(A(x * weights) ** 2)

    sharded = jax.shard_map(jax.grad(lambda w, x: jax.lax.pmean(loss(w, x), "data")), mesh=mesh,
                            in_specs=(PartitionSpec(), PartitionSpec("data")), out_specs=PartitionSpec())
    expected = jax.grad(loss)(weights, x)
    np.testing.assert_allclose(jax.jit(sharded)(weights, x), expected, atol=1e-5 * jnp.abs(expected).max())


def test_memory_stays_within_the_bound():
    A = Parallel((512, 512), 1.0, angles(360), 512, 1.0)
    for fn, shape in ((A, (8, 512, 512, 1)), (A.adjoint, (8, 360, 512, 1))):
        compiled = jax.jit(fn).lower(jax.ShapeDtypeStruct(shape, jnp.float32)).compile()
        assert compiled.memory_analysis().temp_size_in_bytes <= 64e6


def test_line_integrals_of_a_head():
    """Finer pixels bring the sinogram of the rasterised phantom to the exact one."""
    phantom = shepp_logan(256.0)
    A = Parallel((512, 512), 1.0, angles(60), 512, 1.0)
    exact = phantom.line_integrals(*A.rays())
    sinogram = jax.jit(A)(phantom.image((512, 512), (1.0, 1.0))[None])[0, ..., 0]
    assert np.linalg.norm(sinogram - exact) < 7e-3 * np.linalg.norm(exact)


FULL, SHORT = angles(180, 360), angles(110, 220)
SCANS = {
    "parallel": (Parallel((128, 128), 1.0, angles(180), 128, 1.0), 30.5),
    "parallel twice round": (Parallel((128, 128), 1.0, FULL, 180, 0.7, 0.2), 34.5),
    "fan": (Fan((128, 128), 1.0, FULL, 210, 1.4, 0.3, source_mm=250, detector_distance_mm=450), 34),
    "curved fan": (Fan((128, 128), 1.0, FULL, 210, 1.4, 0.3, source_mm=250, detector_distance_mm=450, curved=True), 34),
    "short scan": (Fan((128, 128), 1.0, SHORT, 210, 1.4, 0.3, source_mm=250, detector_distance_mm=450), 30),
}


def psnr(image, truth):
    return 10 * np.log10(1 / np.mean((np.asarray(image) - truth) ** 2))


@pytest.mark.parametrize("name", SCANS)
def test_filtered_back_projection_of_exact_line_integrals(name):
    A, bar = SCANS[name]
    phantom = shepp_logan(64.0)
    truth = phantom.image((128, 128), (1.0, 1.0), 8)
    disc = np.hypot(*(np.mgrid[:128, :128] - 63.5))[..., None] < 63
    image = jax.jit(A.init)(jnp.asarray(phantom.line_integrals(*A.rays())[None, ..., None], jnp.float32))[0]
    assert psnr(image[disc], truth[disc]) > bar
    assert abs(float((image - truth)[disc].mean())) < 1e-3


def measured(A, phantom, per_element=4):
    """The sinogram `(1, views, detectors, 1)` of elements that average over their width."""
    fine = replace(A, detectors=A.detectors * per_element, detector_mm=A.detector_mm / per_element)
    rays = phantom.line_integrals(*fine.rays()).reshape(len(A.angles), A.detectors, per_element)
    return jnp.asarray(rays.mean(-1)[None, ..., None], jnp.float32)


WIDE = Fan((256, 256), 1.0, angles(360, 360), 449, 1.8, source_mm=500, detector_distance_mm=900)


@pytest.mark.parametrize("A", [Parallel((512, 512), 0.5, angles(720), 737, 0.5), WIDE, replace(WIDE, curved=True)],
                         ids=["parallel", "fan", "curved fan"])
def test_water_is_flat(A):
    """Within 2 HU of 0 everywhere in a disc of 200 mm but for the outer 5 pixels, where the edge is blurred."""
    water = Ellipsoids(np.zeros((1, 2)), np.full((1, 2), 100.0), np.zeros(1), np.full(1, WATER_PER_MM))
    hu = attenuation_to_hu(jax.jit(A.fbp)(measured(A, water))[0, ..., 0])
    size, pixel = A.shape[0], A.pixel_mm
    inside = pixel * np.hypot(*(np.mgrid[:size, :size] - (size - 1) / 2)) < 100 - 5 * pixel
    assert float(jnp.abs(hu[inside]).max()) < 2


@pytest.mark.parametrize("curved", [False, True])
def test_complete_spans_of_fan_beams(curved):
    """The source at twice the image's diagonal sees it under 2 asin(1/4) = 29 degrees."""
    A = Fan((128, 128), 1.0, (0.0,), 188, 2.0, source_mm=362, detector_distance_mm=724, curved=curved)
    assert A.complete_span == pytest.approx(209, abs=0.5)
    phantom = shepp_logan(64.0)
    truth, disc = phantom.image((128, 128), (1.0, 1.0), 8), np.hypot(*(np.mgrid[:128, :128] - 63.5))[..., None] < 63
    found = {}
    for span in (180.0, A.complete_span, 360.0):
        scan = replace(A, angles=angles(240, span))
        found[span] = psnr(jax.jit(scan.fbp)(measured(scan, phantom))[0][disc], truth[disc])
    assert abs(found[A.complete_span] - found[360.0]) < 0.5, found
    assert found[180.0] < found[360.0] - 3, found
    assert Parallel((128, 128), 1.0, (0.0,), 128, 1.0).complete_span == 180


@pytest.mark.parametrize("span", [150.0, 180.0, 209.0, 300.0, 360.0])
def test_the_weights_of_a_line_add_up_to_one(span):
    """A ray at angle a with fan angle g is met from its other end at a + 180 - 2 g, with fan angle -g."""
    A = Fan((128, 128), 1.0, angles(1440, span, 20), 101, 4.0, source_mm=362, detector_distance_mm=724)
    weights = np.broadcast_to(fbp.redundancy(A), (1440, 101))
    step = np.deg2rad(span) / 1440
    other = (np.asarray(A.angles)[:, None] + np.pi - 2 * A.fan_angles - A.angles[0]) % (2 * np.pi) / step
    twice = other <= 1439
    below = np.minimum(other.astype(int), 1438)
    share = other - below
    flipped = weights[:, ::-1]
    column = np.arange(101)[None]
    there = (1 - share) * flipped[below, column] + share * flipped[below + 1, column]
    edge = (other > 1439) & (other < 1440)  # between the last view and the first
    error = np.abs(weights + np.where(twice, there, 0) - 1)[~edge]
    assert error.mean() < 1e-4
    assert np.quantile(error, 0.999) < 1e-3  # a few lie where the weights rise within a view or two


def test_softer_filters_pass_less_noise():
    A = SCANS["parallel"][0]
    noise = jax.random.normal(KEY, (1, 180, 128, 1))
    deviations = [float(A.fbp(noise, name)[0, 32:96, 32:96].std()) for name in ("ramp", "shepp-logan", "cosine", "hann")]
    # Noise power is the integral over 0 ... 1/2 of the squared filter (f W(f))^2, times what the linear interpolation
    # between two elements leaves of it, the mean over its weight w of |1 - w + w exp(2 pi i f)|^2.
    f = np.linspace(0, 0.5, 1001)
    windows = (1 + 0 * f, np.sinc(f), np.cos(np.pi * f), 0.5 + 0.5 * np.cos(2 * np.pi * f))
    expected = [np.sqrt(np.trapezoid((f * w) ** 2 * (2 + np.cos(2 * np.pi * f)) / 3)) for w in windows]
    np.testing.assert_allclose(np.array(deviations) / deviations[0], np.array(expected) / expected[0], rtol=0.05)


def test_fdk_of_exact_line_integrals():
    A = Cone((32, 32, 32), 1.0, angles(90, 360), (56, 60), 1.5, 150, 250)
    phantom = shepp_logan(16.0, ndim=3)
    points, directions = (np.moveaxis(v, -1, 0) for v in np.broadcast_arrays(*ends(A)))
    projections = jnp.asarray(phantom.line_integrals(points, directions)[None, ..., None], jnp.float32)
    truth = phantom.image(A.shape, A.voxel_mm)
    volume = jax.jit(A.init)(projections)[0]
    assert psnr(volume[12:20], truth[12:20]) > 22
    assert abs(float((volume - truth)[12:20].mean())) < 3e-3


@pytest.mark.slow
def test_a_cone_beam_does_not_depend_on_its_chunks(monkeypatch):
    A = GEOMETRIES["cone"]
    x, y = (jax.random.normal(KEY, (1, *shape)) for shape in shapes(A))
    whole = A(x), A.adjoint(y), A.fbp(y)
    monkeypatch.setattr(cone, "_CHUNK", 600)
    for expected, found in zip(whole, (A(x), A.adjoint(y), A.fbp(y)), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6 * float(jnp.abs(expected).max()))


@pytest.mark.slow
def test_dose_sets_the_noise_of_the_image():
    A = Parallel((128, 128), 2.0, angles(180), 128, 2.0)
    disc = np.hypot(*(np.mgrid[:128, :128] - 63.5))[None, ..., None] < 50
    water = jnp.where(disc, 0.0, -1000.0)
    photons = dose.photons_for_noise(A, noise_hu=15.0)
    keys = jax.random.split(KEY, 4)

    def noise_of(model):
        images = jax.jit(partial(dose.add_noise, A))(model, keys, jnp.tile(water, (4, 1, 1, 1)))
        return float(images[:, 56:72, 56:72].std()), float(images[:, 56:72, 56:72].mean())

    for method in ("gaussian", "poisson"):
        deviation, mean = noise_of(dose.LowDose(photons, method=method))
        assert deviation == pytest.approx(15, rel=0.08)
        assert abs(mean) < 1
    assert noise_of(dose.LowDose(photons, dose=0.25))[0] == pytest.approx(30, rel=0.08)


def test_noise_on_top_of_a_measured_scan_makes_up_the_dose():
    y = jnp.full((400, 400, 1), 3.0)
    full = dose.LowDose(4e4, electronic=8.0)(KEY, y)
    quarter = dose.LowDose(4e4, 0.25, 8.0, measured=True)(jax.random.key(1), full)
    direct = dose.LowDose(4e4, 0.25, 8.0)(jax.random.key(2), y)
    assert float(quarter.std()) == pytest.approx(float(direct.std()), rel=0.02)
    slope = jax.grad(lambda d: jnp.var(dose.LowDose(4e4, d)(KEY, y)))(0.5)
    assert slope == pytest.approx(-np.exp(3) / 4e4 / 0.25, rel=0.1)


def test_hounsfield_units_and_windows():
    hu = jnp.array([-1000.0, 0.0, 40.0, 3000.0])
    np.testing.assert_allclose(attenuation_to_hu(hu_to_attenuation(hu)), hu, atol=1e-3)
    np.testing.assert_allclose(hu_to_attenuation(jnp.array([-2000.0, 0.0])), [0, 0.0192])
    np.testing.assert_allclose(window(hu, 40, 400), [0, 0.4, 0.5, 1])


@pytest.mark.parametrize(("make", "message"), [
    (lambda: GEOMETRIES["parallel"](jnp.ones((1, 14, 16, 1))), r"image \(14, 16\) where the geometry has \(14, 17\)"),
    (lambda: GEOMETRIES["flat fan"].adjoint(jnp.ones((1, 12, 30, 1))), r"\(13, 30\) \(views, detectors\)"),
    (lambda: GEOMETRIES["parallel"].fbp(jnp.ones((1, 13, 25, 1)), "hamming"), "choose from ramp, shepp-logan"),
    (lambda: replace(WIDE, shift_mm=100.0).fbp(jnp.ones((1, 360, 449, 1))), "reconstruct iteratively"),
    (lambda: Fan((100, 100), 1.0, angles(4), 10, 1.0, source_mm=50, detector_distance_mm=90), "outside the image"),
    (lambda: Parallel((8, 8), 1.0, (), 10, 1.0), "at least one"),
    (lambda: Cone((8, 8), 1.0, angles(4), (4, 4), 1.0, 40, 60), "3 positive numbers"),
    (lambda: ct.Parallel((8, 8), -1.0, angles(4), 10, 1.0), "positive sizes"),
    (lambda: dose.LowDose(1e4, method="exact"), "gaussian, poisson"),
])
def test_mistakes_are_named(unchecked, make, message):
    with pytest.raises(UserError, match=message):
        make()
