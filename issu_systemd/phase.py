"""The phases of an upgrade and the edges between them.

    preflight → stage → release → switch → arrive → verify → accept
        │          │        │        │
        └──────────┴────────┴────────┴── undo: back on the old root as it was
                                          ^
              strategy live:  roll-back ──┘ from switch, arrive and verify

From verify and accept, roll-back is also how an upgrade ends whose way back is another upgrade, to
the old root (wayback.py): always with strategy halt, with live once the old root was let go.

Patent: release is operations 211 to 213 and 410 to 413, switch 414 and 415, arrive 314.
"""

from __future__ import annotations

from enum import StrEnum

from .errors import IssuError


class Phase(StrEnum):
    """Where an upgrade stands; the value is what record, report and STATUS= show."""

    PREFLIGHT = "preflight"
    STAGE = "stage"
    RELEASE = "release"
    SWITCH = "switch"
    ARRIVE = "arrive"
    VERIFY = "verify"
    ACCEPT = "accept"
    BACK = "roll-back"


ORDER = tuple(phase for phase in Phase if phase is not Phase.BACK)
# Services are stopped from here on; undo must start them again.
STOPPED = (Phase.RELEASE, Phase.SWITCH)
# Here services run from the new root; strategy live takes them back from there.
BEYOND = (Phase.SWITCH, Phase.ARRIVE, Phase.VERIFY)


def place(phase: Phase) -> int:
    """Where a phase stands on the way; past its end if it is none of it."""
    return ORDER.index(phase) if phase in ORDER else len(ORDER)


def check_edge(old: Phase | None, new: Phase) -> None:
    """Raise IssuError unless `new` is where an upgrade may go from `old`.

    A phase may be entered twice: a killed process of ours is started again and repeats its phase.
    """
    if new is Phase.BACK and old in (*BEYOND, Phase.ACCEPT, Phase.BACK):
        return
    want = (Phase.PREFLIGHT,) if old is None else (old, *ORDER[place(old) + 1 :][:1])
    if new not in want:
        raise IssuError(f"an upgrade cannot go from phase {old} to {new}")
