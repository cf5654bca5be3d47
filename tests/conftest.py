"""Strict numerics, eight virtual CPU devices, and each program compiled once for all tests and their commands."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

# Most of the time goes into compiling.
os.environ["XLA_FLAGS"] = " ".join([
    os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=8", "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true"])
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")

import jax
import jaxtyping
import numpy as np
import pytest

from tests import typecheck

typecheck.install()

# Only now, so that the hook sees them.
from medjax.data.sources.files import Files  # noqa: E402
from medjax.types import Region  # noqa: E402
from tests.commands import SMALL, command  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as a job in the background, whose commands would ignore Ctrl-C, too
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Types and shapes are not checked: for mistakes that only a user without a type checker can make."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real scans, from MEDJAX_TEST_DATA."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("MEDJAX_TEST_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real scans in {folder}; set MEDJAX_TEST_DATA to a folder that has them")
    return folder


@pytest.fixture(scope="session")
def mapped_regions(tmp_path_factory) -> list[Region]:
    """Four volumes of 10 x 20 x 20, unpacked into a cache."""
    folder = tmp_path_factory.mktemp("volumes")
    for i in range(4):
        np.save(folder / f"v{i}.npy", np.random.default_rng(i).integers(-1000, 1000, (10, 20, 20)).astype(np.int16))
    return [Region.whole(record) for record in Files(path=str(folder), cache=str(folder / "cache")).load()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A network that has just begun: what it makes is near its input."""
    workdir = tmp_path_factory.mktemp("runs") / "begun"
    code, _, err = command("train.py", *SMALL, "--config.steps=1", f"--workdir={workdir}")
    assert code == 0, err
    return workdir
