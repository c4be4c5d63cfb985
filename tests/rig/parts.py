"""Where the outage of an ISSU goes: the time between marks that PID 1 and the record have left."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from .echoes import UNITS
from .machine import Machine

MANAGER = (
    "UserspaceTimestampMonotonic",
    "GeneratorsStartTimestampMonotonic",
    "GeneratorsFinishTimestampMonotonic",
    "UnitsLoadFinishTimestampMonotonic",
)
UNIT = ("InactiveEnterTimestampMonotonic", "InactiveExitTimestampMonotonic",
        "ActiveEnterTimestampMonotonic", "ActiveExitTimestampMonotonic")  # fmt: skip
STOP, DOWN, UP, LEFT = UNIT

Times = Mapping[str, Mapping[str, int]]
Mark = tuple[str, int]  # what ends here, microseconds of CLOCK_MONOTONIC


def unit_times(machine: Machine, *patterns: str) -> dict[str, dict[str, int]]:
    """When the units that match last became inactive, left that, became active, and left that."""
    names = ",".join(("Id", *UNIT))
    text = machine.systemctl("show", f"--property={names}", *patterns)
    blocks = [dict(line.split("=", 1) for line in b.splitlines()) for b in text.split("\n\n")]
    return {block["Id"]: {key: int(block[key]) for key in UNIT} for block in blocks}


def manager_times(machine: Machine) -> dict[str, int]:
    """The stages of the start of the PID 1 that runs now."""
    text = machine.systemctl("show", f"--property={','.join(MANAGER)}")
    return {key: int(value) for key, value in (line.split("=") for line in text.splitlines())}


def of(machine: Machine, report: Mapping[str, Any]) -> dict[str, int]:
    """The parts of the outage in the report of an upgrade that has just ended."""
    echoes = unit_times(machine, UNITS)
    every = unit_times(machine, "*.service", "*.target")
    return lengths(marks(report, manager_times(machine), echoes, every))


def marks(
    report: Mapping[str, Any], manager: Mapping[str, int], echoes: Times, every: Times
) -> list[Mark]:
    """The marks in their order, the first being the start of the outage."""
    begins = {phase["name"]: phase["start_usec"] for phase in report["phases"]}
    release, switch = begins["release"], begins["switch"]

    def last_stop(units: Times) -> int:
        stops = (unit[STOP] for unit in units.values())
        return max((stop for stop in stops if release <= stop <= switch), default=release)

    userspace, generators, generated, loaded = (manager[key] for key in MANAGER)
    return [
        ("", report["outage_start_usec"]),
        ("the measured services stop", last_stop(echoes)),
        ("the system's own units stop", last_stop(every)),
        ("processes and IPC objects left over", switch),
        ("sync, PID 1 saves its state, the root moves", userspace),
        ("the new PID 1 sets itself up", generators),
        ("generators", generated),
        ("unit files are read", loaded),
        ("first jobs, and the start of our Python", begins["arrive"]),
        ("proof that the old root is free", begins["verify"]),
        ("the system's own units, up to basic.target", every["basic.target"][UP]),
        ("up to the first measured service", min(unit[DOWN] for unit in echoes.values())),
        ("the measured services start", max(unit[UP] for unit in echoes.values())),
        ("up to the default target", report["outage_end_usec"]),
    ]


def lengths(points: Sequence[Mark]) -> dict[str, int]:
    """The time from each mark to the next, in microseconds; 0 where they are not in order."""
    found, latest = {}, points[0][1]
    for _, (name, time) in pairwise(points):
        found[name] = max(0, time - latest)
        latest = max(latest, time)
    return found
