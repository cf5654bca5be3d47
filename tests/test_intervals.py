"""Intervals of restorations: against data whose errors are known, and through the commands."""

import json
import re
from dataclasses import dataclass, replace
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import nibabel
import numpy as np
import pydicom
import pytest
from absl import flags
from absl.testing import flagsaver

from medjax import apply
from medjax.data.io import discover
from medjax.data.results import StudyDestination, Table
from medjax.evaluation.intervals import Collected, tissue
from medjax.evaluation.run import evaluate_run
from medjax.infer import inputs as reading
from medjax.infer import uncertainty
from medjax.measures.intervals import Calibration, Voxels, calibrate, check, numbers, sparsification
from medjax.models.dropout import dropout_in_use
from medjax.tasks.ct_recon import CtRecon
from medjax.tasks.denoise import Denoise
from medjax.tasks.segment import Segment
from medjax.tasks.series import Series
from medjax.train.evaluator import Evaluated
from medjax.train.loop import train
from medjax.train.run import Config, Run, load_config, restore_best
from medjax.types import Example, NetworkInput, Prediction, Record, Region, State, UserError
from tests.commands import DRAWN, ROOT, command
from tests.dicom_files import image as dicom_image
from tests.test_configs import inputs_of, tiny

TASK = Denoise((0.0, 200.0), 2)


def patients(count: int, seed: int, scale: float = 2.0, floor: float = 0.0, voxels: int = 4000) -> list[Voxels]:
    """Gaussian errors whose standard deviation is `scale * spread + floor`."""
    random = np.random.default_rng(seed)
    spreads = [random.lognormal(0, 0.5, voxels + 500 * i) for i in range(count)]
    return [Voxels(np.abs(random.normal(0, scale * spread + floor)), spread) for spread in spreads]


@pytest.mark.parametrize(("scale", "floor"), [(2.0, 0.0), (0.5, 3.0), (0.0, 1.5)])
def test_gaussian_errors_get_their_own_standard_deviation_and_its_normal_quantile(scale, floor):
    """For normal errors 90 % lie within 1.645 standard deviations; the tolerances are five standard errors."""
    known = patients(8, 0, scale, floor)
    found = calibrate(known)
    spread = np.linspace(0.3, 4, 20)
    np.testing.assert_allclose(found.std(spread), scale * spread + floor, rtol=0.05)
    assert found.quantile == pytest.approx(1.645, rel=0.02)
    checked = check(patients(8, 1, scale, floor), found)
    assert checked.coverage == pytest.approx(0.9, abs=0.01)
    assert checked.low < checked.coverage < checked.high
    if scale:
        assert checked.reliability.slope == pytest.approx(1, abs=0.05)
        assert checked.reliability.monotone or floor  # with a floor bins differ by less than their standard errors


def test_of_one_spread_the_interval_is_the_order_statistic_of_the_errors():
    error = np.random.default_rng(0).gamma(2.0, size=997)
    found = calibrate([Voxels(error, np.full(997, 0.7))])
    assert found.half_width(np.array([0.7]))[0] == pytest.approx(np.sort(error)[int(np.ceil(0.9 * 997)) - 1], rel=1e-9)
    checked = check([Voxels(error, np.full(997, 0.7))], found)
    assert np.isnan(checked.reliability.slope)
    assert numbers(checked, found)["slope"] is None
    assert checked.width == pytest.approx(2 * found.half_width(np.array([0.7]))[0])
    assert checked.sparsification.ause == pytest.approx(checked.sparsification.ause_random)


def test_every_patient_weighs_the_same_whatever_the_size():
    """By search over all widths: the least one inside which a patient has 90 % of the voxels on the average."""
    random = np.random.default_rng(3)
    errors = [scale * np.abs(random.normal(size=size)) for scale, size in ((1, 2000), (3, 50), (0.5, 300))]
    found = calibrate([Voxels(error, np.zeros(len(error))) for error in errors])
    widths = np.sort(np.concatenate(errors))
    coverage = np.mean([np.searchsorted(np.sort(error), widths, "right") / len(error) for error in errors], 0)
    assert found.half_width(np.zeros(1))[0] == pytest.approx(widths[np.argmax(coverage >= 0.9 - 1e-12)])


def test_a_patient_left_out_is_covered_as_guaranteed_in_the_worst_case():
    """Over all patients left out in turn that holds for any errors; here of patients as different as they can be."""
    random = np.random.default_rng(0)
    for rounds in range(20):
        errors = [np.abs(random.normal(size=40)) * 10.0 ** random.integers(0, 5) for _ in range(3 + rounds % 4)]
        everyone = [Voxels(error, np.zeros(40)) for error in errors]
        covered = []
        for i, one in enumerate(everyone):
            found = calibrate(everyone[:i] + everyone[i + 1:])
            covered.append(check([one], found).coverage)
        assert found.guaranteed == pytest.approx(0.9 * (len(errors) - 1) / len(errors))
        assert np.mean(covered) >= found.guaranteed - 1e-9


def test_sparsification_is_what_leaving_voxels_out_one_by_one_gives():
    random = np.random.default_rng(0)
    error = random.gamma(1.0, size=1000)
    std = error * random.lognormal(0, 0.5, 1000)
    found = sparsification(error, std, np.ones(1000))
    for by, curve in ((std, found.curve), (error, found.oracle)):
        kept = error[np.argsort(by)]
        expected = [np.sqrt(np.mean(kept[:round(1000 * (1 - share))] ** 2) / np.mean(error**2)) for share in found.share]
        np.testing.assert_allclose(curve, expected, rtol=1e-9)
    assert 0 < found.ause < found.ause_random
    assert sparsification(error, 3 * error, np.ones(1000)).ause == 0
    shuffled = sparsification(error, random.permutation(std), np.ones(1000))
    assert shuffled.ause == pytest.approx(shuffled.ause_random, rel=0.2)


@dataclass(frozen=True)
class Shaded:
    """What it makes depends on the place, by a ramp to the right, and on the member's gain; the context is a grid."""

    networks = {"model": "unet"}
    players = predictors = ("model",)
    batches = 1

    def init(self, key, example):
        raise NotImplementedError

    losses = init

    def predict(self, params, variables, given, keys):
        assert given.context.shape == (*given.image.shape[:-1], 0)
        ramp = jnp.linspace(0, 1, given.image.shape[2])[None, None, :, None]
        return Prediction(given.image * params["gain"] * (1 + ramp) + variables["shift"])


FLIPS = ((), (0,), (1,), (0, 1))


@pytest.mark.parametrize("flips", [FLIPS[:1], FLIPS])
@pytest.mark.parametrize("gains", [(1.0,), (1.0, 2.0, 4.0)])
def test_the_spread_is_that_of_every_member_on_every_flip(flips, gains):
    image = np.random.default_rng(0).random((2, 5, 7, 1), np.float32)
    params = {str(i): {"gain": jnp.float32(gain)} for i, gain in enumerate(gains)}
    variables = {str(i): {"shift": jnp.float32(i)} for i in range(len(gains))}
    spread = uncertainty.Spread(TASK, Shaded(), flips)
    given = NetworkInput(jnp.asarray(image), jnp.zeros((2, 5, 7, 0)))
    found = jax.jit(spread.predict)(params, variables, given, jnp.zeros(2))
    ramp = np.linspace(0, 1, 7, dtype=np.float32)[None, None, :, None]
    made = [image * gain * (1 + (ramp[:, :, ::-1] if 1 in axes else ramp)) + i
            for i, gain in enumerate(gains) for axes in flips]
    np.testing.assert_allclose(found.image, np.mean(made, 0), rtol=1e-5)
    expected = np.std(made, 0, ddof=1) if len(made) > 1 else np.zeros_like(image)
    np.testing.assert_allclose(found.std, expected, rtol=1e-4, atol=1e-6)


class Dropping(Shaded):
    """What it makes is its input, of which half is left out where dropout is in use."""

    def predict(self, params, variables, given, keys):
        return Prediction(params["gain"] * nn.Dropout(0.5, deterministic=True).apply({}, given.image))


def test_the_spread_is_that_of_draws_with_dropout_by_the_key_of_the_sample():
    image = jnp.asarray(np.random.default_rng(0).random((2, 5, 7, 1), np.float32))
    keys, params = jax.random.split(jax.random.key(3), 2), {"0": {"gain": jnp.float32(2)}}
    spread = uncertainty.Spread(TASK, Dropping(), FLIPS[:2], draws=5)
    found = jax.jit(spread.predict)(params, {"0": {}}, NetworkInput(image), keys)
    made = []
    for axes in FLIPS[:2]:
        for number in range(5):
            with dropout_in_use(jax.vmap(jax.random.fold_in, (0, None))(keys, number)):
                turned = nn.Dropout(0.5, deterministic=True).apply({}, jnp.flip(image, [a + 1 for a in axes]))
            made.append(2 * jnp.flip(turned, [a + 1 for a in axes]))
    np.testing.assert_allclose(found.image, np.mean(made, 0), rtol=1e-5)
    np.testing.assert_allclose(found.std, np.std(made, 0, ddof=1), rtol=1e-4)
    assert len({np.asarray(one).tobytes() for one in made}) == 10
    alone = jax.jit(spread.predict)(params, {"0": {}}, NetworkInput(image[1:]), keys[1:])
    np.testing.assert_allclose(alone.image[0], found.image[1], rtol=1e-6)


def test_only_tissue_inside_the_mask_is_collected_by_patient():
    truth = np.zeros((3, 8, 8, 1), np.float32)
    truth[:2, 2:6, 2:6] = 0.5
    mask = np.ones((3, 8, 8, 1), bool)
    mask[:, 2] = False
    assert tissue(truth[0], mask[0, ..., 0]).sum() == 12
    assert not tissue(truth[2], mask[2, ..., 0]).any()  # an empty slice
    example = Example(NetworkInput(truth), truth, mask, np.zeros(3, np.uint32), np.ones((3, 2)))
    records = [Record(truth[i], name, subject) for i, (name, subject) in enumerate(
        (("a", "one"), ("b", "two"), ("c", "one")))]
    collected = Collected(TASK, [Region.whole(record) for record in records], 3)
    with pytest.raises(UserError, match="no image of this part shows tissue"):
        collected.patients()
    pred = Prediction(truth + 0.1, std=np.full_like(truth, 0.02))
    collected.add(Evaluated(["a", "b:z0", "c"], example, pred, []))
    first, second = collected.patients()
    for one in (first, second):
        np.testing.assert_allclose(one.error, np.full(12, 0.1 * 200), rtol=1e-5)
        np.testing.assert_allclose(one.spread, np.full(12, 0.02 * 200), rtol=1e-5)


@pytest.mark.parametrize(("task", "asked", "message"), [
    (CtRecon((-1000.0, 2000.0), 2), ("flips",), "not what ct_recon would measure; give the folders of runs"),
    (TASK, ("flips", "constant"), "constant goes with nothing else"),
    (TASK, ("nowhere",), "nowhere is no folder; choose flips, dropout:N, constant or folders of runs"),
    (TASK, ("dropout:1",), "dropout:1; give one number of predictions, 2 or more, as dropout:16"),
    (TASK, ("dropout:4", "dropout:8"), "dropout:4,dropout:8; give one number of predictions"),
    (TASK, ("dropout:4",), "trained without dropout; train one with --config.model.dropout=0.1"),
    (TASK, (".",), "is the run itself"),
    (Segment((0.0, 1.0), 2), ("flips",), "a run of segment has none; intervals are those of restorations")])
def test_what_cannot_be_asked_for_is_said_in_a_line(task, asked, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = {CtRecon: "ct_recon", Segment: "segment"}.get(type(task), "denoise")
    config = Config({"task": {"name": name}, "model": {"name": "unet", "dropout": 0.0}, "seed": 0})
    run = Run(config, task, Shaded(), {})
    monkeypatch.setattr(uncertainty, "restore_best", lambda workdir: (run, State(*[{}] * 6)))
    with pytest.raises(UserError, match=message) as caught:
        uncertainty.restore(tmp_path, asked)
    assert "\n" not in str(caught.value)


def test_a_member_is_of_the_same_config_and_data(tmp_path, monkeypatch):
    def run_in(workdir):
        config = Config({"task": {"name": "denoise", "strength": 0.1 if workdir.name == "noisier" else 0.05},
                         "seed": len(workdir.name)})
        params = {"model": {"w": np.float32(len(workdir.name))}}
        return Run(config, TASK, Shaded(), {}), State(np.zeros(()), params, {"model": {}}, {}, {}, None)

    monkeypatch.setattr(uncertainty, "restore_best", run_in)
    for name, data in (("one", "x"), ("other", "x"), ("noisier", "x"), ("elsewhere", "y")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data.json").write_text(data)
    run, state = uncertainty.restore(tmp_path / "one", ("flips", str(tmp_path / "other")))
    assert run.objective.flips == FLIPS
    assert {name: float(params["model"]["w"]) for name, params in state.for_use()[0].items()} == {"0": 3, "1": 5}
    with pytest.raises(UserError, match=r"config.task.strength is 0.1 here and 0.05 in .*one; members differ in their seed"):
        uncertainty.restore(tmp_path / "one", (str(tmp_path / "noisier"),))
    with pytest.raises(UserError, match="its data or split is not that of"):
        uncertainty.restore(tmp_path / "one", (str(tmp_path / "elsewhere"),))


def test_a_calibration_is_kept_for_its_networks(tmp_path):
    state = State(np.zeros(()), {"0": {"w": np.ones(3)}}, {"0": {}}, {}, {}, None)
    found = Calibration(1.5, 0.1, 1.7, 0.9, 4)
    for asked in (("constant",), ("flips",), ("flips",)):
        identity = uncertainty.identity_of(state, asked)
        uncertainty.keep_calibration(tmp_path, identity, found)
    assert len(uncertainty.calibrations(tmp_path)) == 2
    assert uncertainty.calibration_of(tmp_path, identity) == found
    other = replace(state, params={"0": {"w": np.zeros(3)}})
    assert uncertainty.calibration_of(tmp_path, uncertainty.identity_of(other, ("flips",))) is None
    run = SimpleNamespace(task=TASK)
    with pytest.raises(UserError, match=f"first: python eval.py --workdir={tmp_path} --uncertainty=flips"):
        uncertainty.with_intervals(None, run, other, tmp_path, ("flips",))
    made = uncertainty.with_intervals(lambda record: Prediction(np.zeros((2, 2, 1)), np.full((2, 2, 1), 0.01)), run, state,
                                      tmp_path, ("flips",))(None)
    np.testing.assert_allclose(made.extras["half_width"], 1.7 * (1.5 * 2 + 0.1), rtol=1e-6)  # 2 is 0.01 of the range
    np.testing.assert_allclose(made.std, (1.5 * 2 + 0.1) / 200, rtol=1e-6)


def test_a_width_goes_back_to_the_units_of_its_file_without_their_offset(tmp_path):
    nibabel.Nifti1Image(np.zeros((3, 4, 2), np.float32), np.eye(4)).to_filename(tmp_path / "a.nii")
    (study,) = discover(tmp_path / "a.nii")
    (record,) = study.read()
    destination = StudyDestination(study, tmp_path / "out.nii", Table(), {record.id: lambda image: 50 + 20 * image})
    (tmp_path / "made").mkdir()
    width = np.random.default_rng(0).random((*record.image.shape[:-1], 1), np.float32)
    mask = np.ones((*record.image.shape[:-1], 1), bool)
    mask[0] = False
    pred = Prediction(np.zeros_like(width), width / 200, extras={"half_width": width})
    for task in (TASK, Series((0.0, 200.0), 3)):
        for path in tmp_path.glob("out*"):
            path.unlink()
        for output in task.outputs([pred], [replace(record, extras={"mask": mask})]):
            output.write(destination)
        assert sorted(path.name for path in tmp_path.glob("out*")) == ["out.nii", "out_interval.nii"]
        written = nibabel.load(tmp_path / "out_interval.nii").get_fdata()
        np.testing.assert_allclose(np.sort(written.ravel()), np.sort(np.where(mask, 20 * width, 0).ravel()), rtol=1e-4)
    reconstructed = CtRecon((-1000.0, 2000.0), 2).outputs([pred], [record])
    assert [(output.name, output.difference) for output in reconstructed] == [("", False), ("interval", True)]


def test_the_functions_of_the_page_do_what_it_says():
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "uncertainty.md").read_text(encoding="utf-8"), re.DOTALL)
    found: dict = {}
    exec(block, found)
    assert found["check"](found["patients"][4:], found["calibration"]).coverage == pytest.approx(0.9, abs=0.02)


@pytest.mark.slow
def test_intervals_are_calibrated_checked_and_written(tmp_path):
    """A network that has just begun: its errors are large, and its intervals say so."""
    workdir = tmp_path / "run"
    code, _, err = command("train.py", *DRAWN, "--config.model.dropout=0.2", f"--workdir={workdir}")
    assert code == 0, err
    volume = np.random.default_rng(0).integers(0, 200, (30, 26, 4)).astype(np.int16)
    nibabel.Nifti1Image(volume, np.eye(4)).to_filename(tmp_path / "t1.nii.gz")
    use = ["-m", "medjax.apply", f"--workdir={workdir}", "--uncertainty=flips", "--accept=values,spacing,units,modality"]
    code, _, err = command(*use, f"--input={tmp_path / 't1.nii.gz'}", f"--output={tmp_path / 'out.nii.gz'}")
    assert code == 2
    assert f"not calibrated for this checkpoint; first: python eval.py --workdir={workdir} --uncertainty=flips" in err
    code, out, err = command("eval.py", f"--workdir={workdir}", "--uncertainty=flips")
    assert code == 0, err
    assert "coverage of 90 % intervals, 2 patients" in out
    assert f"calibration: {workdir / 'intervals.json'}" in out
    assert out.rstrip().endswith("--output=RESULT --uncertainty=flips")
    metrics = json.loads((workdir / "eval" / "metrics.json").read_text())
    assert metrics["uncertainty"] == "flips"
    assert 0.7 < metrics["intervals"]["coverage"] <= 1
    assert "truth lies" not in err
    assert "Intervals" in (workdir / "eval" / "report.html").read_text()
    code, _, err = command(*use, f"--input={tmp_path / 't1.nii.gz'}", f"--output={tmp_path / 'out.nii.gz'}")
    assert code == 0, err
    width = np.asarray(nibabel.load(tmp_path / "out_interval.nii.gz").dataobj)
    assert width.dtype == np.int16
    assert width.min() > 0
    series = tmp_path / "series"
    series.mkdir()
    for z in range(2):
        dicom_image(volume[:, :, z].astype(np.uint16), float(z), InstanceNumber=z + 1, PixelSpacing=[1.0, 1.0],
                    RescaleIntercept=-20, RescaleSlope=1).save_as(series / f"{z}.dcm", enforce_file_format=True)
    code, _, err = command(*use, f"--input={series}", f"--output={tmp_path / 'made'}")
    assert code == 0, err
    files = [pydicom.dcmread(path) for path in sorted((tmp_path / "made_interval").iterdir())]
    assert len(files) == 2
    stored = files[0].pixel_array * float(files[0].RescaleSlope) + float(files[0].RescaleIntercept)
    assert 0 < stored.min() <= stored.max() < 200
    code, out, err = command("eval.py", f"--workdir={workdir}", "--uncertainty=dropout:4")
    assert code == 0, err
    assert "intervals, by dropout:4:" in out
    assert {found["uncertainty"] for found in json.loads((workdir / "intervals.json").read_text())} == {"flips", "dropout:4"}
    made = []
    for name in ("one", "two"):
        code, _, err = command(*use[:-2], "--uncertainty=dropout:4", use[-1], f"--input={tmp_path / 't1.nii.gz'}",
                               f"--output={tmp_path / name}.nii.gz")
        assert code == 0, err
        made.append([nibabel.load(tmp_path / f"{name}{part}.nii.gz").get_fdata() for part in ("", "_interval")])
    np.testing.assert_array_equal(made[0], made[1])  # what is random follows from the sample


@pytest.mark.slow
def test_magnitudes_from_kspace_have_intervals_in_the_units_of_the_file(tmp_path):
    train(tiny("mri_recon", tmp_path / "data"), tmp_path / "run")
    evaluate_run(tmp_path / "run", asked=("constant",))
    run, _ = restore_best(tmp_path / "run")
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    given = inputs_of(run.task, load_config(tmp_path / "run"), tmp_path)
    with flagsaver.flagsaver(workdir=str(tmp_path / "run"), input=given, output=str(tmp_path / "applied" / "out.nii.gz"),
                             rescale="range", uncertainty=["constant"]):
        apply.main()
    image, width = (nibabel.load(tmp_path / "applied" / f"{name}.nii.gz").get_fdata() for name in ("out", "out_interval"))
    assert image.shape == width.shape
    assert 0 < width.min() == width.max()
    found = uncertainty.calibrations(tmp_path / "run")[0]["calibration"]
    unit = np.asarray(run.task.data_range[1])  # of the run; "range" maps the largest magnitude of the file to it
    (study,) = reading.gather(reading.parse(given, run.task), run.task, [], "")
    largest = max(record.in_units().max() for record in reading.read(study, run.config, run.task))
    expected = found["quantile"] * found["floor"] * largest / unit
    np.testing.assert_allclose(width.max(), expected, rtol=1e-4)
