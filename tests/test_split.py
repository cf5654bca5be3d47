"""Splits by subject, slab and the makers' own parts."""

import itertools

import numpy as np
import pytest

from medjax.data.split import describe, split
from medjax.types import UserError
from tests.records import numbered


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
