"""What happens to a run happens to it here: a full disk, damaged checkpoints, images that are no numbers."""

import re
import shutil
from collections import namedtuple
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import quickstart
from medjax.train import checkpoint
from medjax.train.loop import train
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
    """A run that nothing happened to."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    train(small(), workdir)
    return workdir


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
    assert "going on from step 4" in printed
    same_checkpoint(whole, tmp_path, 6)


def test_images_that_are_no_numbers_once_squared_end_the_run_with_step_and_samples(tmp_path):
    images = np.random.default_rng(0).uniform(size=(40, 32, 32)).astype(np.float32)
    images[5] = 3e38
    np.save(tmp_path / "images.npy", images)
    config = small(path=str(tmp_path / "images.npy"), range=(0.0, 1.0), fractions=(0.8, 0.1, 0.1), foreground=0.0)
    config.steps = config.eval_every = 50
    said = []
    for _ in range(2):  # the same command meets the same batch
        with pytest.raises(UserError, match=r"^step \d+: model/\w+ is not finite, on samples (\d+, ){3}\d+; ") as caught:
            train(config, tmp_path / "run")
        said.append(re.sub(r"; the last.*", "", str(caught.value)))
    assert said[0] == said[1]
