"""One journal entry for each event in the life of an upgrade, with fields that a program can match.

data/issu.catalog explains each MESSAGE_ID to whoever runs `journalctl -x`; issu@.service(8) lists
them. They are part of the interface: never give an old id a new meaning.
"""

from __future__ import annotations

import logging
from enum import StrEnum

from . import log
from .record import Record

logger = logging.getLogger(__name__)


class Event(StrEnum):
    """What happened; the value is its MESSAGE_ID, see systemd.journal-fields(7)."""

    STARTED = "8eaad367166146db881944ce3aa0d3d3"  # the record is there, preflight begins
    REFUSED = "a4a9fa66e533418b923c6dae375de19d"
    RELEASED = "9d411527bd314cceaad932b1aeb3ee6c"  # staged; the first unit is about to stop
    SWITCHED = "10879d6d3dbe4725bcbcdf2db17e760a"  # / and PID 1 are of the new root
    ARRIVED = "34bdf0640fbd4216823244d61be930f8"  # halt: services may start; live: all restarted
    ACCEPTED = "4019c84cb4ea4749be0bd5d77f39f9b0"
    ROLLED_BACK = "c69603c127ee4cdd89d18fa1ebe54a58"
    FAILED = "97deb1ccbc2049f88607c8d8361df663"


ENDS = {
    "accepted": Event.ACCEPTED, "refused": Event.REFUSED,
    "rolled-back": Event.ROLLED_BACK, "failed": Event.FAILED,
}  # fmt: skip
LEVELS = {
    Event.REFUSED: logging.WARNING, Event.ROLLED_BACK: logging.ERROR, Event.FAILED: logging.ERROR,
}  # fmt: skip


def tell(event: Event, story: Record, text: str) -> None:
    """Tell an event; where no journal listens, its text alone goes where every line goes then."""
    level = LEVELS.get(event, logging.INFO)
    entry = {
        "MESSAGE": f"{story.id}: {text}", "MESSAGE_ID": event.value,
        "PRIORITY": str(log.PRIORITY[level]), "SYSLOG_IDENTIFIER": "issu",
        # journalctl(1) --unit= selects by it, whichever unit of ours tells.
        "OBJECT_SYSTEMD_UNIT": story.unit,
        "ISSU_ID": story.id, "ISSU_SOURCE": str(story.source.get("device") or ""),
        "ISSU_TARGET": str(story.target.get("device") or ""), "ISSU_PHASE": str(story.phase or ""),
        "ISSU_STRATEGY": story.strategy, "ISSU_RESULT": story.result or "",
        "ISSU_ERROR": story.error or "",
    }  # fmt: skip
    if not log.entry(entry):
        logger.log(level, text)


def tell_end(story: Record) -> None:
    """Tell how an upgrade ended."""
    result = story.result or "failed"
    end = story.error or f"{story.target.get('os') or 'the new root'} runs"
    tell(ENDS[result], story, f"{result}: {end}")
