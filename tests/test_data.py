"""Splits, the cache, the stream of patches, evaluation batches, augmentation, and the way onto the devices."""

import itertools
import json
import os
import pickle
import resource
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import nibabel
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from scipy import ndimage

from medjax import lookup
from medjax.data import cache, io
from medjax.data.augment import Augment
from medjax.data.mapped import Mapped
from medjax.data.pipeline import eval_batches, train_stream, value_range
from medjax.data.prefetch import to_device
from medjax.data.sources.files import Files
from medjax.data.sources.phantoms import Phantoms
from medjax.data.split import Region, describe, split
from medjax.data.statistics import foreground
from medjax.types import Record, UserError


def numbered(shape: tuple[int, ...], name: str = "a", offset: int = 0, **given) -> Record:
    """A record in which every voxel's value says where it is."""
    size = int(np.prod(shape))
    image = np.arange(offset, offset + size, dtype=np.int32).reshape(*shape, 1)
    return Record(image, name, given.pop("subject", name), **given)


def regions_of(*records: Record) -> list[Region]:
    return [Region.whole(record) for record in records]


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


# Splits


def test_split_is_by_subject_whole_and_the_same_in_any_order():
    records = [numbered((4, 4), f"{s}-{i}", subject=f"s{s}") for s in range(40) for i in range(3)]
    splits = split(records)
    subjects = {name: {r.record.subject for r in regions} for name, regions in splits.items()}
    assert {name: len(s) for name, s in subjects.items()} == {"train": 32, "val": 4, "test": 4}
    assert not any(a & b for a, b in itertools.combinations(subjects.values(), 2))
    assert sum(len(regions) for regions in splits.values()) == len(records)
    again = split(records[::-1])
    assert {name: {r.record.subject for r in regions} for name, regions in again.items()} == subjects
    assert {r.record.subject for r in split(records, seed=1)["test"]} != subjects["test"]


@pytest.mark.parametrize("count", range(3, 12))
def test_every_part_has_a_subject(count):
    splits = split([numbered((4, 4), f"s{i}") for i in range(count)])
    assert min(len(regions) for regions in splits.values()) >= 1
    assert sum(len(regions) for regions in splits.values()) == count


@pytest.mark.parametrize("depth", [16, 40, 189, 1000])
def test_a_single_volume_is_cut_into_slabs_apart_from_each_other(depth):
    splits = split([numbered((depth, 2, 2))])
    owner = np.full(depth, "", object)
    for name, regions in splits.items():
        for region in regions:
            assert (owner[region.start:region.stop] == "").all()
            owner[region.start:region.stop] = name
            np.testing.assert_array_equal(region.image, region.record.image[region.start:region.stop])
    assert set(owner) == {"train", "val", "test", ""}
    for one, other in itertools.combinations(("train", "val", "test"), 2):
        distance = min(abs(a - b) for a in np.flatnonzero(owner == one) for b in np.flatnonzero(owner == other))
        assert distance > max(2, round(0.025 * depth))
    assert "fewer than three subjects" in describe(splits)[-1]


def test_a_part_that_is_not_wanted_is_empty():
    splits = split([numbered((4, 4), f"s{i}") for i in range(10)], (1.0, 0.0, 0.0))
    assert [len(regions) for regions in splits.values()] == [10, 0, 0]
    assert [len(r) for r in split([numbered((40, 4, 4))], (0.8, 0.0, 0.2)).values()] == [2, 0, 1]


def test_split_says_what_is_wrong():
    for fractions in ((0.5, 0.1, 0.1), (0.8, 0.2), (0.0, 0.5, 0.5), (1.2, -0.1, -0.1)):
        with pytest.raises(UserError, match=r"config\.data\.fractions"):
            split([numbered((4, 4))], fractions)
    with pytest.raises(UserError, match="at least 16 slices"):
        split([numbered((8, 4, 4))])
    with pytest.raises(UserError, match="nothing to split"):
        split([])


def test_the_makers_parts_hold():
    records = [numbered((4, 4), f"s{i}", extras={"part": np.array(part)})
               for i, part in enumerate(["train"] * 9 + ["test"] * 5)]
    splits = split(records)
    assert {r.record.id for r in splits["test"]} == {f"s{i}" for i in range(9, 14)}
    assert len(splits["val"]) == 1
    assert len(splits["train"]) == 8


# The stream of patches


@pytest.mark.parametrize(("ndim", "patch"), [(2, (4, 5)), (2, ()), (3, (3, 4, 5)), (3, ())])
def test_patches_are_boxes_of_the_volume(ndim, patch):
    record = numbered((6, 8, 10), slope=2.0, intercept=-1.0)
    stream = train_stream(regions_of(record), batch_size=8, patch=patch, ndim=ndim, seed=1)
    for batch in itertools.islice(stream, 5):
        assert batch["image"].dtype == np.int32
        assert batch["image"].shape == (8, *(patch or (6, 8, 10)[-ndim:]), 1)
        assert "mask" not in batch
        for box in batch["image"][..., 0]:
            z, y, x = np.unravel_index(box.flat[0], (6, 8, 10))
            start = [z, y, x][-ndim:]
            whole = record.image[z, ..., 0] if ndim == 2 else record.image[..., 0]
            np.testing.assert_array_equal(box, whole[tuple(slice(s, s + n) for s, n in zip(start, box.shape, strict=True))])
        np.testing.assert_array_equal(batch["slope"], np.full(8, 2, np.float32))
        np.testing.assert_array_equal(batch["intercept"], np.full(8, -1, np.float32))
    stream.close()


def test_every_slice_comes_once_an_epoch_and_in_another_order_the_next():
    records = [numbered((7, 4, 4), "a"), numbered((5, 4, 4), "b", offset=1000)]
    stream = train_stream(regions_of(*records), batch_size=4, patch=(4, 4))
    epochs = [[int(v) for _ in range(3) for v in next(stream)["image"][:, 0, 0, 0]] for _ in range(2)]
    everything = [16 * z for z in range(7)] + [1000 + 16 * z for z in range(5)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == everything
    assert epochs[0] != epochs[1]
    stream.close()


def test_samples_have_names_of_their_own_and_a_sample_keeps_its_id():
    stream = train_stream(regions_of(numbered((30, 8, 8))), batch_size=30, patch=(8, 8))
    first, second = next(stream), next(stream)
    assert len(set(first["id"].tolist())) == 30
    by_slice = dict(zip(first["image"][:, 0, 0, 0].tolist(), first["id"].tolist(), strict=True))
    assert dict(zip(second["image"][:, 0, 0, 0].tolist(), second["id"].tolist(), strict=True)) == by_slice
    stream.close()


def test_foreground_draws_around_tissue():
    image = np.zeros((20, 64, 64, 1), np.uint8)
    image[12:15, 40:44, 8:12] = 200
    for ndim, patch in ((2, (8, 8)), (3, (4, 8, 8))):
        hits = {}
        for share in (0.0, 0.7, 1.0):
            stream = train_stream(regions_of(Record(image, "a", "a")), batch_size=200, patch=patch, ndim=ndim,
                                  foreground=share)
            hits[share] = np.mean([box.any() for box in next(stream)["image"]])
            stream.close()
        assert hits[0.0] < 0.1
        assert 0.6 < hits[0.7] < 0.8
        assert hits[1.0] == 1


def test_foreground_stays_inside_its_slab_and_mask():
    image = np.full((40, 16, 16, 1), 100, np.int16)
    image[:, :8] = 0
    mask = np.ones_like(image, bool)
    mask[..., 8:, :] = False
    record = Record(image, "a", "a", extras={"mask": mask})
    points = foreground(record)
    assert (points[:, 1] >= 8).all()
    assert (points[:, 2] < 8).all()
    stream = train_stream([Region(record, 10, 20)], batch_size=64, patch=(2, 2), foreground=1.0)
    batch = next(stream)
    assert batch["image"].max(axis=(1, 2, 3)).min() == 100
    stream.close()


def test_small_images_are_padded_with_their_edge_outside_the_mask():
    stream = train_stream(regions_of(numbered((3, 6)), numbered((8, 8), "b")), batch_size=16, patch=(5, 8))
    batch = next(stream)
    small = [i for i in range(16) if not batch["mask"][i].all()]
    assert small
    for i in small:
        assert batch["mask"][i].sum() == 18
        np.testing.assert_array_equal(batch["image"][i][batch["mask"][i]], np.arange(18))
        np.testing.assert_array_equal(batch["image"][i, ..., 0], np.pad(np.arange(18).reshape(3, 6), 1, "edge"))
    stream.close()


def test_labels_and_classes_travel_with_the_image():
    image = np.arange(6 * 8 * 8, dtype=np.int16).reshape(6, 8, 8, 1)
    extras = {"label": (image % 5).astype(np.uint8), "class": np.array(3, np.int32),
              "foreground": np.zeros((1, 3), np.int32)}
    stream = train_stream(regions_of(Record(image, "a", "a", extras=extras)), batch_size=4, patch=(3, 4))
    batch = next(stream)
    np.testing.assert_array_equal(batch["label"], batch["image"] % 5)
    np.testing.assert_array_equal(batch["class"], [3, 3, 3, 3])
    assert "foreground" not in batch
    (judged,) = eval_batches(regions_of(Record(image, "a", "a", extras=extras)), batch_size=6)
    np.testing.assert_array_equal(judged["label"], judged["image"] % 5)
    stream.close()
    with pytest.raises(UserError, match="b: has no label"):
        train_stream(regions_of(Record(image, "a", "a", extras=extras), Record(image, "b", "b")), batch_size=1, patch=(3, 4))


def test_processes_share_a_batch():
    make = partial(train_stream, regions_of(numbered((9, 16, 16))), batch_size=8, patch=(4, 4), seed=3, foreground=0.5)
    whole, parts = make(), [make(process_index=i, process_count=4) for i in range(4)]
    for _ in range(3):
        batch, pieces = next(whole), [next(part) for part in parts]
        assert equal(batch, {key: np.concatenate([piece[key] for piece in pieces]) for key in batch})
    for stream in (whole, *parts):
        stream.close()


@pytest.fixture(scope="module")
def mapped_regions(tmp_path_factory):
    folder = tmp_path_factory.mktemp("volumes")
    for i in range(4):
        np.save(folder / f"v{i}.npy", np.random.default_rng(i).integers(-1000, 1000, (10, 20, 20)).astype(np.int16))
    return regions_of(*Files(path=str(folder), cache=str(folder / "cache")).load())


def test_a_stream_goes_on_bit_for_bit_whatever_the_workers(mapped_regions):
    make = partial(train_stream, mapped_regions, batch_size=4, patch=(4, 8, 8), ndim=3, seed=7, foreground=0.5)
    with_none = make()
    expected = [next(with_none) for _ in range(14)]
    position = 0
    for workers in (0, 1, 2, 0):
        stream = make(workers=workers)
        stream.set_state(json.loads(json.dumps(state)) if position else stream.get_state())
        assert equal(stream.peek(), expected[position])
        for _ in range(3):
            assert equal(next(stream), expected[position])
            position += 1
        state = stream.get_state()
        next(stream)  # read after the state was taken: dropped by the next stream
        stream.close()
    assert state["batches"] == 12
    with_none.close()


def test_another_seed_or_batch_size_does_not_go_on(mapped_regions):
    state = train_stream(mapped_regions, batch_size=4, patch=(4, 4), seed=1).get_state()
    with pytest.raises(UserError, match="seed"):
        train_stream(mapped_regions, batch_size=4, patch=(4, 4), seed=2).set_state(state)
    with pytest.raises(UserError, match="batch_size"):
        train_stream(mapped_regions, batch_size=8, patch=(4, 4), seed=1).set_state(state)


def test_workers_are_sent_file_names_not_voxels(mapped_regions):
    stream = train_stream(mapped_regions, batch_size=2, patch=(4, 4), foreground=0.5)
    sent = pickle.dumps(stream._patches.images)
    assert len(sent) < 4 * 10 * 20 * 20
    image = pickle.loads(sent).image(3, 9)
    np.testing.assert_array_equal(image, mapped_regions[3].image[9])


@pytest.mark.parametrize(("given", "where"), [
    ({"ndim": 3, "patch": (2, 2, 2)}, r"config\.data\.ndim: 3, but flat is a 2-D image"),
    ({"patch": (2, 2, 2)}, r"config\.data\.patch"),
    ({"patch": (0, 2)}, r"config\.data\.patch"),
    ({"foreground": 1.5}, r"config\.data\.foreground"),
    ({"batch_size": 0}, r"config\.batch_size"),
    ({"batch_size": 3, "process_count": 2}, r"config\.batch_size"),
])
def test_the_stream_says_what_is_wrong(given, where):
    with pytest.raises(UserError, match=where):
        train_stream(regions_of(numbered((9, 9), "flat")), **({"batch_size": 2} | given))


def test_grey_and_colour_do_not_mix():
    colour = Record(np.zeros((4, 4, 3), np.uint8), "c", "c")
    with pytest.raises(UserError, match="c has 3 channels, others have 1"):
        train_stream(regions_of(numbered((4, 4)), colour), batch_size=1)


def test_an_empty_part_is_said():
    with pytest.raises(UserError, match="has no images"):
        eval_batches([], batch_size=1)


# Evaluation batches


@pytest.mark.parametrize("ndim", [2, 3])
def test_evaluation_takes_everything_once_in_one_shape(ndim):
    records = [numbered((5, 7, 9), "a"), numbered((3, 8, 6), "b", offset=1000)]
    batches = eval_batches(regions_of(*records), batch_size=3, ndim=ndim, multiple_of=4)
    shape = (8, 8, 12)[-ndim:]
    seen, names = [], []
    for batch in batches:
        assert batch["image"].shape == (3, *shape, 1)
        for image, mask, count, name in zip(batch["image"], batch["mask"], batch["count"], batch["name"], strict=True):
            if count:
                seen += image[mask].tolist()
                names.append(name)
    assert sorted(seen) == sorted(np.concatenate([r.image.ravel() for r in records]).tolist())
    assert len(set(names)) == len(names) == batches.samples
    assert len(list(batches)) == len(batches)


def test_large_images_are_cut_into_tiles_that_cover_them():
    batches = eval_batches(regions_of(numbered((20, 30, 10))), batch_size=2, ndim=3, max_shape=(8, 16, 16), multiple_of=4)
    assert batches.shape == (8, 16, 12)
    seen = set()
    for batch in batches:
        seen |= set(batch["image"][batch["mask"]].tolist())
    assert seen == set(range(20 * 30 * 10))
    assert batches.samples == 6


def test_evaluation_skips_what_has_nothing_to_judge_and_can_be_thinned():
    mask = np.zeros((10, 4, 4, 1), bool)
    mask[3:9] = True
    record = numbered((10, 4, 4), extras={"mask": mask})
    names = [n for b in eval_batches(regions_of(record), batch_size=2) for n in b["name"]]
    assert names == [f"a:z{z}" for z in range(3, 9)]
    assert [n for b in eval_batches(regions_of(record), batch_size=2, limit=2) for n in b["name"]] == ["a:z4", "a:z7"]
    with pytest.raises(UserError, match="inside its mask"):
        eval_batches(regions_of(numbered((4, 4), extras={"mask": np.zeros((4, 4, 1), bool)})), batch_size=1)


def test_evaluation_processes_share_a_batch():
    make = partial(eval_batches, regions_of(numbered((5, 4, 4))), batch_size=4)
    parts = [list(make(process_index=i, process_count=2)) for i in range(2)]
    for whole, first, second in zip(make(), *parts, strict=True):
        np.testing.assert_array_equal(whole["image"], np.concatenate([first["image"], second["image"]]))
        assert whole["name"] == first["name"] + second["name"]


def test_value_range_is_of_the_regions_alone_in_units():
    record = numbered((40, 10, 10), slope=0.5, intercept=-100.0)
    low, high = value_range([Region(record, 10, 20)], (0, 100))
    assert (low, high) == (1000 * 0.5 - 100, 1999 * 0.5 - 100)
    noise = np.random.default_rng(0).normal(size=(200, 250, 200, 1)).astype(np.float32)
    found = value_range(regions_of(Record(noise, "n", "n")), (5, 99))
    np.testing.assert_allclose(found, np.percentile(noise, (5, 99)), atol=0.01)


# The cache


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
        assert [p.name.startswith(".partial-") for p in root.iterdir()] == [True]
    else:
        cache.unpack(io.discover(one_file), root)
        (home,) = root.iterdir()
        path = home / ("0000_image.npy" if "array" in damage else "index.json")
        data = path.read_bytes()
        path.unlink() if damage == "no index" else path.write_bytes(data[:len(data) // 2])
    (record,) = cache.unpack(io.discover(one_file), root)
    np.testing.assert_array_equal(record.image, io.read(one_file)[0].image)


def test_bad_input_leaves_nothing_in_the_cache(tmp_path):
    np.save(tmp_path / "nan.npy", np.full((4, 4), np.nan))
    with pytest.raises(UserError, match=r"nan\.npy: 16 of 16 values"):
        Files(path=str(tmp_path / "nan.npy"), cache=str(tmp_path / "cache")).load()
    assert list((tmp_path / "cache").iterdir()) == []


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


# Sources


def test_icbm152_lies_as_its_affine_says():
    (record,) = lookup.build("data.sources", lookup.spec("data.sources", "icbm152")).load()
    assert record.image.shape == (189, 233, 197, 1)
    assert record.image.dtype == np.uint8
    np.testing.assert_array_equal(record.affine @ [72, 134, 98, 1], [0, 0, 0, 1])  # the anterior commissure


@pytest.mark.parametrize("kind", ["chest", "brain"])
@pytest.mark.parametrize("shape", [(48, 64), (24, 32, 32)])
def test_phantoms_are_the_same_again_and_each_its_own(kind, shape):
    records = Phantoms(kind=kind, shape=shape, count=3, seed=5).load()
    again = Phantoms(kind=kind, shape=shape, count=5, seed=5).load()
    for a, b in zip(records, again, strict=False):
        np.testing.assert_array_equal(a.image, b.image)
    assert len({r.subject for r in again}) == 5
    assert len({r.image.tobytes() for r in again}) == 5
    for record in records:
        assert record.image.shape == (*shape, 1)
        assert record.extras["mask"].shape == (*shape, 1)
        inside, outside = record.image[record.extras["mask"]], record.image[~record.extras["mask"]]
        if kind == "chest":
            assert outside.max() < -200
            assert (inside < -700).any()  # lung
            assert (inside > 200).any()  # bone
        else:
            assert 0 <= inside.min() <= inside.max() <= 1000


def test_phantoms_say_what_is_wrong():
    for given in ({"kind": "knee"}, {"shape": (4, 4)}, {"shape": (64,)}):
        with pytest.raises(UserError):
            Phantoms(**given).load()


def test_radiographs_load_as_grey_and_split_by_patient(test_data, tmp_path, caplog):
    few = tmp_path / "images"
    few.mkdir()
    for path in sorted((test_data / "xray" / "images").iterdir())[:20]:
        (few / path.name).symlink_to(path)
    (tmp_path / "index.csv").symlink_to(test_data / "xray" / "index.csv")
    records = Files(path=str(few), cache=str(tmp_path / "cache")).load()
    assert {r.image.shape[-1] for r in records} == {1}
    assert len({r.subject for r in records}) < len(records)
    assert "are in colour" in caplog.text or all(not r.id.startswith("41182") for r in records)


def test_prepared_data_sets(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")

    class Tiny(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            tensor = partial(tfds.features.Tensor, encoding="bytes")
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({
                "image": tensor(shape=(None, None, 1), dtype=np.int16),
                "mask": tensor(shape=(None, None, 1), dtype=np.uint8),
                "subject": tfds.features.Text(), "intercept": tfds.features.Scalar(np.float32),
                "class": tfds.features.Scalar(np.int64)}))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(0, 4), "test": self._generate_examples(4, 6)}

        def _generate_examples(self, start, stop):
            for i in range(start, stop):
                image = np.full((6 + i, 8, 1), i, np.int16)
                image[0] += 1
                mask = (image > i).astype(np.uint8)
                yield f"k{i}", {"image": image, "mask": mask, "subject": f"p{i}", "intercept": -5.0, "class": i}

    builder = Tiny(data_dir=tmp_path / "tfds", file_format="array_record")
    builder.download_and_prepare()
    records = Files(path=str(builder.data_dir), cache=str(tmp_path / "cache")).load()
    assert sorted(r.subject for r in records) == [f"p{i}" for i in range(6)]
    for record in records:
        i = int(record.subject[1:])
        assert (record.image.shape, record.intercept) == ((6 + i, 8, 1), -5.0)
        assert int(record.extras["class"]) == i
        assert record.extras["mask"].dtype == bool
    splits = split(records)
    assert {r.record.subject for r in splits["test"]} == {"p4", "p5"}
    assert [len(r) for r in splits.values()] == [3, 1, 2]


# Augmentation


def batch_of(image: np.ndarray, **more) -> dict:
    n = len(image)
    return {"image": jnp.asarray(image), "slope": jnp.full(n, 2.0), "intercept": jnp.full(n, -3.0),
            "id": jnp.arange(n, dtype=jnp.uint32), "count": jnp.ones(n)} | {k: jnp.asarray(v) for k, v in more.items()}


@pytest.fixture(scope="module")
def pictures():
    random = np.random.default_rng(0)
    return ndimage.gaussian_filter(random.normal(size=(4, 24, 20, 1)), (0, 2, 2, 0)).astype(np.float32) * 100


def test_augmentation_off_is_the_batch_itself(pictures):
    batch = batch_of(pictures)
    assert Augment()(jax.random.key(0), batch) is batch


def test_flips_mirror_image_and_label_alike(pictures):
    label = (pictures > 0).astype(np.uint8)
    out = jax.jit(Augment(flip=0.5))(jax.random.key(1), batch_of(pictures, label=label))
    kinds = set()
    for before, after, mark in zip(pictures * 2 - 3, out["image"], out["label"], strict=True):
        mirrored = {axes: np.flip(before, axes) for axes in [(), (0,), (1,), (0, 1)]}
        (axes,) = [axes for axes, image in mirrored.items() if np.array_equal(image, after)]
        np.testing.assert_array_equal(mark, (after > -3).astype(np.uint8))
        kinds.add(axes)
    assert len(kinds) > 1
    np.testing.assert_array_equal(out["slope"], np.ones(4))


@pytest.mark.parametrize("shape", [(24, 20), (10, 12, 14)])
def test_the_warp_is_scipys(shape):
    image = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(2, *shape, 1)), 2).astype(np.float32) * 100
    augment = Augment(rotate=30.0, shear=0.2, zoom=0.3)
    key = jax.random.key(3)
    mask = np.ones(image.shape, bool)
    out = jax.jit(augment)(key, batch_of(image, mask=mask))
    for i in range(2):
        place_key, _ = jax.random.split(jax.random.fold_in(key, i))
        matrix = np.asarray(augment.matrix(jax.random.split(place_key)[1], len(shape)), np.float64)
        assert not np.allclose(matrix, np.eye(len(shape)), atol=0.05)
        centre = (np.array(shape) - 1) / 2
        expected = ndimage.affine_transform(image[i, ..., 0] * 2 - 3, matrix, centre - matrix @ centre, order=1,
                                            mode="nearest")
        np.testing.assert_allclose(out["image"][i, ..., 0], expected, atol=2e-2)
        grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
        places = (grid - centre) @ matrix.T + centre
        inside = ((places > 0.01) & (places < np.array(shape) - 1.01)).all(-1)
        outside = ((places < -0.51) | (places > np.array(shape) - 0.49)).any(-1)
        assert np.asarray(out["mask"])[i, ..., 0][inside].all()
        assert not np.asarray(out["mask"])[i, ..., 0][outside].any()


def test_rotation_alone_is_a_rotation():
    draw = jax.jit(lambda key: Augment(rotate=180.0).matrix(key, 3))
    for seed in range(5):
        matrix = np.asarray(draw(jax.random.key(seed)), np.float64)
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-5)
        np.testing.assert_allclose(np.linalg.det(matrix), 1, atol=1e-5)


def test_intensity_keeps_its_bounds_and_a_sample_its_draw(pictures):
    augment = jax.jit(Augment(scale=0.1, shift=0.05, contrast=0.3))
    out = np.asarray(augment(jax.random.key(0), batch_of(pictures))["image"])
    units = pictures * 2 - 3
    assert not np.allclose(out, units, atol=1)
    spans = np.ptp(out, axis=(1, 2, 3)) / np.ptp(units, axis=(1, 2, 3))
    assert ((spans >= 0.9 - 1e-5) & (spans <= 1.1 + 1e-5)).all()
    for before, after in zip(units, out, strict=True):
        np.testing.assert_array_equal(np.argsort(after.ravel(), kind="stable")[[0, -1]],
                                      np.argsort(before.ravel(), kind="stable")[[0, -1]])
    turned = {key: value[::-1] for key, value in batch_of(pictures).items()}
    np.testing.assert_array_equal(augment(jax.random.key(0), turned)["image"][::-1], out)


def test_augmentation_says_what_is_wrong():
    for given in ({"flip": 1.5}, {"zoom": -0.1}, {"scale": 2.0}):
        with pytest.raises(UserError, match=r"config\.augment\."):
            Augment(**given)


# Onto the devices


def shardings(batch: dict) -> dict:
    mesh = Mesh(np.array(jax.devices()), ("data",))
    return {name: NamedSharding(mesh, PartitionSpec("data")) for name in batch}


def test_batches_reach_all_devices_and_the_state_is_that_of_what_was_taken(mapped_regions):
    make = partial(train_stream, mapped_regions, batch_size=8, patch=(4, 4), seed=2)
    stream = make()
    expected = [next(stream) for _ in range(6)]
    stream.close()
    batches = to_device(make(), shardings, depth=3)
    for host in expected[:3]:
        batch = next(batches)
        assert len(batch["image"].sharding.device_set) == 8
        assert equal({k: np.asarray(v) for k, v in batch.items()}, host)
    state = batches.get_state()
    assert state["batches"] == 3
    assert batches.waited > 0
    next(batches)
    batches.set_state(state)
    assert equal({k: np.asarray(v) for k, v in next(batches).items()}, expected[3])
    batches.close()
    again = to_device(make(), shardings)
    again.set_state(state)
    assert equal({k: np.asarray(v) for k, v in next(again).items()}, expected[3])
    again.close()


def test_a_finite_iterable_ends_and_names_stay_on_the_host():
    batches = to_device(eval_batches(regions_of(numbered((10, 4, 4))), batch_size=8), shardings)
    names = [name for batch in batches for name in batch["name"]]
    assert len(names) == 16
    assert list(batches) == []
    batches.close()


def test_what_fails_behind_is_raised_in_front():
    def broken():
        yield {"image": np.zeros((8, 2, 2, 1))}
        raise UserError("file", "is broken")

    batches = to_device(broken(), shardings)
    next(batches)
    with pytest.raises(UserError, match="is broken"):
        next(batches)
    batches.close()


def test_reading_ahead_stops_when_asked():
    taken = SimpleNamespace(count=0)

    def endless():
        while True:
            taken.count += 1
            yield {"image": np.zeros((8, 2, 2, 1))}

    batches = to_device(endless(), shardings, depth=2)
    next(batches)
    batches.close()
    count = taken.count
    assert count <= 6
    assert batches._thread is None
