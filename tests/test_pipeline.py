"""The stream of patches, and evaluation batches."""

import itertools
import json
import pickle
from functools import partial

import numpy as np
import pytest

from medjax.data.pipeline import Share, eval_batches, train_stream, value_range
from medjax.data.split import Region
from medjax.data.statistics import foreground
from medjax.types import Record, UserError
from tests.records import equal, numbered, regions_of


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
    (evaluated,) = eval_batches(regions_of(Record(image, "a", "a", extras=extras)), batch_size=6)
    np.testing.assert_array_equal(evaluated["label"], evaluated["image"] % 5)
    stream.close()
    with pytest.raises(UserError, match="b: has no label"):
        train_stream(regions_of(Record(image, "a", "a", extras=extras), Record(image, "b", "b")), batch_size=1, patch=(3, 4))


def test_processes_share_a_batch():
    make = partial(train_stream, regions_of(numbered((9, 16, 16))), batch_size=8, patch=(4, 4), seed=3, foreground=0.5)
    whole, parts = make(), [make(share=Share(i, 4)) for i in range(4)]
    for _ in range(3):
        batch, pieces = next(whole), [next(part) for part in parts]
        assert equal(batch, {key: np.concatenate([piece[key] for piece in pieces]) for key in batch})
    for stream in (whole, *parts):
        stream.close()


def test_a_stream_resumes_bit_for_bit_whatever_the_workers(mapped_regions):
    make = partial(train_stream, mapped_regions, batch_size=4, patch=(4, 8, 8), ndim=3, seed=7, foreground=0.5)
    with_none = make()
    expected = [next(with_none) for _ in range(14)]
    position = 0
    for workers in (0, 1, 2, 0):
        stream = make(workers=workers)
        stream.set_state(json.loads(json.dumps(state)) if position else stream.get_state())
        assert equal(stream.first(), expected[0])
        for _ in range(3):
            assert equal(next(stream), expected[position])
            position += 1
        state = stream.get_state()
        next(stream)  # read after the state was taken: dropped by the next stream
        stream.close()
    assert state["batches"] == 12
    with_none.close()


def test_another_seed_or_batch_size_does_not_resume(mapped_regions):
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
    ({"batch_size": 3, "share": Share(0, 2)}, r"config\.batch_size"),
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


def test_evaluation_skips_images_without_a_voxel_that_counts_and_can_be_thinned():
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
    parts = [list(make(share=Share(i, 2))) for i in range(2)]
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
