"""Services that crash and are started again and again: PID 1 calls none of them failed.

NRestarts of org.freedesktop.systemd1(5) counts how often Restart= has started a service since a job
has; Result tells, until it is started again, how it ended.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from contextlib import suppress

from . import plan
from .errors import IssuError
from .systemd import Manager

WAITS = ("auto-restart", "auto-restart-queued")  # systemd 254 has the second
RECENT_USEC = 60_000_000
POLL_SEC = 0.02  # RestartSec= is 100 ms where nobody sets it


def suspects(manager: Manager) -> list[str]:
    """The services that Restart= has started again, or is about to."""
    return [
        unit.name for unit in manager.units()
        if unit.name.endswith(".service") and unit.active in ("active", "activating")
        and not unit.name.startswith(plan.OWN)
        and (unit.sub in WAITS or manager.get("NRestarts", "u", unit.name))
    ]  # fmt: skip


def ill(manager: Manager) -> list[str]:
    """Units that have failed or crash again and again: later nothing new is to blame for them."""
    now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    failed = {unit.name for unit in manager.units() if unit.active == "failed"}
    crash = {
        unit for unit in suspects(manager)
        if now - manager.get("ActiveEnterTimestampMonotonic", "t", unit, "Unit") < RECENT_USEC
        or manager.get("SubState", "s", unit, "Unit").decode() in WAITS
    }  # fmt: skip
    return sorted(failed | crash)


def found(manager: Manager, spared: Collection[str], settle_usec: int) -> list[str]:
    """Those that crash within `settle_usec` once more; it is waited for suspects alone."""
    left, ill = [unit for unit in suspects(manager) if unit not in spared], list[str]()
    end = time.monotonic() + settle_usec / 1_000_000
    while left and time.monotonic() < end:
        ill += [unit for unit in left if has_crashed(manager, unit)]
        left = [unit for unit in left if unit not in ill]
        time.sleep(POLL_SEC)
    return ill


def has_crashed(manager: Manager, unit: str) -> bool:
    """Whether a service waits to be started again because it failed; its end may be its way."""
    with suppress(IssuError):  # it is gone
        if manager.get("SubState", "s", unit, "Unit").decode() in WAITS:
            return bool(manager.get("Result", "s", unit) != b"success")
    return False
