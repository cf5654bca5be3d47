"""What a peer's test says of medjax: passed, differs by a convention, failed, or does not apply, and why."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from benchmarks.peer_suites.run import Ran, Session

STATUSES = ("passed", "differs", "failed", "does not apply")
FLOAT32 = "float32"
NOTHING = "calls nothing that medjax has"


@dataclass(frozen=True)
class Outcome:
    """A test's status, and notes: the conventions by which it differs, why it does not apply, what failed; of a passed one,
    what the peer's own functions answered in it."""

    status: str
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """Both in a line."""
        return f"{self.status}: {' | '.join(self.notes)}" if self.notes else self.status

    @classmethod
    def of(cls, text: str) -> "Outcome":
        """What `text` says."""
        status, _, notes = text.partition(": ")
        return cls(status, tuple(notes.split(" | ")) if notes else ())


Rerun = Callable[[Sequence[str], bool, bool, bool], Session]
"""Runs the named tests again: with the peer's own functions, in float64, with medjax's conventions translated."""


def outcomes(session: Session, rerun: Rerun) -> dict[str, Outcome]:
    """The outcome of every test of a run.

    What fails runs again: in float64, where rounding is no reason any more; then with medjax's conventions translated into the
    peer's, which is how it shows that a test differs by them and by nothing else; then with the peer's own functions.
    """
    found = {test.name: _first(test) for test in session.tests}
    failed = _failed(session.tests)
    for own, exact, translate in ((False, True, False), (False, True, True), (True, False, False)):
        if not failed:
            break
        again = {test.name: test for test in rerun(list(failed), own, exact, translate).tests}
        for name, test in again.items():
            if own and test.outcome != "passed":
                found[name] = Outcome("does not apply", (f"fails with the peer's own functions, too: {test.message}",))
            elif not own and test.outcome == "passed":
                found[name] = Outcome("differs", test.translated or (FLOAT32,))
        failed = {name: message for name, message in failed.items() if found[name].status == "failed"}
    return found


def _first(test: Ran) -> Outcome:
    if test.outcome == "failed":
        return Outcome("failed", (test.message,))
    if test.outcome == "skipped":
        return Outcome("does not apply", (test.message,))
    if not test.calls:
        return Outcome("does not apply", test.left or (NOTHING,))
    return Outcome("passed", test.left)


def _failed(tests: Iterable[Ran]) -> dict[str, str]:
    return {test.name: test.message for test in tests if test.outcome == "failed"}


def counts(found: Iterable[Outcome]) -> dict[str, int]:
    """How many tests have each status."""
    number = Counter(outcome.status for outcome in found)
    return {status: number[status] for status in STATUSES}
