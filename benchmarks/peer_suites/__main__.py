"""Runs the peers' own tests with medjax's functions in the place of theirs, and keeps what became of each.

    python -m benchmarks.peer_suites                       # of every peer whose tests are there, ten minutes
    python -m benchmarks.peer_suites --clones=FOLDER       # with clones of those whose packages have no tests
    python -m benchmarks.peer_suites deepinv scikit-image  # of some
    python -m benchmarks.peer_suites deepinv --only=test_mri_fft  # a few tests, and nothing is kept

The peers are in the Python of `make peers`, or in another (--peer_python, MEDJAX_PEER_PYTHON). Results go to
benchmarks/results/peer_suites.json and docs/peer_suites.md. Exit code 1 where a test fails and no convention of medjax is
the reason.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import logging
from tqdm import tqdm

from benchmarks.peer_suites.differences import DIFFERENCES
from benchmarks.peer_suites.outcome import STATUSES, Outcome, counts, outcomes
from benchmarks.peer_suites.run import Session, run
from benchmarks.peer_suites.suites import SUITES, revision, roots
from medjax.bench.machine import versions
from medjax.bench.peer import find_python
from medjax.files import write_atomically
from medjax.types import UserError

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "peer_suites.json"
PAGE = ROOT / "docs" / "peer_suites.md"
BEGIN, END = "<!-- peer suites: {} -->", "<!-- end -->"


def main() -> int:
    """The exit code."""
    args = arguments()
    logging.set_verbosity(logging.ERROR)  # medjax warns of images of one value, of which tests have many
    python, found = find_python(args.peer_python), {}
    for name in args.names or SUITES:
        try:
            found[name] = measured(name, python, args.clones, args.only)
        except UserError as error:
            if args.names:
                raise
            print(f"{name} is left out: {error}")
    print(summary(found))
    failed = [f"{name} {test}: {outcome.notes[0]}" for name, test, outcome, _ in each(found) if outcome.status == "failed"]
    print(*failed, sep="\n", end="\n" if failed else "")
    if not args.only:
        kept = json.loads(RESULTS.read_text(encoding="utf-8"))["suites"] if RESULTS.exists() else {}
        suites = {name: (kept | found)[name] for name in SUITES if name in kept | found}
        report = {"versions": versions(), "suites": suites}
        write_atomically(RESULTS, json.dumps(report, indent=1, ensure_ascii=False) + "\n")
        write_atomically(PAGE, page(PAGE.read_text(encoding="utf-8"), suites))
        print(f"{RESULTS}\n{PAGE}")
    return int(bool(failed))


def measured(name: str, python: str, clones: str, only: str) -> dict[str, Any]:
    """The outcomes of a suite's tests (with `only`, of some), the peer's version, and where its tests are from."""
    suite, where = SUITES[name], roots(name, python, clones)
    found: dict[str, Outcome] = {}
    for part in suite.parts:
        chosen = " and ".join(f"({words})" for words in (part.only, only) if words)
        with tqdm(desc=f"{name}, {Path(part.files[0]).stem}", unit="test", leave=False) as bar:
            def show(done: int, of: int, bar: tqdm = bar) -> None:
                bar.total = of
                bar.update(done - bar.n)

            session = run(python, suite.package, part.files, where[part.where], ["-k", chosen] if chosen else [], show=show)
        prefix = "written here: " if part.where == "here" else ""
        tested = outcomes(session, _again(python, suite.package, where[part.where]), own=part.where != "here")
        found |= {prefix + test: outcome for test, outcome in tested.items()}
    return {"version": session.version, "tests from": revision(where["clone"]) if suite.source else "its package",
            "counts": counts(found.values()), "tests": grouped(found)}


def grouped(found: Mapping[str, Outcome]) -> dict[str, list[list[Any]]]:
    """By function: how many of its tests have an outcome, its status and its notes. What failed keeps its parameters."""
    number = Counter((test if told.status == "failed" else test.split("[")[0], told) for test, told in found.items())
    groups: dict[str, list[list[Any]]] = {}
    for (test, outcome), count in number.items():
        groups.setdefault(test, []).append([count, outcome.status, *outcome.notes])
    return groups


def _again(python: str, package: str, root: Path) -> Any:
    """Runs some of a part's tests again (see `outcomes`)."""
    def again(tests: Sequence[str], own: bool, exact: bool, translate: bool) -> Session:
        return run(python, package, tests, root, (), own, exact, translate)

    return again


def each(suites: Mapping[str, Any]) -> Iterator[tuple[str, str, Outcome, int]]:
    """Peer, function and outcome, and how many tests have it."""
    for name, suite in suites.items():
        for test, group in suite["tests"].items():
            for count, status, *notes in group:
                yield name, test, Outcome(status, tuple(notes)), count


def rows(suites: Mapping[str, Any]) -> list[list[str]]:
    """Of a table of the suites, with its head."""
    head = ["peer", "version", "tests from", *STATUSES]
    return [head, *([name, suite["version"], suite["tests from"], *(str(suite["counts"][status]) for status in STATUSES)]
                    for name, suite in suites.items())]


def summary(suites: Mapping[str, Any]) -> str:
    """The table for the screen."""
    table = rows(suites)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table)


def page(before: str, suites: Mapping[str, Any]) -> str:
    """docs/peer_suites.md with its tables from the results."""
    seen: Counter[tuple[str, str, str]] = Counter()  # of status, peer and note
    for name, _, outcome, count in each(suites):
        seen.update({(outcome.status, name, note): count for note in outcome.notes})
    differing = [[what, ", ".join(f"{name} {count}" for name in suites if (count := seen["differs", name, key])), why]
                 for key, (what, why) in DIFFERENCES.items()]

    def noted(status: str) -> list[list[str]]:
        """Of each peer: its notes, the most frequent first."""
        notes = {name: [f"{note} ({count})" for (of, peer, note), count in seen.most_common()
                        if (of, peer) == (status, name)] for name in suites}
        return [[name, "; ".join(told).replace("|", "/")] for name, told in notes.items() if told]

    tables = {"tests": rows(suites),
              "differences": [["what differs", "tests", "why medjax has it so"], *(row for row in differing if row[1])],
              "in part": [["peer", "what the peer's own functions answered (in how many tests)"], *noted("in part")],
              "not": [["peer", "reason (of how many tests)"], *noted("does not apply")]}
    for mark, table in tables.items():
        lines = [" | ".join(row) for row in [table[0], ["---"] * len(table[0]), *table[1:]]]
        start, rest = before.split(BEGIN.format(mark), 1)
        before = start + "\n".join([BEGIN.format(mark), *(f"| {line} |" for line in lines), END]) + rest.split(END, 1)[1]
    return before


def arguments() -> argparse.Namespace:
    """Of the command. Raises UserError for a peer that there is not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     prog="python -m benchmarks.peer_suites")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SUITES)}; all by default")
    parser.add_argument("--peer_python", default="", help="the Python that has the peers and pytest")
    parser.add_argument("--clones", default="", metavar="FOLDER",
                        help="has MONAI, fastMRI and torchio, as `git clone` makes them")
    parser.add_argument("--only", default="", metavar="WORDS",
                        help="only tests of these names (pytest's -k), and nothing is kept")
    args = parser.parse_args()
    unknown = [name for name in args.names if name not in SUITES]
    if unknown:
        raise UserError("NAME", f"unknown {unknown[0]!r}; choose from {', '.join(SUITES)}")
    return args


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
