"""The cache of unpacked volumes."""

import multiprocessing
import os
import resource
import signal
import stat
import threading
import time
from dataclasses import replace

import nibabel
import numpy as np
import pytest

from medjax.data import io
from medjax.data.pipeline import train_stream
from medjax.data.sources.files import Files
from medjax.data.statistics import foreground
from medjax.data.storage import cache
from medjax.data.storage.mapped import Mapped
from medjax.types import UserError
from tests.cache_child import unpack_and_be_killed, unpack_in_process
from tests.records import regions_of


def inside(root):
    """What is in a cache, the locks aside."""
    return sorted(path for path in root.iterdir() if path.name != cache.LOCKS)


def whole(root):
    """Its entries that are finished."""
    return [path for path in inside(root) if not path.name.startswith(cache.PARTIAL)]


@pytest.fixture
def one_file(tmp_path):
    path = tmp_path / "in" / "sub-1.nii.gz"
    path.parent.mkdir()
    nibabel.save(nibabel.Nifti1Image(np.arange(24000, dtype=np.int16).reshape(20, 30, 40), np.diag([1, 2, 3, 1])), path)
    return path


def test_the_cache_reads_once_and_gives_the_same(one_file, tmp_path, monkeypatch):
    (direct,) = io.read(one_file)
    studies = io.discover(one_file)
    cache.unpack(studies, tmp_path / "cache")
    monkeypatch.setattr(io.Study, "read", lambda self: pytest.fail("read again"))
    (record,) = cache.unpack(studies, tmp_path / "cache")
    assert isinstance(record.image, Mapped)
    np.testing.assert_array_equal(record.image, direct.image)
    np.testing.assert_array_equal(record.affine, direct.affine)
    for field in ("id", "subject", "slope", "intercept", "spacing_mm", "modality"):
        assert getattr(record, field) == getattr(direct, field)
    np.testing.assert_array_equal(record.extras["foreground"], foreground(direct))


def test_a_changed_file_is_unpacked_anew(one_file, tmp_path):
    cache.unpack(io.discover(one_file), tmp_path / "cache")
    nibabel.save(nibabel.Nifti1Image(np.full((20, 30, 41), 7, np.int16), np.eye(4)), one_file)
    (record,) = cache.unpack(io.discover(one_file), tmp_path / "cache")
    assert record.image.shape == (41, 30, 20, 1)


@pytest.mark.parametrize("damage", ["no index", "half an index", "half an array", "killed while writing"])
def test_a_half_written_cache_is_never_used(one_file, tmp_path, damage, monkeypatch):
    root = tmp_path / "cache"
    if damage == "killed while writing":
        with monkeypatch.context() as patch:
            patch.setattr(cache.os, "rename", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            patch.setattr(cache.shutil, "rmtree", lambda *_, **__: None)  # as kill -9: nothing is cleaned up
            with pytest.raises(KeyboardInterrupt):
                cache.unpack(io.discover(one_file), root)
        assert [p.name.startswith(cache.PARTIAL) for p in inside(root)] == [True]
    else:
        cache.unpack(io.discover(one_file), root)
        (home,) = inside(root)
        path = home / ("0000_image.npy" if "array" in damage else cache.ENTRY)
        data = path.read_bytes()
        path.unlink() if damage == "no index" else path.write_bytes(data[:len(data) // 2])
    (record,) = cache.unpack(io.discover(one_file), root)
    np.testing.assert_array_equal(record.image, io.read(one_file)[0].image)


def test_bad_input_leaves_nothing_in_the_cache(tmp_path):
    np.save(tmp_path / "nan.npy", np.full((4, 4), np.nan))
    with pytest.raises(UserError, match=r"nan\.npy: 16 of 16 values"):
        Files(path=str(tmp_path / "nan.npy"), cache=str(tmp_path / "cache")).load()
    assert inside(tmp_path / "cache") == []


def test_arrays_are_not_copied_into_the_cache(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((50, 50, 50), np.int16))
    (record,) = Files(path=str(tmp_path / "a.npy"), cache=str(tmp_path / "cache")).load()
    assert record.image.filename == str(tmp_path / "a.npy")
    assert sum(p.stat().st_size for p in (tmp_path / "cache").rglob("*.npy")) < 100_000


@pytest.mark.parametrize("change", [np.asfortranarray, lambda v: v.astype(">i2"), lambda v: v.T, lambda v: v[::-1]])
def test_arrays_in_any_order_are_unpacked(tmp_path, change):
    values = change(np.random.default_rng(0).integers(0, 99, (5, 6, 7)).astype(np.int16))
    np.save(tmp_path / "a.npy", values)
    (record,) = Files(path=str(tmp_path / "a.npy"), cache=str(tmp_path / "cache")).load()
    np.testing.assert_array_equal(np.asarray(record.image)[..., 0], values)
    assert record.image.dtype == np.int16


def test_everything_of_a_record_comes_back(one_file, tmp_path, monkeypatch):
    (direct,) = io.read(one_file)
    full = replace(direct, modality="MR", units="a.u.", contrasts=("T1", "FLAIR"), extras={
        "ct_geometry": np.array('{"beam": "fan"}'), "class": np.array(3), "sinogram": np.ones((3, 40, 1), np.float32)})
    monkeypatch.setattr(io.Study, "read", lambda self: [full])
    for _ in range(2):
        (record,) = cache.unpack(io.discover(one_file), tmp_path / "cache")
        assert (record.modality, record.units, record.contrasts) == ("MR", "a.u.", ("T1", "FLAIR"))
        assert {key: np.asarray(value).tolist() for key, value in record.extras.items() if key != "foreground"} == {
            key: value.tolist() for key, value in full.extras.items()}


def test_the_cache_is_private_and_names_nobody(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    folder = tmp_path / "DOE^JANE" / "sub-77"
    folder.mkdir(parents=True)
    np.save(folder / "JANE.npy", np.ones((4, 5)).cumsum(0))
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 5, 6, 2)).cumsum(0), np.eye(4)), folder / "DOE.nii")
    records = Files(path=str(tmp_path / "DOE^JANE")).load()
    assert {record.subject for record in records} == {"sub-77"}
    assert [record.id for record in records] == ["sub-77/DOE#000", "sub-77/DOE#001", "sub-77/JANE"]
    root = cache.default_folder()
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    for path in root.rglob("*"):
        assert not path.is_dir() or stat.S_IMODE(path.stat().st_mode) == 0o700
        told = str(path.relative_to(root)).encode() + (path.read_bytes() if path.is_file() else b"")
        assert not any(name in told for name in (b"DOE", b"JANE", b"sub-77"))
    root.chmod(0o755)  # as it was made by others
    Files(path=str(tmp_path / "DOE^JANE")).load()
    assert stat.S_IMODE(root.stat().st_mode) == 0o700


def test_a_version_tells_one_source_from_another(one_file, tmp_path):
    (first,) = cache.unpack(io.discover(one_file), tmp_path / "cache")
    (again,) = cache.unpack(io.discover(one_file), tmp_path / "other")
    assert first.image.version == again.image.version != ""
    os.utime(one_file, ns=(1, 1))
    assert cache.unpack(io.discover(one_file), tmp_path / "cache")[0].image.version != first.image.version


# Several processes


def test_processes_divide_a_cold_cache(tmp_path):
    """benchmarks/cold_cache.py does the same many times, and kills some."""
    (tmp_path / "in").mkdir()
    sums = []
    for number in range(24):
        values = np.full((40, 40, 10), number, np.int16)
        values[0] = 1
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "in" / f"s{number}.nii.gz")
        sums.append(int(values.sum()))
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(2), context.Queue()
    given = (tmp_path / "in", tmp_path / "cache", barrier, answers)
    processes = [context.Process(target=unpack_in_process, args=given) for _ in range(2)]
    for process in processes:
        process.start()
    found = [answers.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
        process.close()
    assert [images for _, images in found] == [sorted(sums)] * 2
    assert sum(count for count, _ in found) == 24  # each was unpacked once
    assert len(inside(tmp_path / "cache")) == 24


def test_a_study_that_another_unpacks_is_waited_for(one_file, tmp_path):
    """Others are unpacked in the meantime; a sound entry that came while one waited is taken as it is."""
    other = one_file.with_name("sub-2.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 4, 4)).cumsum(0), np.eye(4)), other)
    studies = io.discover(one_file.parent)
    cache.unpack(studies[:1], tmp_path / "made")
    (entry,) = inside(tmp_path / "made")
    root = cache._opened(tmp_path / "cache")
    done = []
    with cache._locked(root / entry.name, wait=False) as lock:
        assert lock is cache._Lock.MINE
        thread = threading.Thread(target=lambda: done.extend(cache.unpack(studies, root)))
        thread.start()
        deadline = time.monotonic() + 30
        while not whole(root) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(whole(root)) == 1
        assert not done
        (root / entry.name).mkdir()
        for path in entry.iterdir():
            (root / entry.name / path.name).write_bytes(path.read_bytes())
        inode = (root / entry.name).stat().st_ino
    thread.join(30)
    assert [record.id for record in done] == ["sub-1", "sub-2"]
    assert (root / entry.name).stat().st_ino == inode  # a sound entry is not replaced


def test_what_a_kill_leaves_behind_is_removed_by_the_next_run(one_file, tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=unpack_and_be_killed, args=(one_file, tmp_path / "cache"))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    process.close()
    assert [path.name.startswith(cache.PARTIAL) for path in inside(tmp_path / "cache")] == [True]
    (record,) = cache.unpack(io.discover(one_file), tmp_path / "cache")
    np.testing.assert_array_equal(record.image, io.read(one_file)[0].image)
    assert [path.name.startswith(cache.PARTIAL) for path in inside(tmp_path / "cache")] == [False]


def test_many_images_do_not_need_many_open_files(tmp_path):
    for i in range(500):
        np.save(tmp_path / f"{i:03d}.npy", np.arange(i, i + 36, dtype=np.int16).reshape(6, 6))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 300, hard))
        records = Files(path=str(tmp_path), cache=str(tmp_path / "cache")).load()
        stream = train_stream(regions_of(*records), batch_size=500, patch=(6, 6), foreground=0.5)
        batch = next(stream)
        stream.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert sorted(batch["image"][:, 0, 0, 0].tolist()) == list(range(500))


def test_a_cache_that_cannot_be_is_said(one_file, tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(UserError, match="can't be used as a cache"):
        cache.unpack(io.discover(one_file), tmp_path / "taken")
