"""Logging to the journal through standard error, with sd-daemon(3) priority prefixes.

Between the stop of the old journal and the start of the new one there is nobody to write to;
lines go to the kernel's log then, from where the new journal reads them.
"""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Mapping
from contextlib import suppress

KMSG = "/dev/kmsg"
JOURNAL = "/run/systemd/journal/socket"
PRIORITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3}


KMSG_MAX = 900  # characters; the kernel takes 1024 bytes a record, see printk_ringbuffer.c


class _KernelLog(io.TextIOBase):
    """In place of standard error: each line is one record of the kernel's log."""

    def __init__(self) -> None:
        super().__init__()
        self._kmsg = open(KMSG, "wb", buffering=0)  # noqa: PTH123, SIM115

    def write(self, text: str) -> int:
        with suppress(OSError):
            for line in filter(None, text.splitlines()):
                self._kmsg.write(line[:KMSG_MAX].encode(errors="replace") + b"\n")
        return len(text)


class _Handler(logging.Handler):
    """Standard error while the journal listens, the kernel's log from when it does not."""

    def emit(self, record: logging.LogRecord) -> None:
        line = f"<{PRIORITY.get(record.levelno, 6)}>{self.format(record)}".replace("\n", " ")
        try:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()
        except (OSError, ValueError):
            # A journal that comes back is another one: this stream is lost for good, and what is in
            # its buffer would make the interpreter exit with 120.
            with suppress(OSError):  # without a kernel log: the record still tells the story
                sys.stderr = _KernelLog()
                sys.stderr.write(line + "\n")


def entry(fields: Mapping[str, str]) -> bool:
    """Send the journal one entry with fields of its own; whether it was taken.

    It never waits: in an outage journald is stopped, and sd_journal_send(3) would wait for it once
    its socket is full. Format: systemd's "Native Journal Protocol".
    """
    import socket  # costs 3 ms, which only whoever tells an event should pay

    data = b""
    for name, value in fields.items():
        text = value.encode(errors="replace")
        sep = b"=" if b"\n" not in text else b"\n" + len(text).to_bytes(8, "little")
        data += name.encode() + sep + text + b"\n"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
            journal.setblocking(False)
            journal.sendto(data, JOURNAL)
    except OSError:
        return False
    return True


def setup(upgrade: str) -> None:
    """Log every line of this process with the upgrade's id in front."""
    handler = _Handler()
    handler.setFormatter(logging.Formatter(f"{upgrade}: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
