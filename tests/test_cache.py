"""The cache of unpacked volumes."""

import os
import resource

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
from tests.records import regions_of


def inside(root):
    """What is in a cache, the locks aside."""
    return sorted(path for path in root.iterdir() if path.name != cache.LOCKS)


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
