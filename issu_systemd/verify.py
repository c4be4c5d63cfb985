"""Is the new root healthy? The default target reached, and the units of [verify] active."""

from __future__ import annotations

from .phase import Phase
from .record import Record
from .systemd import Manager


def verify(manager: Manager, story: Record) -> list[str]:
    """Wait until healthy or until the time of [verify] is over; what is wrong, a sentence each."""
    deadline = ((story.start_of(Phase.VERIFY) or 0) + story.verify_timeout_usec) / 1_000_000
    wanted = [manager.default_target(), *story.verify_units]
    manager.wait_until(lambda: not missing(manager, wanted), deadline)
    seconds = story.verify_timeout_usec // 1_000_000
    return [f"{unit} is {state} after {seconds} s" for unit, state in missing(manager, wanted)]


def missing(manager: Manager, wanted: list[str]) -> list[tuple[str, str]]:
    """Those of the units that are not active, with their state."""
    states = {unit.name: unit.active for unit in manager.units()}
    return [(u, states.get(u, "not loaded")) for u in wanted if states.get(u) != "active"]
