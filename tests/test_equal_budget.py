"""Trainings beside other packages: what a peer gets is what a run trains on, and the page says what was measured."""

import csv
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks.equal_budget import measure, pairs, quality, results
from benchmarks.equal_budget.cases import CASES
from configs import quickstart
from medjax.bench.peer import find_python
from medjax.data.pipeline import train_stream
from medjax.train.layouts import initial, train_step
from medjax.train.log import read_curves
from medjax.train.loop import train
from medjax.train.run import assemble, load_splits, resolve
from tests.commands import ROOT, command

PEERS = ROOT / "benchmarks" / "equal_budget" / "peers"
PACKAGES = ("ldct-benchmark", "fastMRI", "deepinv")  # which `make peers` installs
with_peers = pytest.mark.skipif("MEDJAX_PEER_PYTHON" not in os.environ, reason="the peers' Python is not named; run "
                                "`make peers-test`")


@pytest.fixture
def small():
    """RED-CNN, which gives back its input before it has learned, on phantoms; three steps at a rate of next to nothing."""
    config = quickstart.get_config("source=phantoms,model=redcnn")
    config.update_from_flattened_dict({
        **measure.PLAIN, "data.source.kind": "brain", "data.source.shape": (32, 32), "data.source.count": 6,
        "data.fractions": (0.5, 0.0, 0.5), "data.patch": (16, 16), "model.width": 2, "model.depth": 1, "model.kernel": 3,
        "objective.loss": "l2", "optim.lr": 1e-12, "steps": 3, "batch_size": 8, "seed": 3, "log_every": 1})
    return config


def test_pairs_are_what_a_run_trains_on(small, tmp_path):
    pairs.record(small, tmp_path / "pairs", test=2)
    train(small, tmp_path / "run")
    given, target, mask = (np.load(tmp_path / "pairs" / "train" / f"{name}.npy") for name in ("input", "target", "mask"))
    assert given.shape == target.shape == (24, 16, 16, 1)
    expected = np.mean(np.square(given - target).reshape(3, -1), 1, where=mask.reshape(3, -1))
    assert np.unique(expected).size == 3  # each step has images and noise of its own
    losses = [loss for _, loss in read_curves(tmp_path / "run")["train/model/l2"]]
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


def test_test_pairs_are_of_other_people(small, tmp_path):
    pairs.record(small, tmp_path, test=2)
    people = json.loads((tmp_path / "test" / pairs.PEOPLE).read_text())
    trained = {region.record.subject for region in load_splits(small)["train"]}
    assert len(people) == len(np.load(tmp_path / "test" / "input.npy")) == 2
    assert not trained & set(people)


def test_psnr_counts_what_the_mask_does():
    truth = np.random.default_rng(0).random((16, 16, 1)).astype(np.float32)
    mask = np.ones((16, 16, 1), bool)
    mask[:4] = False
    found = truth + np.where(mask, 0.1, 5.0).astype(np.float32)
    assert quality.restored(found, truth, mask)["psnr"] == pytest.approx(20, abs=1e-3)
    assert quality.restored(truth, truth, mask)["ssim"] == pytest.approx(1)


def test_complex_images_are_compared_by_their_magnitude():
    truth = np.full((8, 8, 2), [0.6, 0.8], np.float32)
    found = np.full((8, 8, 2), [1.1, 0.0], np.float32)  # of magnitude 1.1
    assert quality.restored(found, truth, np.ones((8, 8, 1), bool))["psnr"] == pytest.approx(20, abs=1e-4)


def test_slices_have_the_range_of_2000_hu():
    low, high = quality.LDCT_RANGE
    truth, found = (np.full((8, 8, 1), (hu - low) / (high - low), np.float32) for hu in (0, 200))
    assert quality.slices_in_hu(found, truth, np.ones((8, 8, 1), bool))["psnr"] == pytest.approx(20, abs=1e-3)


def test_a_person_counts_once():
    values = np.array([[1.0, 3.0, 10.0], [3.0, 5.0, 20.0]])
    np.testing.assert_array_equal(quality.by_person(values, ["b", "b", "a"]), [[10, 2], [20, 4]])


def test_the_interval_is_of_people_and_seeds():
    """The standard error of a mean over both is that of the sums of squares, where neither changes with the other."""
    random = np.random.default_rng(1)
    seeds, people = random.normal(size=(5, 1)), random.normal(size=(1, 40))
    low, high = quality.interval(seeds + people)
    error = np.sqrt(seeds.var() / 5 + people.var() / 40)
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.1)
    assert quality.interval(np.full((3, 4), 2.0)) == (2.0, 2.0)


def test_seeds_of_another_setting_are_not_kept(tmp_path):
    def found(psnr: float) -> dict:
        side = {"seconds": 2.0, "cpu_seconds": 2.0, "import_seconds": 1.0, "step_seconds": 0.1, "scores": [{"psnr": psnr}]}
        return {"medjax": side, "peer": side | {"seconds": 4.0, "versions": {"torch": "1"}, "scores": [{"psnr": 30.0}]},
                "people": ["a"]}

    case, path = CASES["deepinv_dncnn"], tmp_path / "x.json"
    results.save(path, results.with_seed(path, case, 5, 0, found(31.0)))
    results.save(path, results.with_seed(path, case, 5, 1, found(33.0)))
    both = json.loads(path.read_text())
    assert both["summary"]["seeds"] == 2
    assert both["summary"]["seconds"]["ratio"] == 0.5
    assert both["summary"]["psnr"]["difference"]["mean"] == pytest.approx(2)
    assert "| 0.50 |" in results.table({"x": both})
    assert list(results.with_seed(path, case, 6, 2, found(31.0))["seeds"]) == ["2"]


def test_the_page_says_what_was_measured():
    assert results.PAGE.read_text(encoding="utf-8") == results.page(), "run `python -m benchmarks.equal_budget --tables`"


@pytest.mark.parametrize("name", results.load())
def test_a_measured_case_has_not_changed_since(name):
    found, case = results.load()[name], CASES[name]
    now = json.loads(json.dumps({"config": case.config, "changes": case.changes, "settings": case.settings,
                                 "steps": case.steps}))
    assert {key: found[key] for key in now} == now, f"run `python -m benchmarks.equal_budget {name}`"


def test_an_unknown_case_is_an_error():
    code, _, error = command("-m", "benchmarks.equal_budget", "unet")
    assert code == 2
    assert error.startswith("error: unet: unknown case; choose from ")


NETWORK = """
import flax.linen as nn
from medjax.models.unet import FASTMRI, UNet as Own

class UNet(nn.Module):
    num_channels: int
    num_pool_layers: int

    @nn.compact
    def __call__(self, x, train=True):
        pools = self.num_pool_layers - %d
        return Own(2, 1, (1, 1), self.num_channels, pools + 1, **FASTMRI)(x[..., None], None, train)[..., 0]
"""


@pytest.mark.slow
@pytest.mark.parametrize(("fewer", "code"), [(0, 0), (1, 2)])
def test_algoperf_is_imported_from_its_checkout(fewer, code, tmp_path):
    folder = tmp_path.joinpath("algoperf", "workloads", "fastmri", "fastmri_jax")
    folder.mkdir(parents=True)
    (tmp_path / "algoperf" / "__init__.py").write_text("from algoperf._version import version")
    (folder / "models.py").write_text(NETWORK % fewer)
    target = tmp_path / "step.json"
    ended, _, error = command("-m", "benchmarks.algoperf_step", f"--algoperf={tmp_path}", "--size=16", "--width=2",
                              "--batch=1", "--seconds=0.1", f"--json={target}")
    assert ended == code, error
    assert target.exists() == (code == 0)
    if code:
        assert "parameters and medjax's" in error
    else:
        found = json.loads(target.read_text())
        assert found["ratio"] == pytest.approx(found["medjax_ms"] / found["peer_ms"])


def drawn_slices(folder: Path) -> Path:
    """Slices at two doses as lowdose.py writes them."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for i in range(4):
        np.save(folder / f"{i}.npy", random.integers(-1000, 1000, (40, 40, 2)).astype(np.int16))
    with (folder / measure.SUBJECTS).open("w", newline="") as file:
        csv.writer(file).writerows([("filename", "patientid"), *((f"{i}.npy", f"p{i}") for i in range(4))])
    return folder


@with_peers
def test_every_peer_trains_its_network_on_what_medjax_trains_on(tmp_path):
    slices = drawn_slices(tmp_path / "slices")
    shared = {name: case for name, case in CASES.items() if case.package in PACKAGES}
    for name, case in shared.items():
        _, changes = measure.flags_of(case, 0, 2, True, slices)
        changes["batch_size"] = jax.device_count()
        module, _, argument = (case.tiny_config or case.config).partition(":")
        config = importlib.import_module(f"configs.{module}").get_config(*([argument] if argument else []))
        config.update_from_flattened_dict(changes)
        folder = tmp_path / name / "pairs"
        pairs.record(config, folder, test=2)
        settings = {**case.settings, **case.tiny_settings, "module": case.peer, "seed": 0, "steps": 2, "threads": 1,
                    "batch_size": changes["batch_size"], "lr": changes["optim.lr"]}
        (folder / "settings.json").write_text(json.dumps(settings))
        splits = load_splits(config)
        run = assemble(resolve(config, splits))
        batch = train_stream(splits["train"], batch_size=changes["batch_size"], patch=config.data.patch,
                             ndim=config.data.ndim).first()
        state = jax.eval_shape(initial(run), batch, jax.random.PRNGKey(0))
        jax.eval_shape(train_step(run), state, batch)
    subprocess.run([find_python(), Path(__file__).with_name("equal_budget_child.py"), PEERS, tmp_path], check=True)
    for name in shared:
        marks = json.loads((tmp_path / name / "marks.json").read_text())
        assert marks["parameters"] > 0, name
        assert marks["step_seconds"] > 0, name
        found = np.load(tmp_path / name / "predictions.npy")
        assert found.shape == np.load(tmp_path / name / "pairs" / "test" / "target.npy").shape, name
        assert np.isfinite(found).all(), name


@with_peers
def test_the_command_measures_a_case(tmp_path):
    environment = os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=0"}
    done = subprocess.run([sys.executable, "-m", "benchmarks.equal_budget", "ldct_cnn10", "--size=tiny", "--seeds=1",
                           f"--results={tmp_path}"], cwd=ROOT, env=environment, text=True, capture_output=True, timeout=600)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "ldct_cnn10.json").read_text())
    one = found["seeds"]["1"]
    assert one["first"] == "peer"
    assert one["medjax"]["parameters"] == one["peer"]["parameters"]
    for side in results.SIDES:
        assert 0 < one[side]["import_seconds"] < one[side]["seconds"]
        assert len(one[side]["scores"]) == found["summary"]["images"] == 2
