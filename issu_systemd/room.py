"""Room on /run that an upgrade keeps: for what it writes there, and for PID 1.

Whoever fills /run meanwhile, PID 1 must find RELOAD_DISK_SPACE_MIN there: with less it neither
reloads nor re-executes (systemd 252 and later, src/core/dbus-manager.c), and where its sockets and
the runtime journal find nothing, a new root does not come up.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from . import record

if TYPE_CHECKING:
    from .systemd import Manager

PID1_BYTES = 16 << 20
OURS_BYTES = 2 << 20  # the record, twice, and its relatives
SIZE = PID1_BYTES + 4 * OURS_BYTES  # drop-ins and what generators write take the rest
STEPS = (SIZE - OURS_BYTES, 0)  # what is left of it as one write after the other finds no room


def place() -> Path:
    """The file that takes the room; the kernel gives it to nobody else."""
    return record.DIRECTORY / "room"


def reserve(size: int = SIZE) -> None:
    """Keep room of `size` bytes; raises OSError."""
    with place().open("wb") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError:
            place().unlink()
            raise


def reserve_again() -> None:
    """Keep it once more, when the services have come up with what it left them; if it is there."""
    with suppress(OSError):
        reserve()


def kept() -> int:
    """How many bytes are kept now."""
    try:
        return place().stat().st_size
    except OSError:
        return 0


def shrink(size: int) -> None:
    """Keep no more than `size` bytes; with 0 not even a name."""
    if size == 0:
        place().unlink(missing_ok=True)
    elif kept() > size:
        os.truncate(place(), size)


def give() -> bool:
    """Give up some for a write that found none; whether there was any left."""
    size = kept()
    if not place().exists():
        return False
    shrink(next((step for step in STEPS if step < size), 0))
    return True


@contextmanager
def lent() -> Iterator[None]:
    """What is kept is PID 1's while the body runs."""
    size = kept()
    shrink(min(size, OURS_BYTES))
    try:
        yield
    finally:
        if size > OURS_BYTES:
            with suppress(OSError):  # somebody was quicker
                reserve(size)


def reload(manager: Manager) -> None:
    """Have PID 1 read its units again; raises IssuError, as when /run is full all the same."""
    with lent():
        manager.call("Reload")
