"""Restart units one after another, each when all it comes after have come back: strategy live.

The restart of a unit takes nothing else along: every other unit has its own turn.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, NamedTuple

from .errors import IssuError
from .systemd import Manager

# What others talk to as soon as they start.
FIRST = (
    "systemd-journald.service", "systemd-udevd.service", "dbus.service", "dbus-broker.service",
    "systemd-logind.service",
)  # fmt: skip
NEEDS = ("Requires", "BindsTo", "Wants")
UNMOVED = "ignore-requirements"  # job mode, systemctl(1): no other unit is restarted with it
EXEC_SEC = 10.0  # from fork(2) to execve(2) of a service
POLL_SEC = 0.002  # the kernel tells nobody of an execve(2)

Graph = dict[str, set[str]]


class Trouble(NamedTuple):
    """A unit that did not come back, and how it ended."""

    unit: str
    how: str


class Work(NamedTuple):
    """What is to be restarted: at most `width` at once, each within `timeout_sec` seconds.

    A unit that became active at `since` (CLOCK_MONOTONIC microseconds) or later is done already.
    """

    units: Collection[str]
    width: int
    timeout_sec: float
    since: int


def restart(manager: Manager, work: Work) -> list[Trouble]:
    """Restart the units; returns those that did not come back, stopping at the first."""
    known = closure(manager, work.units)
    sorter = sort({unit: texts(found, "After") for unit, found in known.items()})
    ready: set[str] = set()
    running: dict[int, tuple[str, float]] = {}  # job -> unit, deadline
    tried: set[str] = set()
    troubles: list[Trouble] = []
    while sorter.is_active():
        ready |= {*sorter.get_ready()}
        idle = {u for u in ready if u not in work.units or is_done(known[u], work.since)}
        sorter.done(*idle)
        ready -= idle
        if idle:
            continue
        while ready and len(running) < work.width and not troubles:
            unit = min(ready, key=rank)
            ready.discard(unit)
            fetch_needs(manager, known[unit], tried, work.timeout_sec)
            running[manager.restart(unit, UNMOVED)] = unit, time.monotonic() + work.timeout_sec
        if not running:
            break
        unit, trouble = next_end(manager, running)
        sorter.done(unit)
        troubles += trouble
    return troubles or execed(manager, work)


def rank(unit: str) -> tuple[int, str]:
    """The place of a unit among those whose turn it is."""
    return (FIRST.index(unit) if unit in FIRST else len(FIRST), unit)


def closure(manager: Manager, units: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The properties of the units and of all that come before them, by name."""
    left, known = [*units], dict[str, dict[str, Any]]()
    loaded = {unit.name for unit in manager.units()}
    while left:
        unit = left.pop()
        if unit not in known:
            known[unit] = manager.properties(unit)
            left += [before for before in texts(known[unit], "After") if before in loaded]
    return known


def texts(found: dict[str, Any], name: str) -> set[str]:
    """A property that is a list of unit names."""
    return {value.decode() for value in found.get(name, ())}


def sort(graph: Graph) -> TopologicalSorter[str]:
    """A sorter ready for use; of a circle the last step is left out, as PID 1 does."""
    graph = {unit: {a for a in after if a in graph and a != unit} for unit, after in graph.items()}
    while True:
        sorter = TopologicalSorter(graph)
        try:
            sorter.prepare()
        except CycleError as error:
            first, second = error.args[1][:2]
            graph[second].discard(first)
        else:
            return sorter


def is_done(found: dict[str, Any], since: int) -> bool:
    """Whether a unit has come back already."""
    back: bool = found["ActiveEnterTimestampMonotonic"] >= since
    return back and found["ActiveState"] == b"active"


def fetch_needs(
    manager: Manager, found: dict[str, Any], tried: set[str], timeout_sec: float
) -> None:
    """Start what a unit needs and lacks, while it still runs: what only the new root needs."""
    wants = set().union(*(texts(found, name) for name in NEEDS)) - tried
    tried |= wants
    if not wants:
        return
    active = {unit.name for unit in manager.units() if unit.active in ("active", "reloading")}
    for unit in sorted(wants - active):
        try:
            manager.wait_job(manager.start(unit), time.monotonic() + timeout_sec)
        except IssuError:
            continue  # not there, or not to be started by hand: the unit will tell


def next_end(
    manager: Manager, running: dict[int, tuple[str, float]]
) -> tuple[str, list[Trouble]]:
    """Wait for the next restart to end; the unit, and its trouble if it has not come back."""
    deadline = min(end for _, end in running.values())
    ended = manager.wait_any(running, deadline)
    job, result = ended or (min(running, key=lambda j: running[j][1]), "timeout")
    unit, deadline = running.pop(job)
    if result == "timeout":
        return unit, [Trouble(unit, "it took too long")]
    return unit, came_back(manager, unit, deadline)


def came_back(manager: Manager, unit: str, deadline: float, settle_usec: int = 0) -> list[Trouble]:
    """Nothing if the unit is active, and has been for so long; else its trouble.

    Restart= of systemd.service(5) may have tried again meanwhile.
    """
    manager.wait_until(
        lambda: standing(manager.properties(unit), settle_usec) is not None, deadline
    )
    found = manager.properties(unit)
    if standing(found, settle_usec):
        return []
    state = found["ActiveState"].decode()
    return [Trouble(unit, "it does not stay active" if state == "active" else f"it is {state}")]


def standing(found: dict[str, Any], settle_usec: int) -> bool | None:
    """Whether a unit has come back; None while that is not yet to be seen."""
    state = found["ActiveState"]
    if state in (b"active", b"reloading"):
        since = time.monotonic_ns() // 1000 - found["ActiveEnterTimestampMonotonic"]
        return True if since >= settle_usec else None
    if state in (b"activating", b"deactivating"):
        return None
    # The new root may say that it must not run here.
    return bool(found["ConditionTimestampMonotonic"]) and not found["ConditionResult"]


def settled(manager: Manager, work: Work, settle_usec: int) -> list[Trouble]:
    """Wait until every unit has stayed active for so long; those that have not."""
    deadline = time.monotonic() + work.timeout_sec
    troubles = [t for unit in work.units for t in came_back(manager, unit, deadline, settle_usec)]
    if troubles:
        return troubles
    active = {unit.name for unit in manager.units() if unit.active in ("active", "reloading")}
    return [t for u in work.units if u not in active for t in came_back(manager, u, 0)]


def execed(manager: Manager, work: Work) -> list[Trouble]:
    """Wait until every unit runs its own program; those that failed at that."""
    deadline = time.monotonic() + EXEC_SEC
    troubles = []
    for unit in work.units:
        if unit.endswith(".service"):
            pid = manager.properties(unit, "Service")["MainPID"]
            while is_before_exec(pid) and time.monotonic() < deadline:
                time.sleep(POLL_SEC)
            troubles += came_back(manager, unit, deadline)
    return troubles


def is_before_exec(pid: int) -> bool:
    """Whether PID 1 has forked the process but it is not the service yet: its name is "(name)"."""
    try:
        return pid > 0 and Path(f"/proc/{pid}/comm").read_text().startswith("(")
    except OSError:
        return False
