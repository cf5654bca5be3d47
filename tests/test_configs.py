"""Every config trains two steps and is evaluated, at a test size: `pytest -m slow`, a step of its own in CI."""

import importlib
import json
from pathlib import Path

import pytest

from medjax.evaluation.run import evaluate_run
from medjax.train.loop import train

NAMES = sorted(p.stem for p in (Path(__file__).parents[1] / "configs").glob("*.py") if p.stem not in ("base", "__init__"))
SMALL_NETWORK = {"width": 4, "depth": 2, "blocks": 1, "iterations": 2, "latent": 4}
KEEPS_SIZE = {"synthesis", "volume", "ct_recon", "ct_lowdose", "xray_classify"}  # network or scanner has its own sizes


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_config_trains_and_is_evaluated(name, tmp_path):
    config = importlib.import_module(f"configs.{name}").get_config("")
    config.steps = config.eval_every = config.checkpoint_every = 2
    config.log_every = config.eval_samples = 1
    config.batch_size = 2
    config.mesh.data = 1
    config.references = ("none",)  # each runs at a test size in test_masks.py
    config.optim.warmup = 0
    for key in SMALL_NETWORK.keys() & config.model.keys():
        if name not in KEEPS_SIZE and isinstance(config.model[key], int):
            config.model[key] = min(config.model[key], SMALL_NETWORK[key])
    if config.data.patch and name not in KEEPS_SIZE:
        config.data.patch = tuple(min(32, size) for size in config.data.patch)
    train(config, tmp_path / "run")
    evaluate_run(tmp_path / "run")
    found = json.loads((tmp_path / "run" / "eval" / "metrics.json").read_text())
    assert "model" in found["rows"]
    assert (tmp_path / "run" / "eval" / "report.html").stat().st_size > 10_000
