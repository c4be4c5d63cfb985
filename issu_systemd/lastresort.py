"""When issu-arrive.service dies again and again: the machine reboots, and the boot loader starts
the old root.

It is started again for as long as it fails, and writes to an armed watchdog each time. On a root
whose disk is gone that would never end.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from pathlib import Path

from . import record
from .errors import IssuError

log = logging.getLogger(__name__)

TRIES = 6
PID1_SEC = 60.0  # for PID 1 to act; its own program for it may be on the disk that is gone
SYSRQ = Path("/proc/sysrq-trigger")  # sysrq.rst of the kernel
KEYS = "sb"  # sync; boot at once
BETWEEN_SEC = 5.0  # for the sync


def path() -> Path:
    """The file that counts the tries of one upgrade."""
    return record.DIRECTORY / "tries"


def count() -> int:
    """Count one more try; the number of it, 1 if it cannot be counted."""
    try:
        number = int(path().read_text()) + 1
    except (OSError, ValueError):
        number = 1
    with suppress(OSError):
        record.write_atomically(path(), f"{number}\n")
    return number


def reboot() -> None:
    """Ask PID 1; if it does not act, ask the kernel."""
    from . import systemd

    log.error("this has failed %d times: rebooting, the boot loader starts the old root", TRIES)
    with suppress(IssuError), systemd.connect(time.monotonic() + PID1_SEC) as manager:
        manager.call("Reboot")
    time.sleep(PID1_SEC)  # PID 1's SIGTERM ends us here
    log.error("PID 1 does not reboot")
    for key in KEYS:
        with suppress(OSError):
            SYSRQ.write_text(key)
        time.sleep(BETWEEN_SEC)
