"""Lines with their priority, to the journal while it listens and to the kernel when it does not."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path

import pytest

from issu_systemd import log


@pytest.fixture
def kmsg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in place of /dev/kmsg."""
    monkeypatch.setattr(log, "KMSG", str(tmp_path / "kmsg"))
    return tmp_path / "kmsg"


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[logging.Logger]:
    """The root logger after `setup`; what that changes of it is changed back."""
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    log.setup("20260801T101500Z-7f3a")
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)


@contextmanager
def dead_journal() -> Iterator[None]:
    """Standard error as it is once journald has gone: a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", buffering=1) as stream:
        with redirect_stderr(stream):
            yield
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, writer)  # what is still in its buffer may be written now
        os.close(null)


@pytest.mark.parametrize(
    ("level", "priority"), [(logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6)]
)
def test_a_line_has_priority_and_id(
    capsys: pytest.CaptureFixture[str], level: int, priority: int
) -> None:
    logging.getLogger("issu_systemd.stage").log(level, "stage: carried %s", "/etc/hostname")
    want = f"<{priority}>20260801T101500Z-7f3a: stage: carried /etc/hostname\n"
    assert capsys.readouterr().err == want


def test_debug_is_not_logged(capsys: pytest.CaptureFixture[str]) -> None:
    logging.getLogger("x").debug("noise")
    assert capsys.readouterr().err == ""


def test_setup_twice_logs_once(
    capsys: pytest.CaptureFixture[str], root_logger: logging.Logger
) -> None:
    log.setup("other")
    logging.getLogger("x").info("y")
    assert capsys.readouterr().err == "<6>other: y\n"
    assert len(root_logger.handlers) == 1


def test_while_the_journal_listens_the_kernel_hears_nothing(
    kmsg: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logging.getLogger("x").info("y")
    assert capsys.readouterr().err
    assert not kmsg.exists()


def test_when_the_journal_is_gone_the_kernel_hears(kmsg: Path) -> None:
    with dead_journal():
        logging.getLogger("x").warning("first\nsecond line")
    assert kmsg.read_text() == "<4>20260801T101500Z-7f3a: first second line"  # one record, one line


def test_when_standard_error_is_closed(kmsg: Path) -> None:
    stream = io.StringIO()
    stream.close()
    with redirect_stderr(stream):
        logging.getLogger("x").info("y")
    assert kmsg.read_text() == "<6>20260801T101500Z-7f3a: y"


def test_when_nobody_listens_nothing_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "KMSG", str(tmp_path / "no/such/place"))
    with dead_journal():
        logging.getLogger("x").error("y")
