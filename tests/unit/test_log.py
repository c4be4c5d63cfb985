"""Lines with their priority, to the journal while it listens and to the kernel when it does not."""

from __future__ import annotations

import io
import logging
import os
import socket
import subprocess
import sys
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
    assert kmsg.read_text() == "<4>20260801T101500Z-7f3a: first second line\n"  # one record


def test_once_the_journal_is_gone_every_line_goes_to_the_kernel(kmsg: Path) -> None:
    with dead_journal():
        for n in range(3):
            logging.getLogger("x").info("%d%s", n, "!" * 2000)
    lines = kmsg.read_text().splitlines()
    assert [line.partition(": ")[2][:2] for line in lines] == ["0!", "1!", "2!"]
    assert max(map(len, lines)) < 1024


ROOT = Path(__file__).parents[2]
DEAF = """
import logging, sys
from issu_systemd import log
log.KMSG = sys.argv[1]
if sys.argv[2] == "ours":
    log.setup("x")
else:
    logging.basicConfig()
sys.stdin.read()  # until nobody reads standard error any more
logging.error("y")
"""


@pytest.mark.parametrize(("whose", "status"), [("ours", 0), ("python's own", 120)])
def test_a_journal_that_is_gone_does_not_change_the_exit_status(
    kmsg: Path, whose: str, status: int
) -> None:
    """systemd would take restore for failed; the negative control is Python's own handler."""
    argv = [sys.executable, "-c", DEAF, str(kmsg), whose]
    ours, theirs = socket.socketpair()  # both streams of a unit are one socket of journald's
    with ours, theirs:
        process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=theirs, stderr=theirs, cwd=ROOT, env={}
        )  # fmt: skip
    with process:
        assert process.stdin
        process.stdin.close()
        assert process.wait(30) == status


def test_when_standard_error_is_closed(kmsg: Path) -> None:
    stream = io.StringIO()
    stream.close()
    with redirect_stderr(stream):
        logging.getLogger("x").info("y")
    assert kmsg.read_text() == "<6>20260801T101500Z-7f3a: y\n"


def test_when_nobody_listens_nothing_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "KMSG", str(tmp_path / "no/such/place"))
    with dead_journal():
        logging.getLogger("x").error("y")
