"""Measured k-space in files through the task, and what is refused of it."""

import importlib
import json
from dataclasses import replace

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.data.pipeline import eval_batches, train_stream
from medjax.data.sources.kspace import Kspace
from medjax.evaluation.run import evaluate_run
from medjax.physics.mri import Cartesian, birdcage
from medjax.tasks.mri_recon import MriRecon
from medjax.train.loop import train
from medjax.train.run import load_splits, resolve
from medjax.types import Prediction, Region, UserError
from tests.test_recon import KEY, batch, squares


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A fastMRI file and its twin as an array: four slices of fully sampled k-space of three coils."""
    folder = tmp_path_factory.mktemp("kspace")
    A = Cartesian(birdcage(3, (24, 20))[None], jnp.ones((1, 1, 24, 20)))
    kspace = np.array(A(jax.lax.complex(jnp.asarray(squares(4, 24)[:, :, :20]), jnp.zeros((4, 24, 20, 1)))))
    with h5py.File(folder / "file1.h5", "w") as file:
        file["kspace"] = 5e-4 * kspace
        file["ismrmrd_header"] = "<xml/>"
    np.save(folder / "file2.npy", kspace)
    return folder


def test_fastmri_files_and_arrays_are_the_same_data(raw):
    first, second = Kspace(str(raw)).load()
    assert first.image.shape == (4, 24, 20, 1)
    assert first.extras["kspace"].shape == (4, 24, 20, 6)
    np.testing.assert_allclose(first.image, second.image, atol=1e-6)
    np.testing.assert_allclose(first.extras["kspace"], second.extras["kspace"], atol=1e-5)
    expected = squares(4, 24)[:, :, :20]
    np.testing.assert_allclose(second.image, expected / expected.max(), atol=1e-5)  # the maps' squares sum to 1


def test_measured_k_space_goes_through_the_task(raw):
    record = Kspace(str(raw / "file1.h5")).load()[0]
    images = batch(record.image) | {"kspace": jnp.asarray(record.extras["kspace"])}
    whole = jax.jit(MriRecon((0.0, 1.0), 2, acceleration=1.0, centre=0.5).example)(KEY, images)
    np.testing.assert_allclose(whole.input.image, whole.target, atol=1e-5)
    magnitude = np.hypot(*np.moveaxis(np.asarray(whole.target), -1, 0))[..., None]
    tissue = record.image > 0.3
    np.testing.assert_allclose(magnitude[tissue], record.image[tissue], atol=0.1)
    part = jax.jit(MriRecon((0.0, 1.0), 2, acceleration=4.0).example)(KEY, images)
    assert 0.15 < float((jnp.abs(part.input.context.y[:, 0]) > 0).mean()) < 0.4


def test_what_is_compared_with_is_no_method_beside_others():
    """Without samples taken away the zero-filled image is the target."""
    assert set(MriRecon((0.0, 1.0), 2, acceleration=1.0).references()) == {"cg-sense", "l1-wavelet"}
    assert set(MriRecon((0.0, 1.0), 2).references()) == {"input", "cg-sense", "l1-wavelet"}


@pytest.mark.parametrize(("name", "content", "problem"), [
    ("flat.npy", np.ones((4, 4), complex), "shape"), ("real.npy", np.ones((2, 4, 4)), "complex"),
    ("zero.npy", np.zeros((2, 4, 4), complex), "zeros"), ("text.h5", b"no file", "damaged"),
    ("empty.h5", None, "no data set"),
])
def test_files_that_hold_no_k_space_are_one_line(tmp_path, name, content, problem):
    file = tmp_path / name
    if isinstance(content, np.ndarray):
        np.save(file, content)
    elif content is None:
        h5py.File(file, "w").close()
    else:
        file.write_bytes(content)
    with pytest.raises(UserError, match=rf"{name}.*{problem}") as error:
        Kspace(str(file)).load()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("patch", "multiple"), [((8, 8), 1), ((), 16)])
def test_k_space_is_not_cut_or_padded(raw, patch, multiple):
    """Neither by patches, nor so that it divides over devices, nor beside files of another matrix size."""
    regions = [Region.whole(record) for record in Kspace(str(raw / "file2.npy")).load()]
    with pytest.raises(UserError, match=r"file2.*: k-space of \(24, 20\) can't be cut or padded to"):
        train_stream(regions, batch_size=2, patch=patch, seed=0, multiple_of=multiple)
    with pytest.raises(UserError, match="can't be cut or padded to"):
        eval_batches(regions, batch_size=1, multiple_of=16)
    record = regions[0].record
    narrow = replace(record, id="narrow", image=record.image[:, :, :12], extras={
        name: value[:, :, :12] if value.ndim > 2 else value for name, value in record.extras.items()})
    with pytest.raises(UserError, match=r"narrow.*k-space of \(24, 12\) can't be cut or padded to \(24, 20\)"):
        eval_batches([*regions, Region.whole(narrow)], batch_size=1)


def test_a_slice_of_k_space_is_not_cut(raw):
    np.save(raw.parent / "one.npy", np.load(raw / "file2.npy")[0])
    config = importlib.import_module("configs.mri_recon").get_config("source=kspace,objective=ssdu")
    config.data.source.path = str(raw.parent / "one.npy")
    with pytest.raises(UserError, match=r"^config\.data\.fractions: "):
        resolve(config, load_splits(config))


def test_what_is_held_out_is_not_seen_and_judges_an_image(raw):
    """The residual of the true image is 0, that of nothing 1; what a network gets has none of the held-out samples."""
    record = Kspace(str(raw / "file2.npy")).load()[0]
    images = batch(record.image) | {"kspace": jnp.asarray(record.extras["kspace"])}
    whole = MriRecon((0.0, 1.0), 2, acceleration=1.0, centre=0.5)
    task = replace(whole, held_out=0.2)
    example = jax.jit(task.evaluation_example)(KEY, images)
    seen, held = np.abs(example.input.context.y), np.abs(example.extras["held_out"])
    assert not (seen * held).any()
    assert 0.15 < (held[:, 0] > 0).mean() < 0.25
    np.testing.assert_allclose(seen + held, np.abs(whole.evaluation_example(KEY, images).input.context.y), atol=1e-6)
    truth = task.evaluation_example(KEY, images).target
    for image, expected in ((truth, 0.0), (jnp.zeros_like(truth), 1.0)):
        found = task.measure(Prediction(image), example)
        assert found.keys() == {"held_out"} == {metric.name for metric in task.metrics}
        np.testing.assert_allclose(found["held_out"], expected, atol=0.15)
    again = jax.tree.map(lambda x: x[1:3], images)
    np.testing.assert_array_equal(task.evaluation_example(KEY, again).extras["held_out"], example.extras["held_out"][1:3])


def test_undersampled_k_space_is_learned_and_judged_without_truth(raw, tmp_path):
    """Through the config: the table has the residual alone, the input's above that of CG-SENSE."""
    kspace = np.load(raw / "file2.npy")
    kspace[..., [1, 4, 7, 15, 17, 18]] = 0
    for number in range(3):
        np.save(tmp_path / f"p{number}.npy", kspace)
    config = importlib.import_module("configs.mri_recon").get_config("source=kspace,objective=ssdu")
    config.data.source.path, config.steps, config.batch_size, config.eval_every = str(tmp_path), 2, 8, 2
    config.model.update(iterations=1, width=4)
    config.references = ("cg-sense",)
    train(config, tmp_path / "run")
    evaluate_run(tmp_path / "run")
    rows = json.loads((tmp_path / "run" / "eval" / "metrics.json").read_text())["rows"]
    assert all(row.keys() == {"held_out"} for row in rows.values())
    assert 0 < rows["cg-sense"]["held_out"] < rows["input"]["held_out"]
