"""The page of scores says what was measured, of the configs as they are."""

import json

import pytest

from benchmarks import scores


def test_the_tables_are_those_of_the_measured_rows():
    page = scores.PAGE.read_text(encoding="utf-8")
    assert scores.written(page) == page, "run `python -m benchmarks.scores --tables`"


@pytest.mark.parametrize("path", sorted(scores.SCORES.glob("*.json")), ids=lambda path: path.stem)
def test_a_measured_config_has_not_changed_since(path):
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found["config"] == scores.hash_of(scores.config_of(path.stem)), f"run `python -m benchmarks.scores {path.stem}`"
    assert found["command"] == scores.command_of(path.stem)
