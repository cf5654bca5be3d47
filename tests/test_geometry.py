"""Millimetres come from the file: another voxel size in its header changes CT and every length accordingly."""

import jax
import jax.numpy as jnp
import nibabel
import numpy as np
import pytest

from medjax.data import io
from medjax.data.pipeline import whole_batch
from medjax.tasks.ct_recon import CtRecon
from medjax.tasks.register import Register
from medjax.tasks.segment import Segment
from medjax.types import Prediction

KEY = jax.random.key(0)


def batch(tmp_path, size_mm: float, values: np.ndarray, **extras) -> dict:
    """A slice from a file with voxels of this size, as the pipeline hands it out, with its labels."""
    path = tmp_path / str(size_mm) / "scan.nii.gz"  # of one name, from which random numbers are drawn
    path.parent.mkdir()
    nibabel.Nifti1Image(values, np.diag([size_mm, size_mm, 5.0, 1.0])).to_filename(path)
    (record,) = io.read(path)
    return {name: jnp.asarray(array) for name, array in whole_batch(record, 2).items()} | extras


def test_attenuation_follows_the_pixels_of_the_file(tmp_path):
    """Twice the pixel is twice the way through water; the image stays, whatever the unit of length.

    Of a ray to each element: the mean of intensities over its width is no longer proportional to the way.
    """
    disc = np.float32(np.hypot(*np.indices((40, 40)) - 19.5) < 12)
    task = CtRecon((-1000.0, 1000.0), 2, views=90, oversampling=1)
    found = {}
    for size in (0.5, 1.0):
        one = batch(tmp_path, size, (disc * 1000 - 1000)[..., None])
        clean, _ = task.clean(one)
        simulated = task.simulate(KEY, one, clean)
        found[size] = np.asarray(simulated["sinogram"]), np.asarray(task.input(simulated).image)
    np.testing.assert_allclose(found[1.0][0], 2 * found[0.5][0], rtol=1e-5, atol=1e-6)
    middle = found[1.0][0][0, 0, :, 0].max()
    assert middle == pytest.approx(0.0192 * 24, rel=0.03)  # of 24 mm of water
    np.testing.assert_allclose(found[1.0][1], found[0.5][1], atol=1e-4)


def test_noise_of_a_low_dose_follows_the_pixels_of_the_file(tmp_path):
    """Larger pixels of water absorb more, so fewer photons arrive and the image is noisier."""
    disc = np.float32(np.hypot(*np.indices((40, 40)) - 19.5) < 12)
    task = CtRecon((-1000.0, 1000.0), 2, views=90, photons=1e4)
    noise = []
    for size in (1.0, 8.0):
        one = batch(tmp_path, size, (disc * 1000 - 1000)[..., None])
        example = task.example(KEY, one)
        error = np.asarray(example.input.image - example.target)[0, 14:26, 14:26, 0]
        noise.append(error.std() * size)  # in units of attenuation
    assert noise[1] > 1.5 * noise[0]


def test_errors_of_a_registration_are_in_the_files_millimetres(tmp_path):
    values = np.random.default_rng(0).uniform(0, 1, (24, 20)).astype(np.float32)
    errors = []
    for size in (0.5, 1.5):
        one = batch(tmp_path, size, values[..., None])
        task = Register((0.0, 1.0), 2, contrasts=("0",), period=8)
        example = task.evaluation_example(KEY, one)
        measured = task.measure(Prediction(jnp.zeros_like(example.target)), example)
        errors.append(float(measured["registration_error"][0]))
    assert errors[1] == pytest.approx(3 * errors[0], rel=1e-5)


def test_distances_of_a_segmentation_are_in_the_files_millimetres(tmp_path):
    values = np.random.default_rng(0).uniform(0, 1, (24, 20)).astype(np.float32)
    label = np.zeros((1, 20, 24, 1), np.uint8)
    label[:, 5:12, 5:12] = 1
    score = jnp.asarray(np.stack([label[..., 0] == 0, np.roll(label[..., 0], 3, 1) == 1], -1), jnp.float32)
    found = []
    for size in (0.5, 1.5):
        one = batch(tmp_path, size, values[..., None], label=jnp.asarray(label))
        task = Segment((0.0, 1.0), 2, classes=("background", "organ"))
        example = task.evaluation_example(KEY, one)
        measured = task.measure(Prediction(score), example)
        found.append(task.summarise([{name: np.asarray(v)[0].tolist() for name, v in measured.items()}]))
    lengths = [metric.name for metric in task.metrics if "length" in metric.unit]
    assert lengths
    for name in lengths:
        assert found[1][name] == pytest.approx(3 * found[0][name], rel=1e-5), name
        assert found[0][name] > 0
