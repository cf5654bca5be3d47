"""README, docs and docstrings say what was measured, of the configs as they are."""

import json

import pytest

from benchmarks import scores
from benchmarks.privacy_tables import MEMBERSHIP


@pytest.mark.parametrize(("path", "text"), scores.pages().items(), ids=lambda value: getattr(value, "stem", ""))
def test_a_page_says_what_was_measured(path, text):
    assert path.read_text(encoding="utf-8") == text, "run `python -m benchmarks.scores --tables`"


@pytest.mark.parametrize("name", [name for name, (path, _) in scores.CHECKED.items() if path.exists()])
def test_a_checked_config_has_not_changed_since(name):
    path, rows = scores.CHECKED[name]
    found = json.loads(path.read_text(encoding="utf-8"))
    assert tuple(found["rows"]) == rows
    for row in rows:
        now = scores.values_of(scores.config_of(row))
        changed = {key: (value, now.get(key)) for key, value in found["configs"][row].items() if now.get(key) != value}
        assert not changed, f"run `python -m benchmarks.checks {name}`"
        assert found["commands"][row] == scores.command_of(row)


def test_runs_that_were_attacked_have_not_changed_since():
    for name, run in json.loads(MEMBERSHIP.read_text(encoding="utf-8"))["runs"].items():
        now = scores.values_of(scores.config_of(name))
        assert not {key: value for key, value in run["config"].items() if now.get(key) != value}, name
        assert run["command"] == scores.command_of(name)


@pytest.mark.parametrize("path", [*sorted(scores.SCORES.glob("*.json")), scores.INTERVALS, scores.SEAM],
                         ids=lambda path: path.stem)
def test_a_measured_config_has_not_changed_since(path):
    """A key that has come since has its default, and changes nothing."""
    found, now = json.loads(path.read_text(encoding="utf-8")), scores.values_of(scores.config_of(path.stem))
    changed = {key: (value, now.get(key)) for key, value in found["config"].items() if now.get(key) != value}
    assert not changed, f"run `python -m benchmarks.scores {path.stem}`"
    assert found["command"] == scores.command_of(path.stem)
