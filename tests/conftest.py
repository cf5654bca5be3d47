"""Strict numerics and eight virtual CPU devices for every test."""

import os
from pathlib import Path

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real scans, from MEDJAX_TEST_DATA."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("MEDJAX_TEST_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real scans in {folder}; set MEDJAX_TEST_DATA to a folder that has them")
    return folder
