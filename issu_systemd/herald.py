"""Whoever listens on the bus is told before the first service stops: both sides of that.

The service holds a lock on /run/issu/listener while it runs. The agent makes /run/issu/leaving
before it leaves and waits for the service to remove it; without a service it does neither.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import record

TELL_SEC = 2.0  # for the service to tell the bus; an upgrade waits no longer for anybody
POLL_SEC = 0.01


def listener() -> Path:
    """The file that the service locks."""
    return record.DIRECTORY / "listener"


def leaving() -> Path:
    """The file that says that the agent is about to leave."""
    return record.DIRECTORY / "leaving"


@contextmanager
def listen() -> Iterator[None]:
    """In the service: be somebody who listens; raises OSError."""
    record.DIRECTORY.mkdir(mode=0o755, parents=True, exist_ok=True)
    fd = os.open(listener(), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)  # one that ends may overlap with the next
        yield
    finally:
        os.close(fd)


def is_listening() -> bool:
    """Whether a service listens."""
    try:
        fd = os.open(listener(), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def announce(timeout: float = TELL_SEC) -> bool:
    """In the agent: have everybody told that it leaves; whether they were, within the seconds."""
    if not is_listening():
        return False
    leaving().touch()
    deadline = time.monotonic() + timeout
    try:
        while leaving().exists():
            if time.monotonic() > deadline or not is_listening():
                return False
            time.sleep(POLL_SEC)
        return True
    finally:
        leaving().unlink(missing_ok=True)


def is_announced() -> bool:
    """In the service: whether the agent waits for everybody to be told."""
    return leaving().exists()


def told() -> None:
    """In the service: everybody was told, the agent may go on."""
    leaving().unlink(missing_ok=True)
