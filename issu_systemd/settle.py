"""The end of every upgrade, good or bad: no trace is left on /run, a report in the history.

`undo` brings the old root back as it was; it may be called by the agent, by ExecStopPost= of
issu@.service when the agent was killed, by the next upgrade when that was killed too, and by
arrive.py when PID 1 stayed on the old root. `accept` ends an upgrade on the new root.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from . import (
    carry,
    events,
    facts,
    gate,
    hooks,
    lastresort,
    log,
    netgate,
    outcome,
    plan,
    record,
    release,
    restart,
    room,
    unfinished,
    watchdog,
)  # fmt: skip
from .errors import Busy, IssuError, RecordError
from .phase import BEYOND, STOPPED, Phase
from .record import Record
from .systemd import Manager

logger = logging.getLogger(__name__)

JOURNAL_FLUSH = "systemd-journal-flush.service"  # gated, since services would wait for it
BACK = (*release.STOPPABLE, ".target")
STAYED = "PID 1 stayed on the old root; its log says why"
BACK_SEC = 120.0  # for the services to come back
UNDOABLE = (Phase.PREFLIGHT, Phase.STAGE, *STOPPED)  # later issu-arrive.service has it
LOGIND = ("user@", "user-runtime-dir@")  # come and go with the sessions that logind opens


def undo(manager: Manager, story: Record, error: str, *, result: str = "failed") -> None:
    """Bring the old root back to what it was before the upgrade, and write the report.

    If the upgrade was the way back, what it was is no good, and the machine reboots instead.
    """
    if story.way_back.get("reboot"):
        from . import wayback

        wayback.give_up(manager, story, error)
        return
    watchdog.take_over(story)
    story.error = error
    story.result = result
    with suppress(OSError):  # whoever repeats the undo knows what it is for
        record.save(story)
    if story.phase is not Phase.PREFLIGHT:
        logger.error("%s; undoing the upgrade", error)
    if story.rehearses:
        end_rehearsal(manager)
    # Read first: PID 1 forgets a stopped unit, and when it stopped, once no drop-in names it.
    touched = story.phase in STOPPED or story.phase in (*BEYOND, Phase.BACK)
    stopped = outcome.unit_times(manager) if touched else {}
    if touched:
        if release.keep_gated():
            reload(manager, story)
        restart_again(manager, story)
        bring_back(manager, story)
    if story.phase is not Phase.PREFLIGHT and release.undo_files():
        reload(manager, story)
    netgate.open_again()
    if story.hold_made:
        with suppress(OSError):
            (Path(story.stage) / story.stage.lstrip("/")).rmdir()
    if story.stage:
        try:
            facts.unstage(Path(story.stage), made=story.stage_made)
        except IssuError as trouble:
            story.find("unstage", "warn", str(trouble), trouble.hint)
        if story.phase is not Phase.PREFLIGHT:
            carry.keep_journal()
    finish(manager, story, stopped)
    if touched:
        flush_journal(manager, story)


def reload(manager: Manager, story: Record) -> None:
    """Have PID 1 read its units again; if it will not, the end of the upgrade does not wait."""
    try:
        room.reload(manager)
    except IssuError as error:
        story.find("reload", "warn", f"PID 1 did not read its units again: {error}",
                   "systemctl daemon-reload")  # fmt: skip


def end_rehearsal(manager: Manager) -> None:
    """End a rehearsal that the agent has not lived to end; it holds the target."""
    deadline = time.monotonic() + BACK_SEC
    for unit in manager.units():
        if unit.name.startswith("issu-rehearsal@"):
            manager.wait_job(manager.stop(unit.name), deadline)


def restart_again(manager: Manager, story: Record) -> None:
    """Strategy live: restart what was restarted on the new root, for it runs that one's program."""
    returned, left = story.steps.get("returned_usec"), story.start_of(Phase.SWITCH)
    if not returned or not left:
        return
    units = [
        unit for unit, action, *_ in story.plan if action == plan.RESTARTED
        and not untouched(manager.properties(unit), left)
    ]  # fmt: skip
    work = restart.Work(units, story.parallel, story.restart_timeout_usec / 1_000_000, returned)
    for unit, how in restart.restart(manager, work):
        story.find("not-back", "warn", f"{unit} did not come back: {how}",
                   f"systemctl status {unit}")  # fmt: skip


def untouched(found: Mapping[str, Any], left: int) -> bool:
    """Whether a unit is active since before `left`; one that never came up elsewhere is not."""
    since: int = found["ActiveEnterTimestampMonotonic"]
    return found["ActiveState"] in (b"active", b"reloading") and 0 < since < left


def bring_back(manager: Manager, story: Record) -> None:
    """Start every unit that was active, and no other; tell which did not come.

    What still is active is started too, for what it wants: a target such as network.target comes
    in no other way. A target comes without what it wants, which may have been stopped by hand.
    """
    logger.info("starting again what was stopped")
    deadline = time.monotonic() + BACK_SEC
    manager.call("StopUnit", "ss", gate.HALT, "replace")
    for late in manager.jobs():
        # Of `systemctl stop`: it ends after us, and the journal's socket could start only after it.
        if late.unit == story.unit and late.type == "stop":
            manager.call("CancelJob", "u", late.id)
    wanted = [u for u in story.before if u.endswith(BACK) and not u.startswith(LOGIND)]
    jobs = []
    for unit in sorted(wanted, key=in_turn):
        mode = "ignore-requirements" if unit.endswith(".target") else "replace"
        with suppress(IssuError):  # not all may be started by name
            jobs.append(manager.start(unit, mode))
    for job in jobs:
        manager.wait_job(job, deadline)
    active = {unit.name for unit in manager.units() if unit.active in ("active", "reloading")}
    for unit in wanted:
        found = manager.properties(unit)
        gone = found["LoadState"] != b"loaded"
        skipped = found["ConditionTimestampMonotonic"] and not found["ConditionResult"]
        if unit not in active and (gone or (found["CanStart"] and not skipped)):
            story.find("not-back", "warn", f"{unit} did not come back", f"systemctl status {unit}")


def in_turn(unit: str) -> tuple[bool, bool]:
    """Sorts sockets first, which do not start beside their service, and targets last."""
    return unit.endswith(".target"), not unit.endswith(".socket")


def accept(manager: Manager, story: Record, troubles: list[str]) -> None:
    """End an upgrade on the new root: accepted without troubles, failed with them."""
    story.result = "failed" if troubles else "accepted"
    story.error = "; ".join(troubles) or None
    conclude(manager, story)


def conclude(manager: Manager, story: Record) -> None:
    """End an upgrade on the new root, with the result that it has."""
    story.target["systemd"] = manager.version()
    release.undo_files()
    clear_old_failures(manager, story)
    reload(manager, story)  # runs generators, which may load modules: only then
    netgate.open_again()
    finish(manager, story)
    if story.strategy == "live":  # the unit that does it was never stopped
        carry.keep_journal()
    flush_journal(manager, story)


def flush_journal(manager: Manager, story: Record) -> None:
    """Start what moves the journal to disk, once nothing gates it and nobody waits for it."""
    if story.strategy == "halt":
        with suppress(IssuError):  # masked
            manager.start(JOURNAL_FLUSH)


def clear_old_failures(manager: Manager, story: Record) -> None:
    """Forget failures from before the switch; the new root has not tried these units."""
    begun = story.start_of(Phase.ARRIVE) or 0
    for unit in manager.units():
        if unit.active == "failed":
            when = manager.properties(unit.name)["InactiveEnterTimestampMonotonic"]
            if when < begun:
                manager.call("ResetFailedUnit", "s", unit.name)


def finish(manager: Manager, story: Record, stopped: outcome.Times | None = None) -> None:
    """Write the report to the history, then remove the record: the last trace on /run."""
    from . import wayback

    hooks.run(story)
    if not wayback.is_begun(story):  # else whoever goes back has it
        watchdog.disarm(story)
    story.end_phase()
    try:
        document = outcome.describe(manager, story, stopped)
        unfinished.tell(story, document)
        outcome.write_history(document)
    except IssuError as error:  # a full disk must not keep the upgrade from its end
        logger.error("there will be no report: %s", error)
    leftovers = (record.REACHED, record.VERDICT, room.place(), lastresort.path())
    for path in (*leftovers, record.RECORD):
        path.unlink(missing_ok=True)
    events.tell_end(story)


def complete(manager: Manager) -> None:
    """Before an upgrade begins: undo what an earlier one has left on this root, if anything.

    The lock is ours, so nobody is at it. Raises Busy if that one has changed roots, and IssuError
    if what it left cannot be read or undone.
    """
    if not record.RECORD.exists():
        return
    story = record.load()
    if story.phase not in UNDOABLE or not is_ours(story):
        raise Busy(f"upgrade {story.id} has changed roots and has not ended",
                   hint="`issu status` shows it; if it is stuck: systemctl restart "
                        "issu-arrive.service")  # fmt: skip
    logger.warning("upgrade %s was cut off and is not undone yet", story.id)
    error = story.error or f"the agent died in phase {story.phase} (its undo was cut off)"
    undo(manager, story, error, result=story.result or "failed")


def is_ours(story: Record) -> bool:
    """Whether / and PID 1's program are on the root that the upgrade was to leave."""
    from . import live  # which brings what no other end of an upgrade needs

    return live.root_dev() == live.pid1_dev() == story.old_dev


def death(story: Record) -> str:
    """How the agent ended, from what PID 1 tells ExecStopPost= (systemd.exec(5))."""
    code, status = os.environ.get("EXIT_CODE", ""), os.environ.get("EXIT_STATUS", "")
    result = os.environ.get("SERVICE_RESULT")
    if result == "success" and story.phase is Phase.SWITCH:
        return STAYED
    if result == "success" or (result, status) == ("protocol", "TERM"):  # before READY=1
        return f"stopped on request in phase {story.phase}"
    if result == "timeout":
        return f"took too long in phase {story.phase} and was stopped"
    how = f"signal {status}" if code in ("killed", "dumped") else f"exit {status}"
    return f"the agent died in phase {story.phase} ({how})"


def main() -> int:
    """ExecStopPost= of issu@.service: undo what a dead agent of this unit left."""
    unit = sys.argv[1]
    try:
        with record.lock():
            story = record.load()
            log.setup(story.id)
            if story.unit != unit or story.old_dev != os.stat("/").st_dev:  # noqa: PTH116
                return 0
            with Manager() as manager:
                result = story.result or "failed"
                if story.phase is Phase.BACK:
                    result = "rolled-back"
                undo(manager, story, story.error or death(story), result=result)
    except (RecordError, Busy):
        return 0  # nothing was left, or somebody is at it
    except (IssuError, OSError) as error:
        print(f"<3>{error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
