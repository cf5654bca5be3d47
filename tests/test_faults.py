"""Faults during a run: a full disk, damaged checkpoints, images that are no numbers; and its log."""

import json
import re
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import jax
import nibabel
import numpy as np
import pytest

from configs import quickstart
from medjax.evaluation.run import evaluate_run
from medjax.train import checkpoint
from medjax.train.log import Log, read_curves
from medjax.train.loop import train
from medjax.train.profile import parse_steps
from medjax.train.run import lock_workdir
from medjax.types import UserError
from tests.commands import ROOT, command
from tests.test_train import same_checkpoint

Disk = namedtuple("Disk", "total used free")


@pytest.fixture(scope="module", autouse=True)
def compile_once(tmp_path_factory):
    """Each run compiles the same step: from the second on it comes from a cache."""
    options = {"jax_compilation_cache_dir": str(tmp_path_factory.mktemp("cache")),
               "jax_persistent_cache_min_compile_time_secs": 0.0, "jax_persistent_cache_min_entry_size_bytes": -1}
    before = {name: getattr(jax.config, name) for name in options}
    for name, value in options.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def small(structure="", **data):
    config = quickstart.get_config(structure)
    config.model.update(width=4, depth=2)
    config.update(steps=6, batch_size=4, log_every=1, eval_every=6, eval_samples=1, checkpoint_every=2)
    config.data.update(patch=(24, 24), **data)
    config.mesh.data = 1
    return config


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run that nothing happened to, its second and third step traced."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    train(small(), workdir, profile=parse_steps("2-3"))
    return workdir


def test_steps_are_traced_and_the_log_says_where_the_time_went(whole):
    assert list((whole / "profile").rglob("*.xplane.pb"))
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    shares = [[line[f"train/share_{what}"] for what in ("step", "compile", "input", "checkpoint", "eval")]
              for line in lines if "train/share_step" in line]
    assert len(shares) == 6
    np.testing.assert_allclose(np.sum(shares, axis=1), 1.0, atol=1e-6)
    assert shares[0][1] > 0.5  # the first step is compiled
    assert shares[2][3] > 0.0 < shares[4][3]  # after steps 2 and 4 a checkpoint was written
    with pytest.raises(UserError, match=r"^--profile: '3-2' is not FIRST-LAST, e\.g\. 10-20$"):
        parse_steps("3-2")


def test_a_full_disk_ends_the_run_and_costs_no_step(whole, tmp_path, monkeypatch):
    free = iter([10**9, 1000])
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.shutil, "disk_usage", lambda folder: Disk(10**9, 0, next(free)))
        with pytest.raises(UserError, match=r"no room for the checkpoint of step 4: [^\n]*goes on from step 2$"):
            train(small(), tmp_path)
    train(small(), tmp_path)
    same_checkpoint(whole, tmp_path, 6)


LIMITED = """
import resource, signal, sys
from pathlib import Path
from medjax import cli
from medjax.train.log import Log

def main() -> None:
    log = Log(Path(sys.argv[1]), 10**6, 0, 1, bar=False)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    for step in range(10**6):
        log.write(step, {name: 0.5 for name in "abcdefgh"})

cli.run(main)
"""


def test_a_disk_that_fills_while_the_log_is_written_ends_the_run_with_one_line(tmp_path):
    """TensorBoard's file, the larger one, is at the limit first."""
    run = subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path)], cwd=ROOT, capture_output=True, text=True,
                         timeout=120, check=False)
    said = run.stderr.replace("\r", "\n").splitlines()
    assert [line for line in said if line.strip() and not line.startswith("train: ")] == [
        "error: disk: File too large; make room and run the same command again"]
    assert run.returncode == 2
    [events] = (tmp_path / "tensorboard").iterdir()
    assert (tmp_path / "metrics.jsonl").stat().st_size < events.stat().st_size == 20_000


def test_what_is_no_line_of_the_log_is_passed_over(tmp_path):
    """A half line in the middle and at the end, bytes that are no text, a line without a step."""
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "a": 1.0}\n{"step": 2, "a"\n\xff\xfe\x00\n{"a": 9.0}\n[3]\n{"step": 3, "a": 3.0}\n'
                     b'{"step": 4')
    log = Log(tmp_path, 9, 4, 1, bar=False)
    log.write(5, {"a": 5.0})
    log.close()
    assert read_curves(tmp_path) == {"a": [(1, 1.0), (3, 3.0), (5, 5.0)]}


def test_a_second_training_in_a_folder_is_refused(tmp_path):
    config = small()
    with lock_workdir(tmp_path), pytest.raises(UserError, match=r"another training is writing here; wait for it, or name"):
        train(config, tmp_path)
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.slow
def test_a_run_with_a_perceptual_loss_is_applied_without_the_run_it_looked_through(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "features")
    config = small("objective=perceptual")
    config.update(features_workdir=str(tmp_path / "features"), steps=1, eval_every=1)
    config.critic.update(width=4, depth=1)
    train(config, tmp_path / "run")
    shutil.rmtree(tmp_path / "features")
    np.save(tmp_path / "in.npy", np.random.default_rng(0).random((24, 24), np.float32))
    code, _, err = command("-m", "medjax.apply", f"--workdir={tmp_path / 'run'}", f"--input={tmp_path / 'in.npy'}",
                           f"--output={tmp_path / 'out.npy'}", "--accept=modality,units,spacing,values")
    assert code == 0, err
    assert np.isfinite(np.load(tmp_path / "out.npy")).all()


def test_a_damaged_checkpoint_costs_no_step(whole, tmp_path, capsys):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    numbers = max((tmp_path / "checkpoints" / "6" / "state").rglob("*"), key=lambda p: p.stat().st_size)
    numbers.write_bytes(numbers.read_bytes()[:-50])
    train(small(), tmp_path)
    printed = capsys.readouterr().out
    assert "checkpoint of step 6 is damaged" in printed
    assert "resuming from step 4" in printed
    same_checkpoint(whole, tmp_path, 6)


def test_images_that_are_no_numbers_once_squared_end_the_run_with_step_and_samples(tmp_path, capsys):
    images = np.random.default_rng(0).uniform(size=(40, 32, 32)).astype(np.float32)
    images[5] = 3e38
    np.save(tmp_path / "images.npy", images)
    config = small(path=str(tmp_path / "images.npy"), range=(0.0, 1.0), fractions=(0.8, 0.1, 0.1), foreground=0.0)
    config.steps = config.eval_every = 50
    said = []
    for _ in range(2):  # the same command meets the same batch
        with pytest.raises(UserError, match=r"^step \d+: model/\w+ is not finite; the last checkpoint ") as caught:
            train(config, tmp_path / "run")
        (names,) = re.findall(r"step \d+ was on (.*)", "".join(capsys.readouterr()))
        assert len(names.split(", ")) == 4
        assert "images:z5:" in names
        said.append(re.sub(r"; the last.*", "", str(caught.value)))
    assert said[0] == said[1]


def test_images_that_have_changed_since_the_run_began_are_said_once(tmp_path, capsys):
    images = np.random.default_rng(0).uniform(size=(32, 32, 40)).astype(np.float32)
    config = small(path=str(tmp_path / "a.nii.gz"), range=(0.0, 1.0), fractions=(0.8, 0.1, 0.1))
    said = []
    for steps, factor in ((1, 1.0), (2, 1.0), (3, 0.5), (4, 0.5)):
        if steps in (1, 3):
            nibabel.Nifti1Image(images * np.float32(factor), np.eye(4)).to_filename(tmp_path / "a.nii.gz")
        config.steps = steps
        train(config, tmp_path / "run")
        said.append("not those that the run began with" in capsys.readouterr().out)
    assert said == [False, False, True, False]


def test_without_a_test_part_a_training_ends_well_and_says_what_to_type(tmp_path, capsys):
    config = small(fractions=(0.9, 0.1, 0.0))
    config.steps = 1
    train(config, tmp_path)
    evaluate_run(tmp_path, again=False)
    assert "there is no test part to evaluate; next: python -m medjax.apply" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"^--split: the data has no test part"):
        evaluate_run(tmp_path)
