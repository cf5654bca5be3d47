"""Faults during a run: a full disk, damaged checkpoints, images that are no numbers; and its log."""

import json
import re
import shutil
from collections import namedtuple
from pathlib import Path

import jax
import nibabel
import numpy as np
import pytest

from configs import quickstart
from medjax.evaluation.run import evaluate_run
from medjax.train import checkpoint
from medjax.train.loop import train
from medjax.train.profile import parse_steps
from medjax.types import UserError
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


def small(**data):
    config = quickstart.get_config()
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
