"""`issu start`: queue the unit, tell the phases as they come, end where this session must end."""

from __future__ import annotations

import time

from . import history
from .errors import IssuError
from .record import RECORD
from .systemd import Manager, escape_path

LOOK_SEC = 0.2
OK, FAILED, REFUSED = 0, 1, 3


def follow(device: str, *, block: bool) -> int:
    """Start the upgrade; returns once services are about to stop, or when it was refused."""
    unit = f"issu@{escape_path(device)}.service"
    with Manager() as manager:
        job = manager.start(unit)
        if not block:
            return OK
        told = ""
        while (result := manager.wait_job(job, time.monotonic() + LOOK_SEC)) is None:
            now = history.current() if RECORD.exists() else None
            phase = str(now["phase"]) if now else "preflight"
            if phase != told:
                print(phase, flush=True)
                told = phase
        if result == "done":
            print("release: every service stops now, and this session with them")
            print("  look again with: issu status; issu report", flush=True)
            return OK
    document = history.last()
    if document["result"] != "refused":
        raise IssuError(f"the upgrade failed: {document['error']}")
    print(f"issu: refused: {document['error']}")
    return REFUSED
