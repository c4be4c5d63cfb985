"""Is the new root healthy? Every trouble is found, not only the first, and each is a sentence.

To look at one more thing, write a function that returns troubles, and call it in `verify`.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

from . import looping, mounts, plan
from .errors import IssuError
from .phase import Phase
from .record import Record
from .systemd import Manager

log = logging.getLogger(__name__)

PROGRAMS = (Path("/usr/lib/issu/verify.d"), Path("/etc/issu/verify.d"))
NAMED = 5  # differences of the kernel's state that the error names, of any number


def verify(manager: Manager, story: Record) -> list[str]:
    """Wait until healthy or until the times of [verify] are over; what is wrong."""
    late = not_reached(manager, story)
    return [
        *late.values(), *not_settled(manager, story, {*late}), *crashing(manager, story),
        *failed(manager, story), *refused_by_programs(story), *kernel_differs(story),
        *disk_gone(story),
    ]  # fmt: skip


def not_reached(manager: Manager, story: Record) -> dict[str, str]:
    """What is said of the default target and of [verify] units that are not active in time."""
    deadline = ((story.start_of(Phase.VERIFY) or 0) + story.verify_timeout_usec) / 1_000_000
    wanted = [manager.default_target(), *story.verify_units]
    manager.wait_until(lambda: not missing(manager, wanted), deadline)
    seconds = story.verify_timeout_usec / 1_000_000
    return {unit: f"{unit} is {state} after {seconds:g} s"
            for unit, state in missing(manager, wanted)}  # fmt: skip


def missing(manager: Manager, wanted: list[str]) -> list[tuple[str, str]]:
    """Those of the units that are not active, with their state."""
    states = {unit.name: unit.active for unit in manager.units()}
    return [(u, states.get(u, "not loaded")) for u in wanted if states.get(u) != "active"]


def not_settled(manager: Manager, story: Record, late: set[str]) -> list[str]:
    """Those of [verify] units that were active in time and do not stay so for [verify] settle.

    One that crashes again and again may have been active for an instant, and be so no more.
    """
    first = {unit: entered(manager, unit) for unit in story.verify_units if unit not in late}
    up = [since for since in first.values() if since is not None]
    end = (max(up, default=0) + story.verify_settle_usec) / 1_000_000

    def left() -> list[str]:
        return [u for u, since in first.items() if since is None or entered(manager, u) != since]

    if up:
        manager.wait_until(lambda: len(left()) == len(first), end)
    states = {unit.name: unit.active for unit in manager.units()}
    seconds = story.verify_settle_usec / 1_000_000
    return [
        f"{unit} did not stay active for {seconds:g} s: it is {states.get(unit, 'not loaded')}"
        f"{' again' if states.get(unit) == 'active' else ''}" for unit in left()
    ]  # fmt: skip


def entered(manager: Manager, unit: str) -> int | None:
    """Since when a unit is active, in CLOCK_MONOTONIC microseconds; None if it is not."""
    found = manager.properties(unit)
    up = found["ActiveState"] in (b"active", b"reloading")
    return int(found["ActiveEnterTimestampMonotonic"]) if up else None


def crashing(manager: Manager, story: Record) -> list[str]:
    """Services that crash again and again here, and did not before."""
    spared = {*story.failed_before, *story.verify_units}
    ill = looping.found(manager, spared, story.verify_settle_usec)
    return [f"{unit} crashes again and again, and did not before" for unit in ill]


def failed(manager: Manager, story: Record) -> list[str]:
    """Units that failed here and had not before; what [verify] units names is told already."""
    spared, begun = {*story.failed_before, *story.verify_units}, story.start_of(Phase.ARRIVE) or 0
    fresh = [
        unit.name for unit in manager.units()
        if unit.active == "failed" and unit.name not in spared
        and not unit.name.startswith(plan.OWN)
    ]  # fmt: skip
    return [
        f"{unit} has failed, and had not before" for unit in fresh
        if manager.properties(unit)["InactiveEnterTimestampMonotonic"] >= begun
    ]  # fmt: skip


def refused_by_programs(story: Record) -> list[str]:
    """Run each program with the record's path; those that did not exit 0, with their last line."""
    from .programs import found

    return [trouble for path in found(PROGRAMS) if (trouble := run_program(path, story))]


def run_program(path: Path, story: Record) -> str:
    """Run one program; "" if it is content."""
    from .programs import run_one

    said = run_one(path, story.verify_program_timeout_usec)
    log.info("verify: %s: %s: %s", path, said.status, said.last or "it said nothing")
    return said.trouble


def kernel_differs(story: Record) -> list[str]:
    """With [verify] continuity = "strict": what is another in the kernel than before."""
    if story.verify_continuity != "strict":
        return []
    from . import netstate, outcome

    try:
        netstate.settle(time.monotonic() + netstate.SETTLE_SEC)
    except IssuError as error:  # without iproute2 there is nothing to wait for
        log.info("verify: %s", error)
    story.compared = outcome.continuity_of(story)
    found = [f"{one['what']} {one['name']}" for one in story.compared["differences"]]
    if not found:
        return []
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return [f"the kernel's state is not as it was: {', '.join(found[:NAMED])}{more}"]


def disk_gone(story: Record) -> list[str]:
    """The new root's device, if it cannot be read: what runs may be in memory, all of it."""
    node = str(story.target.get("device") or "")
    if not node.startswith("/dev/"):
        return []
    try:
        mounts.read_device(node)
    except OSError as error:
        return [f"{node}, which holds the new root, cannot be read: {error.strerror}"]
    return []
