"""Membership inference: its numbers against counting by hand, and on a run that knows its patients by heart."""

import json

import numpy as np
import pytest

from medjax.measures.membership import attack
from tests.commands import DRAWN, command


def test_numbers_by_hand():
    members, others = [3.0, 5.0, 5.0, 9.0], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 0.0, 0.0, 0.0, 0.0]
    found = attack(members, others)
    wins = sum((m > o) + 0.5 * (m == o) for m in members for o in others)
    assert found.auc[0] == wins / 40
    assert found.found[0.1][0] == 0.25  # one false alarm is allowed, 6: of the members only 9 lies above the next, 5
    assert found.found[0.01] is None


def test_ties_at_the_threshold_are_no_finds():
    found = attack([5.0, 5.0, 5.0], [5.0] * 10)
    assert found.auc[0] == 0.5
    assert found.found[0.1][0] == 0.0


def test_intervals_hold_the_truth_as_often_as_they_say():
    """Normal scores one deviation apart: AUC is Phi(1 / sqrt(2)) = 0.7602."""
    random = np.random.default_rng(0)
    held = []
    for _ in range(40):
        _, low, high = attack(random.normal(1, 1, 25), random.normal(0, 1, 30)).auc
        held.append(low <= 0.7602 <= high)
    assert np.mean(held) >= 0.85


def test_who_has_no_score_is_left_out_and_too_few_are_an_error():
    found = attack([1.0, np.nan, 2.0], [0.0, 0.5, np.nan, 0.7])
    assert (found.members, found.others, found.auc[0]) == (2, 3, 1.0)
    with pytest.raises(ValueError, match="two people"):
        attack([1.0, np.nan], [0.0, 0.5])


@pytest.mark.slow
def test_evaluation_with_membership_says_so_in_every_place(tmp_path):
    run = tmp_path / "run"
    private = ["--config.privacy.noise=2", "--config.privacy.delta=1e-2", "--config.data.range=(0.0,1000.0)"]
    code, said, err = command("train.py", *DRAWN, "--config.data.fractions=(0.5,0.1,0.4)", *private, f"--workdir={run}")
    assert code == 0, err
    assert "privacy of each of 10 training patients: epsilon" in said
    code, said, err = command("eval.py", f"--workdir={run}", "--membership")
    assert code == 0, err
    assert "10 against 8 patients" in said
    assert "by PSNR less that of" in said
    summary = json.loads((run / "eval" / "metrics.json").read_text())
    assert summary["privacy"]["steps"] == 6
    assert summary["attacks"]["by PSNR"]["members"] == 10
    report = (run / "eval" / "report.html").read_text()
    assert "Membership inference" in report
    assert "privacy of each of 10 training patients" in report
    code, _, err = command("eval.py", f"--workdir={run}", "--membership", "--split=val")
    assert (code, err.strip().splitlines()[-1]) == (2, "error: --membership: compares training and test patients of the "
                                                    "run; leave out --split and --data")
