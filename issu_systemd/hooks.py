"""Programs that run when an upgrade has been accepted or rolled back: accept.d and rollback.d.

They cannot undo it any more: one that fails is a finding of the report. They run before the report
is written, and again if we are killed meanwhile. An upgrade that is refused or fails runs none.

Whatever the way back was, at its end the old root has its turn: an upgrade that is a way back ends
with rollback.d too. The boot loader is told only where acceptance has changed, or had changed, what
it starts: nobody touches it for a new root that was never accepted.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from .programs import found, run_one
from .record import Record

log = logging.getLogger(__name__)

PLACES = (Path("/usr/lib/issu"), Path("/etc/issu"))


def run(story: Record) -> None:
    """Run what is to run for the upgrade's result, in the order of the names."""
    for path in programs(directory(story)):
        said = run_one(path, story.hook_timeout_usec, environment(story))
        if said.trouble:
            log.warning("%s", said.trouble)
            story.find("hook", "warn", said.trouble, f"mend it; then run it by hand: {path}")
        elif said.last:
            log.info("%s: %s", path, said.last)


def directory(story: Record) -> str:
    """Whose turn it is, "" if nobody's. Rolled back is what has come back to a root."""
    here = os.stat("/").st_dev  # noqa: PTH116
    if story.result == "rolled-back":
        return "rollback.d" if here == story.old_dev else ""  # or else one more upgrade follows
    if story.way_back:  # what is not healthy there either stays there
        arrived = here == story.new_dev and story.result in ("accepted", "failed")
        return "rollback.d" if arrived else ""
    return "accept.d" if story.result == "accepted" else ""


def programs(name: str) -> list[Path]:
    """The programs of a directory."""
    return found(place / name for place in PLACES) if name else []


def environment(story: Record) -> dict[str, str]:
    """What a program is told of the upgrade."""
    source, target = (str(root.get("device") or "") for root in (story.source, story.target))
    accepted = story.result == "accepted"
    changes = accepted and not story.way_back.get("reboot")  # else nothing had been accepted
    return {
        "ISSU_ID": story.id,
        "ISSU_SOURCE": source,
        "ISSU_TARGET": target,
        "ISSU_ROOT": source if story.result == "rolled-back" else target,
        "ISSU_RESULT": "accepted" if accepted and not story.way_back else "rolled-back",
        "ISSU_BOOT_LOADER": story.boot_loader if changes else "none",
    }
