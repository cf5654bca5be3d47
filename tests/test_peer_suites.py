"""The peers' own tests with medjax in the place of their functions (`make peers-test`), a few of each; what they say."""

import json
import os
import re
import sys

import pytest

from benchmarks.peer_suites import __main__ as command
from benchmarks.peer_suites import functions
from benchmarks.peer_suites.differences import DIFFERENCES
from benchmarks.peer_suites.outcome import NOTHING, STATUSES, Outcome, outcomes
from benchmarks.peer_suites.run import Ran, Session
from benchmarks.peer_suites.run import run as run_tests
from benchmarks.peer_suites.suites import SUITES, roots
from medjax.bench.peer import INSTALLED, find_python
from medjax.types import UserError
from tests.commands import ROOT
from tests.commands import command as run_command

needs_peers = pytest.mark.skipif(not (os.environ.get("MEDJAX_PEER_PYTHON") or INSTALLED.exists()),
                                 reason="no peers; install them with `make peers`")


def run(name: str, tests: list[str], *options: str) -> Session:
    python, package = find_python(), SUITES[name].package
    return run_tests(python, package, tests, roots(name, python, "")["package"], options)


@needs_peers
def test_tests_of_nibabels_images_pass():
    """As a command, which keeps nothing of a few tests."""
    before = command.RESULTS.read_bytes()
    chosen = "--only=anatomical or functional or example_nifti2"
    code, out, err = run_command("-m", "benchmarks.peer_suites", "nibabel", chosen)
    assert code == 0, out + err
    head, row = (line.split() for line in out.splitlines())
    assert head[:3] == ["peer", "version", "tests"]
    assert row[0] == "nibabel"
    assert row[-5:] == ["3", "0", "0", "0", "0"]
    assert command.RESULTS.read_bytes() == before


@needs_peers
def test_tests_of_deepinvs_operators_pass():
    """A blur, a mask and fan beams are the adjoints of theirs."""
    session = run("deepinv", ["tests/test_physics.py"],
                  "-k=test_operators_adjointness and (inpainting or deblur_valid or 2DFanBeamCT)")
    medjaxs = [test.name for test in session.tests if test.calls]
    assert len(medjaxs) == 4
    assert {test.outcome for test in session.tests} == {"passed"}


@needs_peers
def test_a_wrong_number_fails_the_peers_test(monkeypatch):
    """The test asks medjax, and not the peer itself."""
    name, exact = "metrics/tests/test_simple_metrics.py::test_PSNR_vs_IPOL", functions.FUNCTIONS["psnr"]
    (right,) = run("scikit-image", [name]).tests
    assert (right.outcome, right.calls) == ("passed", 1)
    monkeypatch.setitem(functions.FUNCTIONS, "psnr", lambda *given: exact(*given) + 0.01)
    (wrong,) = run("scikit-image", [name]).tests
    assert (wrong.outcome, wrong.calls) == ("failed", 1)
    assert "Arrays are not almost equal to 4 decimals" in wrong.message


def ran(name: str, outcome: str, calls: int = 1, left: tuple[str, ...] = (), translated: tuple[str, ...] = ()) -> Ran:
    return Ran(name, outcome, f"{name} says", calls, left, translated)


def test_what_a_test_says_follows_from_its_runs():
    """Each kind of failure passes in one of the runs that follow, or in none."""
    first = [ran("good", "passed"), ran("partly", "passed", left=("win_size=3",)), ran("alone", "passed", calls=0),
             ran("lacking", "passed", calls=0, left=("full=True",)), ran("skipped", "skipped"), ran("rounds", "failed"),
             ran("differs", "failed"), ran("breaks", "failed"), ran("wrong", "failed")]
    passes = {(False, True, False): {"rounds"}, (False, True, True): {"differs"}, (True, False, False): {"wrong"}}
    asked = []

    def rerun(tests, own, exact, translate):
        asked.append(list(tests))
        good = passes[own, exact, translate]
        return Session(tests=[ran(name, "passed" if name in good else "failed",
                                  translated=("reflect",) if translate else ()) for name in tests])

    found = outcomes(Session(tests=first), rerun)
    assert found == {
        "good": Outcome("passed"), "partly": Outcome("in part", ("win_size=3",)),
        "alone": Outcome("does not apply", (NOTHING,)), "lacking": Outcome("does not apply", ("full=True",)),
        "skipped": Outcome("does not apply", ("skipped says",)),
        "rounds": Outcome("differs", ("float32",)), "differs": Outcome("differs", ("reflect",)),
        "breaks": Outcome("does not apply", ("fails with the peer's own functions, too: breaks says",)),
        "wrong": Outcome("failed", ("wrong says",))}
    assert asked == [["rounds", "differs", "breaks", "wrong"], ["differs", "breaks", "wrong"], ["breaks", "wrong"]]


def test_the_page_says_what_was_measured():
    suites = json.loads(command.RESULTS.read_text(encoding="utf-8"))["suites"]
    text = command.PAGE.read_text(encoding="utf-8")
    assert command.page(text, suites) == text
    assert list(suites) == list(SUITES)
    told = [outcome for _, _, outcome, count in command.each(suites) for _ in range(count)]
    for status in STATUSES:
        assert [outcome.status for outcome in told].count(status) == sum(s["counts"][status] for s in suites.values())
    assert not [outcome for outcome in told if outcome.status == "failed"]
    assert {note for outcome in told if outcome.status == "differs" for note in outcome.notes} == set(DIFFERENCES)


@pytest.mark.parametrize(("words", "line"), [
    (["MONIA"], "NAME: unknown 'MONIA'; choose from scikit-image, deepinv, nibabel, MONAI, fastMRI, TorchIO"),
    (["deepinv"], "has no deepinv; run `make peers`, or name another with --peer_python"),
    (["nibabel", f"--peer_python={ROOT / 'LICENSE'}"], "LICENSE is no program"),
    (["scikit-image"], "test_simple_metrics.py: is not there; give the tests of scikit-image")])
def test_mistakes_are_one_line(monkeypatch, words, line):
    monkeypatch.setattr(sys, "argv", ["peer_suites", f"--peer_python={sys.executable}", *words])
    with pytest.raises(UserError, match=re.escape(line)) as error:
        command.main()
    assert "\n" not in str(error.value)
