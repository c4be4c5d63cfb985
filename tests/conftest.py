"""What holds in every tier: its mark, that it executes something, and what may be skipped where.

A test has the mark of the directory below `tests/` it lies in. Where CI=true, nothing of the tiers
in `NEVER_SKIPPED` may skip: everything that they need is installed there, so a skip is a failure.
Where several workers run tests (pytest-xdist), one marked `alone` has the machine for itself.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
TIERS = ("unit", "bus", "container", "vm")
NEVER_SKIPPED = ("container", "vm")

LOCKS = {False: fcntl.LOCK_SH, True: fcntl.LOCK_EX}  # by whether a test is to be alone
EXECUTED = ("passed", "failed", "xpassed")


def tier(path: Path) -> str | None:
    """The tier that a file belongs to, None where it is in none."""
    first = path.relative_to(TESTS).parts[0] if path.is_relative_to(TESTS) else None
    return first if first in TIERS else None


def must_not_skip(path: Path) -> bool:
    return os.environ.get("CI") == "true" and tier(path) in NEVER_SKIPPED


def refusal(report: pytest.TestReport | pytest.CollectReport) -> str:
    """What a skip is told where it is a failure; names what the test said was missing."""
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
    return f"{report.nodeid}: nothing of this tier may skip where CI=true, and it did: {reason}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if name := tier(item.path):
            item.add_marker(name)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    path = getattr(collector, "path", None)
    if report.skipped and path and must_not_skip(path):
        report.longrepr = refusal(report)
        report.outcome = "failed"
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and must_not_skip(item.path):
        report.longrepr = refusal(report)
        report.outcome = "failed"
    return report


@contextmanager
def locked(path: Path, how: int) -> Iterator[None]:
    """Hold flock(2) on a file; it goes with the process."""
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(fd, how)
        yield
    finally:
        os.close(fd)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """A test with its fixtures; one that is marked `alone` waits until no other runs.

    Whoever waits holds the first lock, so that nobody who comes later goes before.
    """
    alone = item.get_closest_marker("alone") is not None
    with ExitStack() as room:
        with locked(TESTS, fcntl.LOCK_EX):
            room.enter_context(locked(Path(__file__), LOCKS[alone]))
        return (yield)


def shows_nothing(config: pytest.Config) -> bool:
    """Whether nothing was executed, by whoever reports: workers of pytest-xdist do not."""
    reporter: pytest.TerminalReporter | None = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or config.option.collectonly:
        return False
    return not any(reporter.stats.get(kind) for kind in EXECUTED)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A run in which every test was skipped has shown nothing, and says so by its exit status."""
    if exitstatus == pytest.ExitCode.OK and shows_nothing(session.config):
        session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if shows_nothing(config):
        terminalreporter.write_line("no test was executed: this run shows nothing", red=True)
