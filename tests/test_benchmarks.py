"""The benchmarks of faults and of scores run, each at a tiny size."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from benchmarks import deface, intervals, membership, privacy_tables, scores, speed_tables
from configs import quickstart
from medjax.measures.statistics import Standing
from tests.commands import DRAWN, ROOT, SMALL

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")


def can_mount(place: Path) -> bool:
    """Whether a disk of a small size can be had here."""
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(place)], capture_output=True, check=False).returncode:
        return False
    subprocess.run(["umount", str(place)], check=True)
    return True


@pytest.mark.parametrize(("words", "expected"), [
    (["fuzz", "--variants=2"], {"variants of each file": 2}),
    (["cold_cache", "--rounds=1", "--kills=0", "--files=3", "--processes=2"], {"died": 0, "wrong images": 0}),
    (["kill", "--kills=1", "--steps=10"], {"kills": 1}),
    (["full_disk", "--moments=1", "--steps=10", "--files=3"], {"disks": 1, "another exit code": 0, "not resumed": 0}),
    (["apply_memory", "--shape=48,40,32"], {"MiB of the input": 0}),
    (["conv_correctness", "--shapes=2"], {})])
def test_it_runs(words, expected, tmp_path):
    if words[0] == "full_disk" and not can_mount(tmp_path):
        pytest.skip("no disk can be mounted here")
    target = tmp_path / "result.json"
    ended = subprocess.run([sys.executable, "-m", f"benchmarks.{words[0]}", *words[1:], f"--json={target}"], cwd=ROOT,
                           capture_output=True, text=True, timeout=600, check=False)
    assert target.exists(), ended.stderr
    found = json.loads(target.read_text(encoding="utf-8"))
    assert {key: found[key] for key in expected} == expected


def test_a_score_is_measured_and_becomes_a_line(tmp_path, monkeypatch):
    monkeypatch.setattr(scores, "SCORES", tmp_path)
    found = scores.measure("quickstart", tmp_path / "runs", SMALL[1:])
    assert found["config"] == scores.values_of(scores.config_of("quickstart"))
    (tmp_path / "quickstart.json").write_text(json.dumps(found))
    line = scores.table(["quickstart", "deblur"]).splitlines()[-1]
    assert line.startswith("| `quickstart.py` | PSNR dB | ")
    assert "median" in line


@pytest.mark.parametrize(("name", "more"), [
    ("brain_denoise", ["--config.data.patch=(24,24)"]), ("brain_through_plane", ["--config.data.patch=(4,16,16)"]),
    ("slices_lowdose", []), ("slices_sparse", ["--config.task.views=12"])])
def test_a_row_of_people_is_measured_on_a_folder(tmp_path, name, more):
    """Ten people, each with a volume that is named as the row's source expects it."""
    for i in range(10):
        folder = tmp_path / "people" / f"sub-{i:02d}"
        folder.mkdir(parents=True)
        values = 200 * np.random.default_rng(i).random((48, 40, 8), np.float32)
        nibabel.Nifti1Image(values, np.eye(4)).to_filename(folder / f"sub-{i:02d}_T1w.nii.gz")
    small = ["--config.steps=2", "--config.batch_size=1", "--config.model.width=4", "--config.eval_every=2",
             "--config.eval_samples=1", "--config.checkpoint_every=2", "--config.references=('none',)"]
    found = scores.measure(name, tmp_path / "runs", [f"--config.data.path={tmp_path / 'people'}", *small, *more])
    assert found["patients"] == {0.5: 5, 0.3: 3}[scores.config_of(name).data.fractions[2]]
    standing = Standing.of(found["standings"]["model"])
    assert standing.low <= standing.mean <= standing.high


def test_intervals_of_every_kind_are_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(intervals, "SEEDS", (0, 1))
    monkeypatch.setattr(intervals, "KINDS", {"members": ["seed1"]})
    monkeypatch.setattr(intervals, "command_of", lambda name: f"python train.py {shlex.join(DRAWN)}")
    found = intervals.measure(tmp_path, ["--config.steps=2"])
    assert found["kinds"]["members"]["slope"] is not None
    monkeypatch.setattr(scores, "INTERVALS", tmp_path / "found.json")
    (tmp_path / "found.json").write_text(json.dumps(found))
    assert scores.intervals().splitlines()[-1].startswith("| members | ")


def test_a_registration_network_is_measured_beside_demons(tmp_path, monkeypatch):
    """Without the peer's environment, on drawn heads and their classes of tissue."""
    for i in range(10):
        folder = tmp_path / "people" / f"sub-{i:02d}"
        folder.mkdir(parents=True)
        labels = np.zeros((40, 40, 6), np.uint8)
        labels[6:30 + i % 3, 8:30] = 1
        labels[12:24, 12:22] = 2
        for name, values in (("T1w", 80.0 * labels + np.random.default_rng(i).random(labels.shape)), ("label", labels)):
            nibabel.Nifti1Image(values.astype(np.float32 if name == "T1w" else np.uint8), np.eye(4)).to_filename(
                folder / f"sub-{i:02d}_{name}.nii.gz")
    scores.measure("brain_register", tmp_path / "runs", [
        f"--config.data.path={tmp_path / 'people'}", "--config.steps=2", "--config.batch_size=1", "--config.model.width=4",
        "--config.eval_every=2", "--config.eval_samples=1", "--config.checkpoint_every=2",
        "--config.references=('demons',)", "--config.data.patch=(40,40)"])
    target = tmp_path / "registration.json"
    ended = subprocess.run([sys.executable, "-m", "benchmarks.registration", f"--workdir={tmp_path / 'runs/brain_register'}",
                            f"--images={tmp_path / 'people'}", "--slices=1", f"--json={target}"], cwd=ROOT,
                           capture_output=True, text=True, timeout=600, check=False)
    assert ended.returncode == 0, ended.stderr
    monkeypatch.setattr(speed_tables, "RESULTS", tmp_path)
    rows = speed_tables.registration().splitlines()[2:]
    assert [row.split(" | ")[1] for row in rows] == ["none", "network", "demons"] * 2


def test_membership_is_measured_of_every_run(tmp_path, monkeypatch):
    monkeypatch.setattr(membership, "NAMES", ["plain"])
    monkeypatch.setattr(membership, "command_of", lambda name: f"python train.py {shlex.join(DRAWN)}")
    monkeypatch.setattr(membership, "config_of", lambda name: quickstart.get_config())
    found = membership.measure(tmp_path, ["--config.steps=2"])
    monkeypatch.setattr(privacy_tables, "MEMBERSHIP", tmp_path / "found.json")
    (tmp_path / "found.json").write_text(json.dumps(found))
    assert privacy_tables.members().splitlines()[-1].startswith("| no privacy | ")


def test_the_picture_of_a_face_that_is_removed():
    views = np.split(deface.drawn(), 4, axis=1)
    for before, after in zip(views[::2], views[1::2], strict=True):
        assert 0 < (before != after).mean() < 0.3
        third = before.shape[1] // 3
        assert (before[:, :third] == after[:, :third]).all()  # the back of the head
