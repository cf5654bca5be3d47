"""Splits by subject, slab and the makers' own parts."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest

from medjax.data.split import assignment, changes, describe, fingerprint, split
from medjax.data.storage.mapped import Mapped
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


def of_subjects(*names):
    return [numbered((40, 4), name) for name in names]


def places(splits):
    """The part of each subject."""
    return {r.record.subject: name for name, regions in splits.items() for r in regions}


def names(*numbers):
    return [f"s{number:03d}" for number in numbers]


def test_subjects_stay_where_they_were_when_others_come_and_go():
    first = split(of_subjects(*names(*range(20))))
    held = json.loads(json.dumps(assignment(first)))
    assert not any(f"s{number:03d}" in key for key in held for number in range(20))
    assert assignment(split(of_subjects(*names(*range(20))), held=held), held) == held
    assert changes(held, first) == []
    # Without what was held, some would move.
    there = names(*range(3, 20), *range(100, 130))
    assert any(places(split(of_subjects(*there)))[name] != part for name, part in places(first).items() if name in there)
    second = split(of_subjects(*there), held=held)
    now = places(second)
    assert all(now[name] == part for name, part in places(first).items() if name in there)
    assert {part: list(now.values()).count(part) for part in ("train", "val", "test")} == {"train": 37, "val": 5, "test": 5}
    said = " | ".join(changes(held, second))
    assert "30 subjects not there before: " in said
    gone = [places(first)[name] for name in names(0, 1, 2)]
    assert all(f"{gone.count(part)} subject{'' if gone.count(part) == 1 else 's'} of {part} no longer there" in said
               for part in set(gone))


def test_a_part_that_lost_all_its_subjects_is_said():
    first = split(of_subjects(*names(*range(6))))
    held = assignment(first)
    left = [name for name, part in places(first).items() if part != "val"]
    with pytest.raises(UserError, match="no subject is left of those that were in val"):
        split(of_subjects(*left), held=held)
    assert len(split(of_subjects(*left, "new"), held=held)["val"]) == 1


def test_a_subject_that_was_cut_into_slabs_stays_cut():
    first = split(of_subjects("a", "b"))
    held = assignment(first)
    assert set(held.values()) == {"slabs"}
    second = split(of_subjects("a", "b", *names(*range(10))), held=held)
    for name in ("train", "val", "test"):
        cut = [(r.record.id, r.start, r.stop) for r in second[name] if r.record.subject in "ab"]
        assert cut == [(r.record.id, r.start, r.stop) for r in first[name]]
        assert len(second[name]) > len(cut)
    assert changes(held, second) == ["10 subjects not there before: 1 in test, 8 in train, 1 in val"]


def test_makers_parts_are_held_and_their_changes_said():
    def records(**parts):
        return [numbered((4, 4), name, extras={"part": np.array(part)}) for name, part in parts.items()]

    before = {f"s{i}": "train" for i in range(8)} | {"t0": "test", "t1": "test"}
    held = assignment(split(records(**before)))
    more = {f"n{i}": "train" for i in range(30)}
    first, second = split(records(**before)), split(records(**before, **more), held=held)
    assert {r.record.id for r in first["val"]} <= {r.record.id for r in second["val"]}
    one = first["train"][0].record.id
    assert changes(held, split(records(**(before | {one: "test"})), held=held)) == ["1 subject of train now in test"]


@pytest.mark.parametrize("records", [of_subjects("one"), of_subjects(*names(*range(5)))])
def test_all_can_be_for_training(records):
    splits = split(records, (1.0, 0.0, 0.0))
    assert {name: sum(r.stop - r.start for r in regions) for name, regions in splits.items()} == {
        "train": 40 * len(records), "val": 0, "test": 0}
    assert changes(assignment(splits), splits) == []


def test_names_of_any_bytes_can_be_split():
    odd = [f"M\udcfcller{i}" for i in range(5)]
    assert set(places(split(of_subjects(*odd)))) == set(odd)
    assert len(assignment(split(of_subjects(*odd)))) == 5


def test_a_fingerprint_changes_with_whatever_changes():
    def make(version="v", shape=(40, 4), name="a", slope=1.0):
        image = Mapped("nowhere", 0, "<i2", (*shape, 1), version)
        others = of_subjects(*names(*range(5)))
        return fingerprint(split([*others, replace(others[0], image=image, id=name, subject="a", slope=slope)]))

    assert make() == make()
    assert len({make(), make(version="w"), make(shape=(40, 5)), make(name="b"), make(slope=2.0)}) == 5
    records = of_subjects(*names(*range(9)))
    assert fingerprint(split(records)) == fingerprint(split(records[::-1])) != fingerprint(split(records, seed=3))
