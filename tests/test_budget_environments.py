"""Peers of benchmarks/equal_budget and cone_vs_mbirjax that need packages of their own: each case runs, at a tiny size.

A test is skipped where its environment is absent, and the reason says what makes it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.equal_budget.cases import CASES
from benchmarks.equal_budget.quality import segmented
from medjax.bench.peer import INSTALLED
from tests.commands import ROOT


def needs(environment):
    """The Python of an environment; skips where it is not there."""
    python = ROOT / f".{environment}" / "bin" / "python"
    if not python.exists():
        pytest.skip(f"no .{environment}; install it with `make {environment}`")
    return python


def run(words):
    """A command, as it ended."""
    return subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)


def trained(name, folder):
    """What a tiny training of both sides leaves."""
    ended = run(["benchmarks.equal_budget", name, "--size=tiny", "--seeds=0", f"--results={folder}"])
    assert ended.returncode == 0, ended.stderr[-2000:]
    found = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))["seeds"]["0"]
    for side in ("medjax", "peer"):
        assert found[side]["seconds"] > 0
        assert len(found[side]["scores"]) == len(found["people"])
        assert all(np.isfinite(value) for score in found[side]["scores"] for value in score.values())


@pytest.mark.skipif(not (os.environ.get("MEDJAX_PEER_PYTHON") or INSTALLED.exists()),
                    reason="no MONAI; install it with `make peers`")
@pytest.mark.parametrize("name", ["monai_unet", "monai_dynunet"])
def test_monai_trains(name, tmp_path):
    trained(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.environment])
def test_a_peer_of_another_environment_trains(name, tmp_path):
    needs(CASES[name].environment)
    trained(name, tmp_path)


@pytest.mark.slow
def test_cone_beam_beside_mbirjax(tmp_path):
    target = tmp_path / "cone.json"
    ended = run(["benchmarks.cone_vs_mbirjax", f"--peer={needs('mbirjax')}", "--size=24", "--views=20", "--turns=1",
                 f"--json={target}"])
    assert ended.returncode == 0, ended.stderr[-2000:]
    rows = {row["name"]: row for row in json.loads(target.read_text(encoding="utf-8"))["rows"]}
    assert rows["medjax: gradient of |Ax - y|^2 / 2, against A'(Ax - y)"]["met"]
    assert rows["medjax: FDK inside a ball, root mean square"]["met"]
    # The peer is asked for the same scan: it is as far from the exact integrals.
    own, other = (rows[f"{side}: forward, against exact means"]["value"] for side in ("medjax", "mbirjax"))
    assert other == pytest.approx(own, rel=0.1)


def test_a_missing_environment_is_named(tmp_path):
    ended = run(["benchmarks.equal_budget", "nnunet", "--size=tiny", "--peer_python=nowhere", f"--results={tmp_path}"])
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].startswith("error: ")
    assert not list(Path(tmp_path).iterdir())


def test_dice_by_class_counts_what_the_mask_has():
    truth = np.eye(4)[np.array([[0, 1, 1, 2, 2]])]
    found = np.eye(4)[np.array([[0, 1, 2, 2, 1]])]
    mask = np.array([[True, True, True, True, False]])[..., None]
    scores = segmented(found, truth, mask)
    assert scores["dice_1"] == pytest.approx(2 / 3)
    assert scores["dice_2"] == pytest.approx(2 / 3)
    assert np.isnan(scores["dice_3"])
