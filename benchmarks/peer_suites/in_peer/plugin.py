"""A plugin of pytest: connects to medjax, replaces a peer's functions before its tests are imported, tells each result."""

import importlib
import time
import unittest
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from in_peer import link


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--link", type=int, help="the file descriptor of the pipe to the process that has medjax")
    parser.addoption("--peer", help="the module of in_peer that replaces the functions")
    parser.addoption("--translate", action="store_true", help="translate medjax's conventions into the peer's")
    parser.addoption("--own", action="store_true", help="leave the peer's own functions in place")


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Before a conftest of the peer imports anything."""
    given = early_config.known_args_namespace
    link.connect(given.link, given.translate)
    peer = importlib.import_module(f"in_peer.{given.peer}")
    peer.prepare()
    link.link.send("versions", peer.versions())
    if not given.own:
        peer.replace()
    set_up = unittest.TestCase._callSetUp

    def forget_set_up(case: unittest.TestCase) -> None:
        set_up(case)
        link.link.used = link.Used()

    unittest.TestCase._callSetUp = forget_set_up  # what every test of a class begins with is no test of it


def pytest_collection_finish(session: pytest.Session) -> None:
    link.link.send("collected", len(session.items))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """What each test says in the end, and what it asked for: what its fixtures did does not count."""
    link.link.used = link.Used()
    item.stash[RUN] = SimpleNamespace(start=time.perf_counter(), outcome="passed", message="")
    ended = yield
    run, used = item.stash[RUN], link.link.used
    link.link.send("result", item.nodeid, run.outcome, run.message, used.calls, list(dict.fromkeys(used.left)),
                   list(dict.fromkeys(used.translated)), time.perf_counter() - run.start)
    return ended


def pytest_runtest_call(item: pytest.Item) -> None:
    link.link.used = link.Used()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Iterator[None]:
    report = yield
    run = item.stash[RUN]
    if report.failed:
        run.outcome, run.message = "failed", _first_line(call)
    elif report.skipped and run.outcome == "passed":
        expected = hasattr(report, "wasxfail")
        reason = report.wasxfail if expected else report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        run.outcome, run.message = "skipped", str(reason).removeprefix("Skipped: ")
    return report


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.failed:
        link.link.send("broken", report.nodeid, str(report.longrepr).strip().splitlines()[-1])


def _first_line(call: pytest.CallInfo) -> str:
    """The error in a line: its class, and what it says."""
    told = " ".join(str(call.excinfo.value).split())
    return f"{call.excinfo.typename}: {told}"[:300]


RUN = pytest.StashKey()
