"""The benchmarks of faults and of scores run, each at a tiny size."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import scores
from tests.commands import ROOT, SMALL

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
