"""What holds in every tier: its mark, that it executes something, and what may be skipped where.

A test has the mark of the directory below `tests/` it lies in. Where CI=true, nothing of the tiers
in `NEVER_SKIPPED` may skip: everything that they need is installed there, so a skip is a failure.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
TIERS = ("unit", "bus", "container", "vm")
NEVER_SKIPPED = ("container", "vm")

executed = pytest.StashKey[int]()


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
    if call.when == "call" and not report.skipped:
        item.config.stash[executed] = item.config.stash.get(executed, 0) + 1
    return report


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A run in which every test was skipped has shown nothing, and says so by its exit status."""
    listing = session.config.option.collectonly
    if exitstatus == pytest.ExitCode.OK and not listing and executed not in session.config.stash:
        session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if executed not in config.stash and not config.option.collectonly:
        terminalreporter.write_line("no test was executed: this run shows nothing", red=True)
