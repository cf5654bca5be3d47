"""Runs the peers' own tests with medjax's functions in the place of theirs, and keeps what became of each.

    python -m benchmarks.peer_suites                       # of every peer whose tests are there, half an hour
    python -m benchmarks.peer_suites deepinv scikit-image  # of some
    python -m benchmarks.peer_suites --monai=FOLDER --fastmri=FOLDER --torchio=FOLDER   # clones, for packages without tests
    python -m benchmarks.peer_suites nibabel --small       # a minute, and nothing is kept
    python -m benchmarks.peer_suites --tables              # no tests: docs/peer_suites.md from what is there

The peers are in the Python of `make peers`, or in another (--peer_python, MEDJAX_PEER_PYTHON). Exit code 1 where a test fails
and no convention of medjax is the reason.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.peer_suites.differences import DIFFERENCES
from benchmarks.peer_suites.outcome import STATUSES, Outcome, counts, outcomes
from benchmarks.peer_suites.run import Session, run
from benchmarks.peer_suites.suites import SUITES, checked, revision
from medjax.bench.machine import versions
from medjax.bench.peer import find_python
from medjax.files import write_atomically
from medjax.types import UserError

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "peer_suites.json"
PAGE = ROOT / "docs" / "peer_suites.md"
MARKS = "<!-- peer suites: {} -->", "<!-- end -->"
CLONES = [name for name, suite in SUITES.items() if suite.source]


def main() -> int:
    args = arguments()
    if args.tables:
        write_atomically(PAGE, page(PAGE.read_text(encoding="utf-8"), json.loads(args.json.read_text(encoding="utf-8"))))
        return 0
    python = find_python(args.peer_python)
    chosen, found = args.names or list(SUITES), {}
    for name in chosen:
        try:
            found[name] = measured(name, python, getattr(args, name.lower().replace("-", "_"), ""), args.small)
        except UserError as error:
            if args.names:
                raise
            print(f"{name} is left out: {error}")
    if not args.small:
        before = json.loads(args.json.read_text(encoding="utf-8")) if args.json.exists() else {}
        kept = {name: suite for name, suite in (before.get("suites", {}) | found).items() if name in SUITES}
        report = {"versions": versions(), "suites": {name: kept[name] for name in SUITES if name in kept}}
        write_atomically(args.json, json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    print(summary(found))
    failed = [f"{name} {test} {outcome.text}" for name, test, outcome in each(found) if outcome.status == "failed"]
    for line in failed:
        print(line)
    print("next: python -m benchmarks.peer_suites --tables" if not args.small else "nothing was kept (--small)")
    return int(bool(failed))


def measured(name: str, python: str, checkout: str, small: bool) -> dict[str, Any]:
    """The outcomes of a suite's tests, with the versions of the peer and where its tests are from."""
    suite, roots = SUITES[name], checked(name, python, checkout)
    found: dict[str, Outcome] = {}
    told: dict[str, str] = {}
    for part in suite.parts:
        root, options = roots[part.where], part.options
        if small:
            options = (*(o for o in options if o.startswith("--")), "-k", suite.small)

        def again(tests: list[str], own: bool, exact: bool, translate: bool, part=part, root=root) -> Session:
            flags = [o for o in part.options if o.startswith("--")]
            return run(python, suite.module, tests, root, flags, own, exact, translate)

        with tqdm(desc=f"{name} {Path(part.files[0]).stem}", unit="test", leave=False) as bar:
            session = run(python, suite.module, part.files, root, options, show=lambda done, of, bar=bar: _show(bar, done, of))
        told |= session.versions
        found |= {("written here: " if part.where == "here" else "") + test: outcome
                  for test, outcome in outcomes(session, again).items()}
    tests_from = revision(Path(checkout)) if checkout else "the package"
    return {"versions": told, "tests from": tests_from, "counts": counts(found.values()),
            "tests": {test: outcome.text for test, outcome in found.items()}}


def _show(bar: tqdm, done: int, of: int) -> None:
    bar.total, bar.n = of, done
    bar.refresh()


def each(suites: dict[str, Any]) -> Iterator[tuple[str, str, Outcome]]:
    """Peer, test and outcome of every test."""
    for name, suite in suites.items():
        for test, told in suite["tests"].items():
            yield name, test, Outcome.of(told)


def summary(suites: dict[str, Any]) -> str:
    """A table of the suites."""
    rows = [["peer", "version", "tests from", *STATUSES]]
    for name, suite in suites.items():
        package = next(iter(suite["versions"].values()))
        rows.append([name, package, suite["tests from"], *(str(suite["counts"][status]) for status in STATUSES)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def page(before: str, report: dict[str, Any]) -> str:
    """docs/peer_suites.md with its tables from the results."""
    suites = report["suites"]
    head = f"| peer | version | its tests from | {' | '.join(STATUSES)} |\n|---|---|---|" + "---|" * len(STATUSES) + "\n"
    rows = [f"| {name} | {next(iter(suite['versions'].values()))} | {suite['tests from']} | "
            + " | ".join(str(suite["counts"][status]) for status in STATUSES) + " |" for name, suite in suites.items()]
    differing = Counter((note, name) for name, _, outcome in each(suites) if outcome.status == "differs"
                        for note in outcome.notes)
    table = ["| what differs | tests | why medjax has it so |\n|---|---|---|"]
    for key, (what, why) in DIFFERENCES.items():
        where = ", ".join(f"{name} {number}" for (note, name), number in differing.items() if note == key)
        if where:
            table.append(f"| {what} | {where} | {why} |")
    reasons = Counter((name, note) for name, _, outcome in each(suites) if outcome.status == "does not apply"
                      for note in outcome.notes)
    why_not = ["| peer | tests | reason |\n|---|---|---|"]
    why_not += [f"| {name} | {number} | {note} |" for (name, note), number in
                sorted(reasons.items(), key=lambda item: (list(suites).index(item[0][0]), -item[1], item[0][1]))]
    for mark, body in (("tests", head + "\n".join(rows)), ("differences", "\n".join(table)), ("not", "\n".join(why_not))):
        begin, end = MARKS[0].format(mark), MARKS[1]
        start, rest = before.split(begin, 1)
        before = f"{start}{begin}\n{body}\n{end}{rest.split(end, 1)[1]}"
    return before


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     prog="python -m benchmarks.peer_suites")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SUITES)}; all by default")
    parser.add_argument("--peer_python", default="", help="the Python that has the peers and pytest")
    for name in CLONES:
        parser.add_argument(f"--{name.lower()}", default="", metavar="FOLDER",
                            help=f"a clone of {SUITES[name].source} at {SUITES[name].tag}, for its tests")
    parser.add_argument("--small", action="store_true", help="a few tests of each, and no results kept")
    parser.add_argument("--tables", action="store_true", help="only writes docs/peer_suites.md from the results")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where results are kept")
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
