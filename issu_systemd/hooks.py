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

from . import record
from .errors import IssuError
from .record import Record
from .run import run_bounded

log = logging.getLogger(__name__)

PLACES = (Path("/usr/lib/issu"), Path("/etc/issu"))  # a file in the later replaces its namesake
KEPT_BYTES = 64 * 1024  # of what a program prints, the end
LINE = 500  # characters of it that a finding has


def run(story: Record) -> None:
    """Run what is to run for the upgrade's result, in the order of the names."""
    for path in programs(directory(story)):
        if trouble := run_one(path, story):
            log.warning("%s", trouble)
            story.find("hook", "warn", trouble, f"mend it; then run it by hand: {path}")


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
    """The programs of a directory; what is not an executable file is none, and hides one."""
    if not name:
        return []
    found = {path.name: path for place in PLACES for path in (place / name).glob("*")}
    every = [found[key] for key in sorted(found)]
    return [path for path in every if path.is_file() and os.access(path, os.X_OK)]


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


def run_one(path: Path, story: Record) -> str:
    """Run one program with the record's path; what is wrong, "" if it is content."""
    seconds = story.hook_timeout_usec / 1_000_000
    try:
        done = run_bounded(
            [path, record.RECORD], timeout=seconds, keep=KEPT_BYTES, more=environment(story)
        )
    except IssuError as error:
        return str(error)
    last = (done.output.strip().splitlines() or ["it said nothing"])[-1][:LINE]
    if done.status is None:
        return f"{path} did not end within {seconds:g} s: {last}"
    if done.status:
        return f"{path} ended with {done.status}: {last}"
    if done.output:
        log.info("%s: %s", path, last)
    return ""
