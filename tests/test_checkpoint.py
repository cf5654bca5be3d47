"""Damaged checkpoints: a run resumes from the last sound one, or says in one line why it can't."""

import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.train import checkpoint
from medjax.train.checkpoint import Checkpoints
from medjax.types import Metric, State, UserError

STEPS = (2, 4, 6)
PSNR = Metric("psnr")


def state(step: int) -> State:
    """A state whose numbers follow from its step; one array is too large to be stored in an index."""
    random = np.random.default_rng(step)
    params = {"w": jnp.asarray(random.normal(size=(64, 64)), jnp.float32), "b": jnp.arange(4.0) + step}
    ema = {"model": {"params": params, "variables": {"batch_stats": {"mean": jnp.arange(3.0) * step}}}}
    return State(jnp.int32(step), {"model": params}, {}, {"model": (params,)}, ema, jax.random.PRNGKey(step))


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    """A folder with checkpoints of the steps 2, 4 and 6."""
    folder = tmp_path_factory.mktemp("checkpoints") / "sound"
    checkpoints = Checkpoints(folder, PSNR, keep=3)
    for step in STEPS:
        checkpoints.save(state(step), {"batches": step}, {"psnr": float(step)})
    checkpoints.close()
    return folder


def largest(step: Path) -> Path:
    return max((p for p in step.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def truncate(step: Path) -> None:
    with largest(step).open("r+b") as file:
        file.truncate(100)


def flip(step: Path) -> None:
    """One bit in the middle of the numbers."""
    content = bytearray(largest(step).read_bytes())
    content[len(content) // 2] ^= 16
    largest(step).write_bytes(content)


def empty(step: Path) -> None:
    shutil.rmtree(step)
    step.mkdir()


DAMAGES = {
    "truncated": truncate, "a bit flipped": flip, "numbers deleted": lambda step: largest(step).unlink(),
    "an item deleted": lambda step: shutil.rmtree(step / "data"), "an empty folder": empty,
    "killed before the checksums": lambda step: (step / "checksums.json").unlink(),
    "checksums cut off": lambda step: (step / "checksums.json").write_text('{"state/d'),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_skipped_for_the_one_before(damage, sound, tmp_path, capsys):
    folder = tmp_path / "checkpoints"
    shutil.copytree(sound, folder)
    DAMAGES[damage](folder / "6")
    shutil.copytree(sound / "4" / "state", folder / "8.orbax-checkpoint-tmp" / "state")  # a kill while 8 was written
    checkpoints = Checkpoints(folder, PSNR, keep=3)
    assert checkpoints.best() == 4
    found, position = checkpoints.restore_latest(state(0))
    assert "checkpoint of step 6 is damaged" in capsys.readouterr().out
    assert position == {"batches": 4}
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(state(4)), strict=True):
        np.testing.assert_array_equal(a, b)
    checkpoints.save(state(6), {"batches": 6}, {"psnr": 6.0})  # recomputed, it takes its place
    checkpoints.close()
    assert Checkpoints(folder, PSNR).best() == 6


def test_all_damaged_is_one_line_that_says_what_to_do(sound, tmp_path):
    folder = tmp_path / "checkpoints"
    shutil.copytree(sound, folder)
    for step in STEPS:
        truncate(folder / str(step))
    checkpoints = Checkpoints(folder, PSNR)
    with pytest.raises(UserError, match=r"^[^\n]*every checkpoint is damaged \(step 6: .*step 2: [^\n]*delete the folder"):
        checkpoints.restore_latest(state(0))
    with pytest.raises(UserError, match="every checkpoint is damaged"):
        checkpoints.best()
    assert sorted(p.name for p in folder.iterdir() if p.is_dir()) == ["2", "4", "6"]


def test_other_versions_are_said(sound, tmp_path, monkeypatch, caplog):
    folder = tmp_path / "run"
    shutil.copytree(sound, folder)
    monkeypatch.setattr(checkpoint, "versions", lambda: {"jax": "99.1", "numpy": np.__version__})
    checkpoints = Checkpoints(folder, PSNR)
    assert checkpoints.restore_latest(state(0)) is not None
    checkpoints.close()
    assert f"jax {jax.__version__} is now 99.1; what follows may differ in the last digits" in caplog.text


def test_nothing_yet_is_no_damage(tmp_path):
    checkpoints = Checkpoints(tmp_path / "new", PSNR)
    assert checkpoints.best() is None
    assert checkpoints.restore_latest(state(0)) is None


@pytest.mark.parametrize("lower_is_better", [False, True])
def test_the_best_is_by_the_metrics_direction_and_what_is_no_number_is_worst(lower_is_better, tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", Metric("distance", lower_is_better=lower_is_better), keep=9)
    for step, value in ((1, 3.0), (2, 1.0), (3, float("nan"))):
        checkpoints.save(state(step), {}, {"distance": value})
    checkpoints.wait()
    assert checkpoints.best() == (2 if lower_is_better else 1)
    checkpoints.close()
