"""Training straight from shards: the batches of the unpacked set, bit for bit, and nothing unpacked."""

import itertools
import json
import os
import pickle
from contextlib import closing

import numpy as np
import pytest

from medjax.data.pipeline import eval_batches, train_stream, value_range
from medjax.data.sources.files import Files
from medjax.data.sources.shards import Shards
from medjax.data.split import split
from medjax.data.storage import shard_writer
from medjax.data.storage.builder import builder_class
from medjax.data.storage.shard_reader import index_of
from medjax.types import UserError
from tests.commands import ROOT, SMALL, command
from tests.records import equal

FEW = 60


def build(folder, name="phantoms", **options):
    shard_writer.build(builder_class(ROOT / "datasets" / f"{name}.py")(**options), folder)
    return folder


@pytest.fixture(scope="module")
def blocks(tmp_path_factory):
    """Thirty-two training blocks, each with a mask; whole volumes to validate and test."""
    return build(tmp_path_factory.mktemp("blocks") / "1.0.0", shape=(16, 32, 32), count=6, patch=(8, 16, 16), overlap=0)


@pytest.fixture(scope="module")
def both(blocks, tmp_path_factory):
    """The parts of the same set, unpacked and in place."""
    unpacked = Files(path=str(blocks), cache=str(tmp_path_factory.mktemp("cache"))).load()
    return split(unpacked), split(Shards(str(blocks)).load())


def broken(folder, break_file):
    for path in folder.glob("*train*-of-?????"):
        break_file(path)


def vanish(path):
    path.unlink()


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def damage(path):
    stored = np.memmap(path, np.uint8, "r+")
    stored[1000:] ^= 255


def same(one, other):
    return equal(one, other) and all(one[key].dtype == other[key].dtype for key in one if key != "name")


# The same


@pytest.mark.parametrize(("ndim", "patch", "workers"), [(2, (8, 12), 0), (2, (), 1), (3, (8, 10, 12), 0), (3, (4, 8, 8), 1)])
def test_batches_are_those_of_the_unpacked_set(both, ndim, patch, workers):
    streams = [train_stream(parts["train"], batch_size=4, patch=patch, ndim=ndim, seed=5, foreground=0.7, workers=reading)
               for parts, reading in zip(both, (0, workers), strict=True)]
    for one, other in itertools.islice(zip(*streams, strict=True), 20):
        assert same(one, other)
    for stream in streams:
        stream.close()


@pytest.mark.parametrize("ndim", [2, 3])
def test_what_is_judged_is_the_same_and_whole(both, ndim):
    unpacked, in_place = (list(eval_batches(parts["val"], batch_size=3, ndim=ndim)) for parts in both)
    assert unpacked[0]["image"].shape[1:-1] == (16, 32, 32)[-ndim:]
    assert all(same(one, other) for one, other in zip(unpacked, in_place, strict=True))
    assert value_range(both[0]["train"]) == value_range(both[1]["train"])


def test_records_are_those_of_the_unpacked_set(both):
    for part in both[0]:
        for one, other in zip(*(parts[part] for parts in both), strict=True):
            one, other = one.record, other.record
            assert (one.id, one.subject, one.slope, one.intercept, one.spacing_mm, one.modality) == (
                other.id, other.subject, other.slope, other.intercept, other.spacing_mm, other.modality)
            np.testing.assert_array_equal(one.affine, other.affine)
            assert one.extras.keys() == other.extras.keys()
            for a, b in [(one.image, other.image), *((one.extras[name], other.extras[name]) for name in one.extras)]:
                assert (a.shape, a.dtype) == (b.shape, b.dtype)
                np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_classes_are_known_without_reading(tmp_path):
    random = np.random.default_rng(0)
    arrays = {f"{part}_{what}": random.integers(0, 3, (9, *shape)).astype(np.uint8)
              for part in ("train", "val", "test") for what, shape in (("images", (12, 12)), ("labels", (1,)))}
    np.savez(tmp_path / "mnist.npz", **arrays)
    folder = build(tmp_path / "1.0.0", "medmnist", source=str(tmp_path / "mnist.npz"))
    unpacked = split(Files(path=str(folder), cache=str(tmp_path / "cache")).load())["train"]
    in_place = split(Shards(str(folder)).load())["train"]
    assert same(*(next(train_stream(regions, batch_size=9, patch=(8, 8))) for regions in (unpacked, in_place)))
    broken(folder, vanish)
    assert sorted(region.record.extras["class"] for region in in_place) == sorted(arrays["train_labels"].ravel())


def test_slabs_of_one_volume_without_tissue_in_a_part(tmp_path):
    image = np.zeros((40, 16, 16), np.int16)
    image[2:6, 4:12, 4:12] = 700  # in the training slab; the others have no points to draw around
    np.save(tmp_path / "one.npy", image)
    np.save(tmp_path / "two.npy", np.zeros_like(image))
    folder = build(tmp_path / "1.0.0", "files", source=str(tmp_path))
    parts = [split(source.load()) for source in (Files(str(folder), cache=str(tmp_path / "cache")), Shards(str(folder)))]
    for name in ("train", "val"):
        one, other = (next(train_stream(part[name], batch_size=8, patch=(4, 4), foreground=1.0)) for part in parts)
        assert same(one, other)


def test_a_stream_goes_on_bit_for_bit_whatever_the_workers_and_the_source(both):
    def make(number, workers=0):
        return train_stream(both[number]["train"], batch_size=4, patch=(4, 8, 8), ndim=3, seed=7, foreground=0.5,
                            workers=workers)

    with closing(make(0)) as unbroken:
        expected = [next(unbroken) for _ in range(9)]
    state = None
    for position, (number, workers) in enumerate(((1, 0), (1, 1), (0, 0))):
        with closing(make(number, workers)) as stream:
            if state:
                stream.set_state(json.loads(json.dumps(state)))
            assert all(equal(next(stream), batch) for batch in expected[3 * position:3 * position + 3])
            state = stream.get_state()


# What is read, and when


def test_only_the_index_is_read_before_a_batch_and_little_is_sent(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = build(tmp_path / "1.0.0", shape=(16, 32, 32), count=5, patch=(8, 16, 16), overlap=0)
    kept = {path: path.read_bytes() for path in folder.glob("*-of-?????")}
    for path, stored in kept.items():
        path.write_bytes(bytes(len(stored)))
    regions = split(Shards(str(folder)).load())["train"]
    stream = train_stream(regions, batch_size=2, patch=(8, 8), foreground=0.5)
    for path, stored in kept.items():
        path.write_bytes(stored)
    sent = pickle.dumps(stream._patches)
    assert len(regions) == 24
    assert len(sent) < 1000 * len(regions) < 8 * 16 * 16 * len(regions)
    again = pickle.loads(sent)
    assert equal(again[3], stream._patches[3])
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("stage", ["missing", "alone", "damaged", "cut"])
def test_a_set_without_a_sound_index_is_one_line(tmp_path, stage):
    folder = build(tmp_path / "1.0.0", shape=(16, 16), count=5)
    shard = sorted(folder.glob("*train*-of-?????"))[1]
    says = f"{index_of(shard).name}: no such file"
    if stage == "missing":
        for path in folder.glob("*.index"):
            path.unlink()
        says = r"1\.0\.0: has no index, so it can't be read in place; give it as --config\.data\.path"
    elif stage == "alone":
        index_of(shard).unlink()
    elif stage == "damaged":
        stored = index_of(shard).read_bytes()
        index_of(shard).write_bytes(stored[:20] + b"\0\0\0\0" + stored[24:])
        says = f"{index_of(shard).name}: damaged"
        with pytest.raises(UserError, match=f"{index_of(shard).name}: fails its checksum"):
            shard_writer.verify(folder)
    else:
        cut(index_of(shard))
        says = rf"{index_of(shard).name}: has \d+ bytes of"
    with pytest.raises(UserError, match=says) as caught:
        Shards(str(folder)).load()
    assert "\n" not in str(caught.value)
    assert len(Files(str(folder), cache=str(tmp_path / "cache")).load()) == 5  # which needs none
    index_of(shard).unlink(missing_ok=True)
    build(folder, shape=(16, 16), count=5)  # the same command makes what is missing
    shard_writer.verify(folder)
    assert len(Shards(str(folder)).load()) == 5


@pytest.mark.parametrize("path", ["", "nothing"])
def test_a_path_that_is_no_prepared_set_is_said(tmp_path, path):
    with pytest.raises(UserError, match=r"config\.data\.source\.path: no prepared data set in .*; give the folder"):
        Shards(path and str(tmp_path / path)).load()


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "break_file", "says"), [
    (0, vanish, "is gone"), (1, vanish, "is gone"),
    (0, cut, "damaged: "), (0, damage, "damaged: .*hash mismatch")])
def test_a_shard_that_breaks_under_a_stream_is_named(tmp_path, workers, break_file, says):
    folder = build(tmp_path / "1.0.0", shape=(64, 64), count=30)
    stream = train_stream(split(Shards(str(folder)).load())["train"], batch_size=4, patch=(16, 16), workers=workers)
    next(stream)
    broken(folder, break_file)
    with pytest.raises(UserError, match=rf"phantoms-train.array_record-\d{{5}}-of-\d{{5}}: {says}") as caught:
        list(itertools.islice(stream, FEW))
    assert "\n" not in str(caught.value)
    stream.close()


@pytest.mark.slow
def test_a_run_from_shards_is_trained_and_evaluated(blocks, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    small = [flag.replace("quickstart.py", "quickstart.py:source=shards").replace("(24,24)", "(16,16)") for flag in SMALL]
    code, _, err = command("train.py", *small, f"--workdir={tmp_path / 'run'}", f"--config.data.source.path={blocks}",
                           "--config.steps=2", "--config.data.workers=1")
    assert code == 0, err
    found = json.loads((tmp_path / "run" / "eval" / "metrics.json").read_text())
    assert found["n"] > 0
    assert found["rows"]["model"]["psnr"] > 0
    assert not (tmp_path / "cache" / "medjax").exists()
