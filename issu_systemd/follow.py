"""`issu start`: queue the unit, tell the phases as they come, end where this session must end."""

from __future__ import annotations

import time
from typing import Any

from . import history
from .errors import IssuError, Refused, RolledBack
from .record import RECORD
from .systemd import Manager, escape_path

LOOK_SEC = 0.2
UNDO_SEC = 300.0
OK = 0


def follow(device: str, *, block: bool) -> int:
    """Start the upgrade; returns once services are about to stop, or when it was refused."""
    unit = f"issu@{escape_path(device)}.service"
    known = set(history.ids())
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
        if result == "done" and (is_live() or {*history.ids()} - known):
            return to_the_end(known, told)
        if result == "done":
            print("release: every service stops now, and this session with them")
            print("  look again with: issu status; issu report", flush=True)
            return OK
        ended = time.monotonic() + UNDO_SEC
        manager.wait_until(lambda: not alive(manager, unit), ended)
    fresh = set(history.ids()) - known
    if not fresh:
        raise IssuError(f"{unit} failed", hint=f"journalctl -u '{unit}'")
    document = history.find(max(fresh))
    return tell(document)


def tell(document: dict[str, Any]) -> int:
    """Say how an upgrade ended; raises Refused, RolledBack or IssuError if not well."""
    if document["result"] == "accepted":
        print(history.one_line(document))
        return OK
    if document["result"] == "refused":
        raise Refused(f"refused: {document['error']}")
    if document["result"] == "rolled-back":
        raise RolledBack(f"rolled back to the old root: {document['error']}")
    raise IssuError(f"the upgrade failed: {document['error']}")


def is_live() -> bool:
    """Whether the upgrade that runs leaves this session alone."""
    now = history.current()
    return now is not None and now["strategy"] == "live"


def to_the_end(known: set[str], told: str) -> int:
    """Show the phases until there is a report; PID 1 and the bus may be away meanwhile."""
    while RECORD.exists():
        now = history.current()
        if now and now["phase"] != told:
            told = str(now["phase"])
            print(told, flush=True)
        if now and now["accept_deadline_usec"]:
            print(history.one_line(now), flush=True)
            return OK
        time.sleep(LOOK_SEC)
    fresh = set(history.ids()) - known
    if not fresh:
        raise IssuError("the upgrade left no report", hint="journalctl -b -u 'issu@*'")
    return tell(history.find(max(fresh)))


def alive(manager: Manager, unit: str) -> bool:
    """Whether the unit still does something: an undo runs after its job has ended."""
    return any(u.name == unit and u.active not in ("inactive", "failed") for u in manager.units())
