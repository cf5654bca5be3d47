"""What a peer's test says of medjax: passed, passed in part, differs by a convention, failed, or does not apply; and why."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from benchmarks.peer_suites.run import Ran, Session

STATUSES = ("passed", "in part", "differs", "failed", "does not apply")
NOTHING = "calls nothing that medjax has"


@dataclass(frozen=True)
class Outcome:
    """A test's status, and notes: what the peer's own functions answered in it, the conventions by which it differs, why it
    does not apply, or what failed."""

    status: str
    notes: tuple[str, ...] = ()


Rerun = Callable[[Sequence[str], bool, bool, bool], Session]
"""Runs the named tests again: with the peer's own functions, in float64, with medjax's conventions translated."""


def outcomes(session: Session, rerun: Rerun, own: bool = True) -> dict[str, Outcome]:
    """The outcome of every test of a run.

    What fails runs again: in float64, where rounding is no reason any more; then with medjax's conventions translated into
    the peer's, which is how it shows that a test differs by them and by nothing else; then, with `own`, with the peer's own
    functions.
    """
    found = {test.name: _first(test) for test in session.tests}
    failed = [test.name for test in session.tests if test.outcome == "failed"]
    for alone, exact, translate in ((False, True, False), (False, True, True), (True, False, False)):
        if not failed or (alone and not own):
            break
        for test in rerun(failed, alone, exact, translate).tests:
            if alone and test.outcome != "passed":
                found[test.name] = Outcome("does not apply", (f"fails with the peer's own functions, too: {test.message}",))
            elif not alone and test.outcome == "passed":
                found[test.name] = Outcome("differs", test.translated or ("float32",))
        failed = [name for name in failed if found[name].status == "failed"]
    return found


def _first(test: Ran) -> Outcome:
    """Of the first run."""
    if test.outcome != "passed":
        return Outcome("failed" if test.outcome == "failed" else "does not apply", (test.message,))
    if not test.calls:
        return Outcome("does not apply", test.left or (NOTHING,))
    return Outcome("in part", test.left) if test.left else Outcome("passed")


def counts(found: Iterable[Outcome]) -> dict[str, int]:
    """How many tests have each status."""
    number = Counter(outcome.status for outcome in found)
    return {status: number[status] for status in STATUSES}
