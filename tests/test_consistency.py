"""Whether images agree with what was measured: by hand, for the truth of every reconstruction, and in evaluation and use."""

import csv
import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.evaluation.consistency import consistency
from medjax.infer.consistency import Check, Limits, limits_of
from medjax.measures.consistency import residual
from medjax.physics.noise_level import kspace_noise, photons_of
from medjax.tasks.ct_recon import CtRecon
from medjax.tasks.deblur import Deblur
from medjax.tasks.denoise import Denoise
from medjax.tasks.inpaint import Inpaint
from medjax.tasks.mri_recon import MriRecon
from medjax.tasks.superres import SuperRes
from medjax.types import Prediction
from tests.commands import DRAWN, command

HU = (-1000.0, 1000.0)
TASKS = {
    "deblur": Deblur((0.0, 1.0), 2, size=(1.0, 1.0), sigma=0.02), "inpaint": Inpaint((0.0, 1.0), 2, sigma=0.02),
    "superres": SuperRes((0.0, 1.0), 2, sigma=0.02), "ct": CtRecon(HU, 2, views=40, photons=1e4),
    "mri": MriRecon((0.0, 1.0), 2, sigma=0.02),
}


def batch_of(task) -> dict:
    """A smooth body with a smooth structure in it, twice."""
    y, x = np.indices((64, 64)) - 32
    body = 0.5 * np.exp(-((x / 24.0) ** 6) - (y / 24.0) ** 6) + 0.2 * np.exp(-(np.square(x - 6) + np.square(y)) / 60)
    low, high = task.data_range
    return {"image": jnp.asarray(np.stack([body, body[::-1]])[..., None] * (high - low) + low), "slope": jnp.ones(2),
            "intercept": jnp.zeros(2), "count": jnp.ones(2), "id": jnp.arange(2, dtype=jnp.uint32),
            "spacing_mm": jnp.full((2, 2), 4.0)}


def test_a_residual_is_the_mean_square_by_hand():
    random = np.random.default_rng(0)
    y, made = (random.normal(0, 1, (3, 8, 5)).astype(np.float32) for _ in range(2))
    deviation = random.uniform(0.5, 2, (3, 8, 5)).astype(np.float32)
    by_hand = np.sqrt(np.square((made - y) / deviation).mean((1, 2)))
    np.testing.assert_allclose(residual(jnp.asarray(made), jnp.asarray(y), jnp.asarray(deviation)), by_hand, rtol=1e-5)
    without = np.sqrt(np.square(made - y).mean((1, 2)) / np.square(y).mean((1, 2)))
    np.testing.assert_allclose(residual(jnp.asarray(made), jnp.asarray(y), None), without, rtol=1e-5)
    # Noise of deviation 1 in real and imaginary part leaves 1; what was not sampled counts nothing.
    kspace = random.normal(0, 1, (2, 4, 40, 40)) + 1j * random.normal(0, 1, (2, 4, 40, 40))
    kspace[:, :, ::2] = 0
    found = residual(jnp.zeros(kspace.shape, jnp.complex64), jnp.asarray(kspace, jnp.complex64), jnp.asarray(1.0))
    np.testing.assert_allclose(found, 1, rtol=0.03)


def test_noise_is_estimated_from_measurements():
    random = np.random.default_rng(0)
    y, x = np.meshgrid(*[np.linspace(-1, 1, 128)] * 2, indexing="ij")
    image = np.exp(-3 * (y**2 + x**2)) * np.exp(1j * x)
    kspace = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image), norm="ortho"))
    for sigma in (0.003, 0.03):
        noisy = kspace + sigma * (random.normal(size=(3, 128, 128)) + 1j * random.normal(size=(3, 128, 128)))
        noisy[:, :, 1::3] = 0  # lines that were left out
        found = kspace_noise(jnp.asarray(noisy, jnp.complex64)[None])
        assert float(found[0]) == pytest.approx(sigma, rel=0.05)
    chords = 5 * np.sqrt(np.maximum(1 - np.linspace(-1.3, 1.3, 300) ** 2, 0))
    for photons in (1e4, 1e6):
        p = chords + np.exp(chords / 2) / np.sqrt(photons) * random.normal(size=(60, 300))
        assert float(photons_of(jnp.asarray(p, jnp.float32)[None, ..., None])[0]) == pytest.approx(photons, rel=0.15)


@pytest.mark.parametrize("name", ["deblur", *(pytest.param(name, marks=pytest.mark.slow) for name in TASKS
                                              if name != "deblur")])
def test_the_truth_leaves_noise_and_what_was_not_measured_leaves_more(name):
    task = replace(TASKS[name], measures=())
    y, x = np.indices((64, 64)) - 30
    lesion = 0.3 * np.exp(-(np.square(x) + np.square(y)) / 18).astype(np.float32)

    @jax.jit
    def measured(batch, added):
        example = task.example(jax.random.key(0), batch)
        image = example.target.at[..., 0].add(added)
        return task.measure(Prediction(image), example)

    found, invented = (measured(batch_of(task), jnp.asarray(added)[None]) for added in (0 * lesion, lesion))
    np.testing.assert_allclose(found["residual"], found["residual_truth"], rtol=1e-5)
    np.testing.assert_allclose(found["residual"], 1, atol=0.2)
    assert (invented["residual"] > (1.05 if name == "mri" else 1.2) * found["residual"]).all()  # a quarter is sampled
    np.testing.assert_allclose(invented["residual_truth"], found["residual_truth"], rtol=1e-5)


@pytest.mark.slow
def test_without_noise_residuals_are_parts_of_the_measurement():
    task = replace(TASKS["inpaint"], sigma=0.0, measures=())
    example = jax.jit(task.example)(jax.random.key(0), batch_of(task))
    found = task.measure(Prediction(1.1 * example.target), example)
    np.testing.assert_allclose(found["residual"], 0.1, rtol=1e-4)
    np.testing.assert_allclose(found["residual_truth"], 0, atol=1e-6)
    magnitudes = replace(TASKS["mri"], magnitudes=True)
    assert np.isnan(magnitudes.residuals(example.target, example.input, example.spacing_mm)).all()


def test_residuals_are_summed_up_over_patients():
    samples = [{row: {"residual": value + i, "residual_truth": 1.0 + i / 10, "psnr": 30.0} for row, value in (
        ("input", 0.0), ("model", 2.0))} for i in range(4)]
    found = consistency(TASKS["ct"], samples, ["a", "a", "b", "b"])
    assert found["unit"] == "noise"
    assert list(found["rows"]) == ["truth", "input", "model"]
    assert found["rows"]["model"]["mean"] == pytest.approx(3.5)
    assert found["rows"]["model"]["largest"] == pytest.approx(5)
    assert found["rows"]["truth"]["largest"] == pytest.approx(1.3)
    assert found["rows"]["model"]["low"] == pytest.approx(2.5)  # of patients: 2.5 and 4.5
    assert consistency(Denoise((0.0, 1.0), 2), samples, ["a"] * 4) is None


def test_a_warning_names_what_is_beyond_the_noise_and_what_is_usual():
    limits = Limits("noise", truth=1.1, usual=1.6)
    found = Check(np.array([1.0, 1.3, np.nan, 2.5]), limits)
    assert found.beyond.tolist() == [1, 3]
    said = found.warning("scan")
    assert said.startswith("scan: 2 of 4 images don't agree with the measurement: a residual of 2.5 times the noise")
    assert "at most 1.1; test images of this run have at most 1.6, so this is more than is usual of it" in said
    assert Check(np.array([1.05]), limits).warning("scan") == ""
    assert "so this is usual of it" in Check(np.array([1.2]), limits).warning("scan")
    assert Check(np.array([9.0]), Limits("noise")).warning("scan") == ""  # never evaluated
    exact = Check(np.array([0.2, 0.5]), Limits("measurement", truth=0.0, usual=0.3))
    assert exact.beyond.tolist() == [1]  # without noise nothing is explained by it


@pytest.mark.slow
def test_evaluation_and_use_say_how_an_image_agrees_with_its_measurement(tmp_path):
    """Of a network that has learnt next to nothing: its image is not what was blurred."""
    workdir = tmp_path / "run"
    words = [word.replace("quickstart.py", "deblur.py") for word in DRAWN if "references" not in word]
    code, said, err = command("train.py", *words, "--config.references=('tikhonov',)", "--config.task.size=(1.0,1.0)",
                              f"--workdir={workdir}")
    assert code == 0, err
    assert "agreement with the measurement" in said
    found = json.loads((workdir / "eval" / "metrics.json").read_text())["consistency"]
    assert found["unit"] == "noise"
    rows = found["rows"]
    assert rows["truth"]["mean"] == pytest.approx(1, abs=0.05)
    assert rows["model"]["mean"] > 2 * rows["truth"]["largest"]
    assert "Agreement with the measurement" in (workdir / "eval" / "report.html").read_text()
    with (workdir / "eval" / "per_sample.csv").open() as file:
        lines = [line for line in csv.DictReader(file) if line["row"] == "model"]
    assert max(float(line["residual"]) for line in lines) == pytest.approx(rows["model"]["largest"])
    image = np.full((40, 40), 300.0, np.float32)
    image[10:30, 10:30] = 700
    np.save(tmp_path / "scan.npy", image + np.random.default_rng(0).normal(0, 5, image.shape).astype(np.float32))
    code, said, err = command("-m", "medjax.apply", f"--workdir={workdir}", f"--input={tmp_path / 'scan.npy'}",
                              f"--output={tmp_path / 'sharp.npy'}", "--accept=values")
    assert code == 0, err
    assert "warning: scan: the image doesn't agree with the measurement" in err
    check = json.loads((tmp_path / "sharp_check.json").read_text())
    assert check["beyond"] == [0]
    assert check["residuals"][0] > check["limit_truth"] == rows["truth"]["largest"]
    assert str(tmp_path / "sharp_check.json") in said


def test_limits_are_those_of_the_evaluation(tmp_path):
    found = limits_of(TASKS["ct"], tmp_path)
    assert found.unit == "noise"
    assert np.isnan([found.truth, found.usual]).all()  # not evaluated
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "metrics.json").write_text(json.dumps({"consistency": {"rows": {
        "truth": {"largest": 1.2}, "model": {"largest": 1.9}}}}))
    assert limits_of(TASKS["ct"], tmp_path) == Limits("noise", 1.2, 1.9)
    assert limits_of(Denoise((0.0, 1.0), 2), tmp_path) is None
