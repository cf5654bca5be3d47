"""A plugin of pytest: connects to medjax, replaces a peer's functions before its tests are imported, tells each result."""

import importlib
import unittest
from collections.abc import Generator
from typing import Any

import pytest
from in_peer.link import Used, link

ENDED = pytest.StashKey[tuple[str, str]]()  # "passed", "skipped" or "failed", and what the test said


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--link", type=int, help="the file descriptor of the pipe to the process that has medjax")
    parser.addoption("--peer", help="the module of in_peer that replaces the functions of the package of that name")
    parser.addoption("--translate", action="store_true", help="translate medjax's conventions into the peer's")
    parser.addoption("--own", action="store_true", help="leave the peer's own functions in place")


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Before a conftest of the peer imports anything."""
    given = early_config.known_args_namespace
    link.connect(given.link, given.translate)
    ours = importlib.import_module(f"in_peer.{given.peer}")
    link.send("version", importlib.import_module(given.peer).__version__)
    if not given.own:
        ours.replace()
    cases: Any = unittest.TestCase
    set_up = cases._callSetUp

    def forget_set_up(case: unittest.TestCase) -> None:
        set_up(case)
        link.used = Used()

    cases._callSetUp = forget_set_up  # what every test of a class begins with is no test of it


def pytest_collection_finish(session: pytest.Session) -> None:
    link.send("collected", len(session.items))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """What each test says in the end, and what it asked for."""
    item.stash[ENDED] = "passed", ""
    ended = yield
    used = link.used
    link.send("ended", item.nodeid, *item.stash[ENDED], used.calls, tuple(used.left), tuple(used.translated))
    return ended


def pytest_runtest_call(item: pytest.Item) -> None:
    link.used = Used()  # what its fixtures did does not count


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Generator[None, Any, Any]:
    report = yield
    if report.failed and call.excinfo:
        told = " ".join(str(call.excinfo.value).split())
        item.stash[ENDED] = "failed", f"{call.excinfo.typename}: {told}"[:300]
    elif report.skipped and item.stash[ENDED][0] == "passed":
        reason = report.wasxfail if hasattr(report, "wasxfail") else report.longrepr[2]
        item.stash[ENDED] = "skipped", str(reason).removeprefix("Skipped: ")
    return report


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.failed:
        link.send("broken", report.nodeid, str(report.longrepr).strip().splitlines()[-1])
