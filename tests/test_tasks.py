"""Tasks: what they do to an image, in which units, and that a sample is always degraded alike."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from medjax.tasks.denoise import NOISES, Denoise
from medjax.tasks.superres import SuperRes
from medjax.types import Example, NetworkInput, Prediction, UserError

KEY = jax.random.key(0)


def batch(image, ids=None, **changes):
    image = jnp.asarray(image)
    n = image.shape[0]
    ids = range(n) if ids is None else ids
    return {"image": image, "slope": jnp.ones(n), "intercept": jnp.zeros(n), "count": jnp.ones(n),
            "id": jnp.asarray(list(ids), jnp.uint32)} | changes


def flat(value, n=1, size=200) -> np.ndarray:
    return np.full((n, size, size, 1), value, np.float32)


def example_of(task, batch, key=KEY):
    return jax.jit(task.example)(key, batch)


def degrade(task, value, **kwargs) -> np.ndarray:
    return np.asarray(example_of(task, batch(flat(value, **kwargs))).input.image)


def magnitudes(value, spread) -> np.ndarray:
    """Many draws of |value + complex noise|."""
    real, imaginary = np.random.default_rng(0).normal(scale=spread, size=(2, 500_000))
    return np.abs(value + real + 1j * imaginary)


@pytest.mark.parametrize("strength", [0.02, 0.1])
@pytest.mark.parametrize(("noise", "value", "mean", "spread"), [
    ("gaussian", 0.5, lambda s: 0.5, lambda s: s),
    ("rician", 0.8, lambda s: magnitudes(0.8, s).mean(), lambda s: magnitudes(0.8, s).std()),
    ("rician", 0.0, lambda s: s * np.sqrt(np.pi / 2), lambda s: s * np.sqrt(2 - np.pi / 2)),
    ("poisson_gaussian", 1.0, lambda s: 1.0, lambda s: s * np.sqrt(1 + 0.2**2)),
    ("poisson_gaussian", 0.25, lambda s: 0.25, lambda s: s * np.sqrt(0.25 + 0.2**2)),
    ("speckle", 0.5, lambda s: None, lambda s: 0.5 * s / np.sqrt(2)),
])
def test_noise_is_as_strong_as_asked(noise, value, mean, spread, strength):
    noisy = degrade(Denoise((0.0, 1.0), 2, noise, (strength, strength)), value)
    np.testing.assert_allclose(noisy.std(), spread(strength), rtol=0.03)
    if mean(strength) is not None:
        np.testing.assert_allclose(noisy.mean(), mean(strength), atol=0.03 * strength)


def test_speckle_keeps_the_power():
    noisy = degrade(Denoise((0.0, 1.0), 2, "speckle", (0.6, 0.6)), 0.5)
    np.testing.assert_allclose(np.square(noisy).mean(), 0.25, rtol=0.02)


def test_salt_and_pepper_strikes_the_asked_fraction():
    noisy = degrade(Denoise((0.0, 1.0), 2, "salt_pepper", (0.1, 0.1)), 0.5)
    np.testing.assert_allclose([(noisy == v).mean() for v in (0, 0.5, 1)], [0.05, 0.9, 0.05], atol=0.006)


def test_strength_is_drawn_for_each_sample_between_the_bounds():
    noisy = degrade(Denoise((0.0, 1.0), 2, "gaussian", (0.02, 0.2)), 0.5, n=32, size=64)
    spreads = noisy.std((1, 2, 3))
    assert spreads.min() > 0.018
    assert spreads.max() < 0.21
    assert np.ptp(spreads) > 0.1


def test_strength_is_a_fraction_of_the_data_range():
    narrow = degrade(Denoise((0.0, 1.0), 2, "gaussian", (0.05, 0.05)), 0.5)
    task = Denoise((-1000.0, 3000.0), 2, "gaussian", (0.05, 0.05))
    np.testing.assert_allclose(degrade(task, 1000.0), narrow, atol=1e-5)


@pytest.mark.parametrize("noise", NOISES)
def test_a_sample_has_its_noise_wherever_it_is_in_whatever_batch(noise):
    task = Denoise((0.0, 1.0), 2, noise)
    images = np.random.default_rng(0).uniform(size=(4, 12, 12, 1)).astype(np.float32)
    example = jax.jit(task.example)
    together = example(KEY, batch(images, [7, 8, 2**32 - 1, 10])).input.image
    turned = example(KEY, batch(images[::-1], [10, 2**32 - 1, 8, 7])).input.image
    np.testing.assert_array_equal(together, turned[::-1])
    alone = example(KEY, batch(images[2:3], [2**32 - 1])).input.image
    np.testing.assert_array_equal(together[2:3], alone)
    assert not np.array_equal(example(KEY, batch(images[:1], [1])).input.image, together[:1])
    assert not np.array_equal(example(jax.random.key(1), batch(images[2:3], [2**32 - 1])).input.image, alone)


@pytest.mark.parametrize("shape", [(2, 9, 7, 1), (2, 9, 7, 3), (1, 5, 6, 7, 1)])
def test_examples_are_in_unit_range_and_on_the_input_grid(shape):
    stored = np.random.default_rng(0).integers(0, 4096, shape).astype(np.int16)
    task = Denoise((-1024.0, 3071.0), len(shape) - 2)
    example = example_of(task, batch(stored, intercept=jnp.full(shape[0], -1024.0)))
    assert example.input.image.shape == example.target.shape == shape
    assert example.input.image.dtype == example.target.dtype == jnp.float32
    np.testing.assert_allclose(example.target, stored / 4095.0, atol=1e-6)


def test_each_sample_has_its_own_slope():
    example = example_of(Denoise((0.0, 10.0), 2), batch(flat(1, n=2, size=4), slope=jnp.array([2.0, 5.0])))
    np.testing.assert_allclose(example.target[:, 0, 0, 0], [0.2, 0.5], rtol=1e-6)


def test_the_mask_is_what_is_tissue_in_what_counts():
    tissue = np.zeros((2, 12, 12, 1), bool)
    tissue[:, 3:] = True
    example = example_of(Denoise((0.0, 1.0), 2), batch(flat(0.5, n=2, size=12), mask=tissue, count=jnp.array([1.0, 0.0])))
    np.testing.assert_array_equal(example.mask[0], tissue[0])
    assert not example.mask[1].any()
    everything = example_of(Denoise((0.0, 1.0), 2), batch(flat(0.5, size=12)))
    assert everything.mask.shape == (1, 12, 12, 1)
    assert everything.mask.all()


def test_metrics_are_in_physical_units():
    task = Denoise((-1000.0, 3000.0), 2, "gaussian")
    truth = np.random.default_rng(0).uniform(-1000, 3000, (2, 20, 20, 1)).astype(np.float32)
    example = example_of(task, batch(truth))
    found = task.measure(Prediction(example.input.image), example)
    noisy = np.float64(example.input.image) * 4000 - 1000
    expected = [peak_signal_noise_ratio(np.float64(t), p, data_range=4000) for t, p in zip(truth, noisy, strict=True)]
    np.testing.assert_allclose(found["psnr"], expected, atol=1e-3)
    np.testing.assert_allclose(found["mse"], np.square(noisy - truth).mean((1, 2, 3)), rtol=1e-3)
    assert {name: value.shape for name, value in found.items()} == dict.fromkeys(("psnr", "ssim", "nmse", "mse"), (2,))


def test_an_empty_slice_has_no_metric_and_counts_in_no_mean():
    task = Denoise((0.0, 1.0), 2)
    truth = np.stack([np.random.default_rng(0).random((20, 20, 1)), np.zeros((20, 20, 1))]).astype(np.float32)
    example = example_of(task, batch(truth))
    found = task.measure(Prediction(example.target), example)
    assert all(np.isfinite(values[0]) and np.isnan(values[1]) for values in found.values())
    rows = [{name: float(values[i]) for name, values in found.items()} for i in range(2)]
    assert task.summarise(rows) == pytest.approx(rows[0])


@pytest.mark.parametrize("shape", [(24, 20, 1), (24, 20, 3), (12, 14, 16, 1)])
def test_denoising_references_remove_noise(shape):
    """Gaussian noise, and the median salt and pepper."""
    random = np.random.default_rng(0)
    truth = np.zeros((1, *shape), np.float32)
    truth[:, 6:-3, 4:-4] = 0.7
    struck = random.uniform(size=(*truth.shape[:-1], 1))
    salted = np.where(struck < 0.05, 0, np.where(struck > 0.95, 1, truth)).astype(np.float32)
    for noise, noisy, names in (
            ("gaussian", truth + 0.08 * random.normal(size=truth.shape).astype(np.float32), ("nlm", "tv", "wavelet")),
            ("salt_pepper", salted, ("median",))):
        example = Example(NetworkInput(noisy), truth, np.ones((*truth.shape[:-1], 1), bool), np.zeros(1, np.uint32),
                          np.full((1, len(shape) - 1), np.nan))
        references = Denoise((0.0, 1.0), len(shape) - 1, noise, (0.08, 0.08)).references()
        assert set(references) == {"input", "nlm", "tv", "wavelet", "median"}
        np.testing.assert_array_equal(references["input"].run(example, 1.0), noisy)
        for name in names:
            cleaned = references[name].run(example, 1.0)
            assert cleaned.shape == truth.shape, name
            assert np.square(cleaned - truth).mean() < 0.7 * np.square(noisy - truth).mean(), name


@pytest.mark.parametrize(("changes", "key"), [
    ({"noise": "gausian"}, "noise"), ({"strength": (0.2, 0.1)}, "strength"), ({"strength": (0.0, 0.1)}, "strength"),
    ({"strength": (0.1,)}, "strength"),
])
def test_a_wrong_denoising_task_is_one_line(changes, key):
    with pytest.raises(UserError, match=rf"^config\.task\.{key}: [^\n]+$"):
        Denoise((0.0, 1.0), 2, **changes)


def ramp(*space) -> np.ndarray:
    """Each voxel its own position along every axis, so that a shift shows."""
    grid = np.stack(np.meshgrid(*(np.arange(n, dtype=np.float32) for n in space), indexing="ij"))
    return (grid * 10.0 ** -np.arange(len(space)).reshape(-1, *(1,) * len(space))).sum(0, dtype=np.float32)[None, ..., None]


@pytest.mark.parametrize("psf", ["gaussian", "box"])
@pytest.mark.parametrize(("space", "options", "coarse"), [
    ((24, 30), {"factor": 2}, (12, 15)), ((25, 31), {"factor": 3}, (8, 10)), ((26, 27), {"factor": 4}, (6, 6)),
    ((24, 26, 25), {"factor": 2}, (12, 13, 12)), ((27, 13, 12), {"factor": 3, "axes": "through_plane"}, (9, 13, 12)),
])
def test_superres_sizes_and_alignment(space, options, coarse, psf):
    """A coarse voxel of a ramp has the value at the middle of its block: no half-voxel shift."""
    task = SuperRes((0.0, 1.0), len(space), psf=psf, **options)
    image = ramp(*space)
    example = example_of(task, batch(image))
    fine = tuple(n * f for n, f in zip(coarse, task.scale, strict=True))
    coarse_image = example.input.image
    assert coarse_image.shape == (1, *coarse, 1)
    assert example.target.shape == example.mask.shape == task.on_target_grid(coarse_image).shape == (1, *fine, 1)
    np.testing.assert_array_equal(example.target, image[(slice(None), *(slice(n) for n in fine))])
    blocks = np.asarray(example.target)
    for axis, (n, f) in enumerate(zip(coarse, task.factors, strict=True), start=1):
        blocks = blocks.reshape(*blocks.shape[:axis], n, f, *blocks.shape[axis + 1:]).mean(axis + 1)
    inner = (slice(None), *(slice(2, -2) if f > 1 else slice(None) for f in task.factors))
    np.testing.assert_allclose(np.asarray(coarse_image)[inner], blocks[inner], atol=2e-3)


def test_superres_on_the_fine_grid_is_interpolated():
    task = SuperRes((0.0, 1.0), 2, factor=2, grid="fine")
    image = ramp(24, 20)
    example = example_of(task, batch(image))
    assert task.scale == (1, 1)
    assert example.input.image.shape == image.shape
    np.testing.assert_allclose(example.input.image[:, 6:-6, 6:-6], image[:, 6:-6, 6:-6], atol=2e-3)


def test_superres_noise_is_its_own_for_each_sample():
    quiet, noisy = (example_of(SuperRes((0.0, 1.0), 2, sigma=sigma), batch(flat(0.5, n=2))).input.image
                    for sigma in (0.0, 0.03))
    np.testing.assert_allclose(quiet, 0.5, atol=1e-5)
    np.testing.assert_allclose(np.std(noisy, axis=(1, 2, 3)), 0.03, rtol=0.03)
    assert not np.array_equal(noisy[0], noisy[1])


@pytest.mark.parametrize("options", [{"ndim": 2, "factor": 3}, {"ndim": 3, "factor": 2},
                                     {"ndim": 3, "factor": 2, "axes": "through_plane"}])
def test_interpolators_find_a_smooth_image_again(options):
    task = SuperRes((0.0, 1.0), psf="box", **options)
    space = (24,) * task.ndim
    smooth = 0.5 + 0.4 * np.prod([np.sin(axis / 5) for axis in np.meshgrid(*map(np.arange, space))], 0)[None, ..., None]
    example = example_of(task, batch(smooth.astype(np.float32)))
    references = task.references()
    repeated = np.abs(np.asarray(references["input"].run(example, 1.0) - example.target)).mean()
    for name in ("bicubic", "lanczos", "spline"):
        guess = references[name].run(example, 1.0)
        assert guess.shape == example.target.shape, name
        assert np.abs(np.asarray(guess - example.target)).mean() < 0.3 * repeated, name


@pytest.mark.parametrize(("changes", "key"), [
    ({"factor": 5}, "factor"), ({"axes": "depth"}, "axes"), ({"axes": "through_plane"}, "axes"),
    ({"grid": "middle"}, "grid"),
])
def test_a_wrong_superres_task_is_one_line(changes, key):
    with pytest.raises(UserError, match=rf"^config\.task\.{key}: [^\n]+$"):
        SuperRes((0.0, 1.0), 2, **changes)
