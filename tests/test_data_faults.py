"""Data that vanishes, is cut off or finds no room, before a run and under it: one line, no hang, nothing half-written."""

import errno
import itertools
import os
import resource
import time
from pathlib import Path

import jax
import nibabel
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding
from PIL import Image

from medjax.data import io
from medjax.data.pipeline import train_stream
from medjax.data.prefetch import to_device
from medjax.data.sources.files import Files
from medjax.data.storage import cache
from medjax.types import Region, UserError
from tests.commands import SMALL, command

FEW = 200


def write_volumes(folder, count=4, shape=(20, 32, 32)):
    random = np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        np.save(folder / f"s{number}.npy", random.integers(0, 255, shape).astype(np.uint8))
    return folder


def device_batches(folder, cache_folder, workers):
    regions = [Region.whole(record) for record in Files(path=str(folder), cache=str(cache_folder)).load()]
    stream = train_stream(regions, batch_size=4, patch=(16, 16), workers=workers)
    return to_device(stream, lambda batch: dict.fromkeys(batch, SingleDeviceSharding(jax.devices()[0])))


def vanish(path):
    path.unlink()


def cut(path):
    os.truncate(path, 1000)


READER = """
import sys, time
from medjax.data.pipeline import train_stream
from medjax.data.sources.files import Files
from medjax.types import Region
if __name__ == "__main__":
    records = Files(path=sys.argv[1], cache=sys.argv[2]).load()
    stream = train_stream([Region.whole(record) for record in records], batch_size=4, patch=(16, 16), workers=2)
    next(stream)
    print("reading", flush=True)
    time.sleep(600)
"""


def children(pid: int) -> set[int]:
    return {int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()}


def test_reading_processes_end_with_the_one_that_started_them(tmp_path):
    script = tmp_path / "reader.py"
    script.write_text(READER)
    process = command(script, write_volumes(tmp_path / "in"), tmp_path / "cache", wait=False)
    assert process.stdout.readline() == "reading\n"
    readers = children(process.pid)
    assert len(readers) >= 2
    process.kill()
    process.communicate()
    end = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in readers) and time.monotonic() < end:
        time.sleep(0.1)
    assert not [pid for pid in readers if Path(f"/proc/{pid}").exists()]


# Under a run


def wait_until_idle() -> None:
    """Until this process's reading threads have filled their queues: a file cut while they copy would kill it."""
    before = -1.0
    while (now := time.process_time()) - before > 0.01:
        before = now
        time.sleep(0.2)


@pytest.mark.parametrize(("workers", "break_file", "says"), [
    (0, vanish, "can't be read any more"), (0, cut, "is cut off: 1000 of"),
    (1, cut, "is cut off: 1000 of"), (2, vanish, "can't be read any more")])
def test_a_file_that_breaks_under_a_stream_is_named(tmp_path, workers, break_file, says):
    """The first batches are taken before: the files are mapped by then, and to read past a mapped file's end would kill."""
    folder = write_volumes(tmp_path / "in")
    batches = device_batches(folder, tmp_path / "cache", workers)
    next(batches)
    wait_until_idle()
    for path in folder.iterdir():
        break_file(path)
    says = rf"s\d\.npy: {says}"
    if workers and break_file is cut:
        says += "|Worker process .* a file was cut off under it"  # in the midst of copying, the system ends the process
    with pytest.raises(UserError, match=says) as caught:
        list(itertools.islice(batches, FEW))
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=says):  # asked again, it ends again
        next(batches)
    begin = time.monotonic()
    batches.close()
    assert time.monotonic() - begin < 20


@pytest.mark.slow
def test_a_file_that_vanishes_under_a_training_ends_it_in_one_line(tmp_path):
    folder = write_volumes(tmp_path / "in")
    process = command("train.py", *SMALL, f"--workdir={tmp_path / 'run'}", f"--config.data.path={folder}",
                      "--config.steps=100000", "--config.eval_every=100000", wait=False)
    for _ in range(1200):
        if (tmp_path / "run" / "metrics.jsonl").exists() or process.poll() is not None:
            break
        time.sleep(0.05)
    for path in folder.iterdir():
        path.unlink()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2, err
    assert "Traceback" not in err
    last = err.splitlines()[-1]
    assert last.startswith(f"error: {folder}/s")
    assert "can't be read any more (No such file or directory)" in last


# Between listing and reading


def writers(folder):
    pixels = np.random.default_rng(0).integers(0, 255, (16, 16)).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "a.png")
    np.save(folder / "b.npy", pixels)
    nibabel.Nifti1Image(pixels, np.eye(4)).to_filename(folder / "c.nii.gz")


@pytest.mark.parametrize("name", ["a.png", "b.npy", "c.nii.gz"])
def test_a_file_that_goes_after_it_was_listed_is_named(tmp_path, name):
    writers(tmp_path)
    studies = io.discover(tmp_path / name)
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match=name):
        studies[0].read()
    with pytest.raises(UserError, match=f"{name}: can't be read"):
        cache.unpack(studies, tmp_path / "cache")


# No room


@pytest.fixture
def big_study(tmp_path):
    """A file that is small compressed, and 1 MB in the cache."""
    volume = np.arange(64 * 64 * 64, dtype=np.int32).reshape(64, 64, 64)
    nibabel.Nifti1Image(volume, np.eye(4)).to_filename(tmp_path / "big.nii.gz")
    return io.discover(tmp_path / "big.nii.gz")


def assert_unpacks(studies, folder):
    (record,) = cache.unpack(studies, folder)
    np.testing.assert_array_equal(np.sort(np.asarray(record.image), axis=None), np.arange(64 ** 3))


def test_a_full_disk_while_images_are_unpacked_leaves_nothing(tmp_path, big_study):
    """A limit on the size of files stands for the disk: the write fails in the middle, as it does there."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 17, hard))
    try:
        with pytest.raises(UserError, match=r"unpacking .*big.nii.gz failed: .*; make room") as caught:
            cache.unpack(big_study, tmp_path / "cache")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert {path.name for path in (tmp_path / "cache").iterdir()} <= {cache.LOCKS}
    assert_unpacks(big_study, tmp_path / "cache")


def full(*_args, **_kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(("owner", "what"), [(np, "save"), (Path, "write_text"), (os, "rename"), (os, "mkdir")])
def test_no_space_at_any_moment_leaves_nothing(tmp_path, monkeypatch, big_study, owner, what):
    (tmp_path / "cache").mkdir()
    with monkeypatch.context() as patched:
        patched.setattr(owner, what, full)
        with pytest.raises(UserError, match="No space left on device"):
            cache.unpack(big_study, tmp_path / "cache")
    assert {path.name for path in (tmp_path / "cache").iterdir()} <= {cache.LOCKS}
    assert_unpacks(big_study, tmp_path / "cache")


def test_a_damaged_entry_of_a_full_cache_is_not_trusted(tmp_path, monkeypatch, big_study):
    assert_unpacks(big_study, tmp_path / "cache")
    (entry,) = (tmp_path / "cache").glob("*/0000_image.npy")
    os.truncate(entry, 5000)
    with monkeypatch.context() as patched:
        patched.setattr(np, "save", full)
        with pytest.raises(UserError, match="No space left on device"):
            cache.unpack(big_study, tmp_path / "cache")
    assert_unpacks(big_study, tmp_path / "cache")  # the map of the damaged file is not used for the new one
