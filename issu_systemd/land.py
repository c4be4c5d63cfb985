"""Strategy live, after the pivot: restart what runs, see that all is well, let the old root go.

Run by issu-arrive.service, again and again if it is killed; what is left to do is seen from the
record and from the machine.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from pathlib import Path

from . import (
    events,
    live,
    oldroot,
    pivot,
    plan,
    record,
    restart,
    room,
    settle,
    systemd,
    verdict,
    verify,
    wayback,
)
from .errors import IssuError
from .events import Event
from .phase import Phase
from .record import Record
from .run import run
from .systemd import Manager

log = logging.getLogger(__name__)

AGAIN = 75  # exit status, EX_TEMPFAIL: issu-arrive.service starts again, on the other root
EARLY = "sysinit.target"
KILLED = "the upgrade was interrupted while the roots were changed"
TMPFILES = (
    "systemd-tmpfiles", "--create",
    *(f"--exclude-prefix={place}" for place in ("/dev", "/proc", "/sys")),
)  # fmt: skip
# Of the journal of a unit that did not come back: its own words, and what PID 1 says of it.
LAST = {"_SYSTEMD_UNIT": 5, "UNIT": 3}


def carry_on(story: Record) -> int:
    """Go on from wherever the upgrade stands; an exit status."""
    systemd.notify(ready=True)
    new_root, new_pid1 = live.is_here(story)
    if new_root != new_pid1:  # whoever changed the roots died in between, and so did its guard
        with systemd.connect(time.monotonic() + live.ANSWER_SEC) as manager:
            live.reexecute(manager, live.root_dev())
    live.strip(story)
    if new_root and story.phase is not Phase.BACK:
        return forward(story)
    with systemd.connect(time.monotonic() + live.ANSWER_SEC) as manager:
        if new_root:
            return back(manager, story)
        result = "rolled-back" if story.phase is Phase.BACK else "failed"
        settle.undo(manager, story, story.error or KILLED, result=result)
    return 0


def forward(story: Record) -> int:
    """Bring the new root into service, or begin the way back."""
    if story.phase is Phase.SWITCH:
        story.enter(Phase.ARRIVE)
        record.save(story)
        target = story.target.get("device")
        events.tell(Event.SWITCHED, story, f"{target} is / and PID 1 is its systemd")
    with systemd.connect(time.monotonic() + live.ANSWER_SEC) as manager:
        troubles = [] if story.phase is Phase.ACCEPT else bring_up(manager, story)
        if troubles and story.way_back.get("reboot"):  # there is nothing better to go to
            restart_rest(manager, story)
            let_go(manager, story)
            settle.accept(manager, story, troubles)
            return 0
        if troubles:
            story.error = "; ".join(troubles)
            log.error("going back to the old root: %s", story.error)
            story.enter(Phase.BACK)
            record.save(story)
            return back(manager, story)
        if story.phase is not Phase.ACCEPT:
            let_go(manager, story)
            story.enter(Phase.ACCEPT)
            record.save(story)
    verdict.conclude(story)
    return 0


def back(manager: Manager, story: Record) -> int:
    """Go back to the old root; if not even that works, by an upgrade to it."""
    try:
        live.back(manager, story)
    except (IssuError, OSError) as error:
        if live.root_dev() != story.new_dev:
            raise  # the roots are changed, PID 1 must follow: our guard sees to it
        log.error("the old root is no longer at hand: %s", error)
        restart_rest(manager, story)
        let_go(manager, story)
        wayback.begin(manager, story, f"{story.error}; and {error}")
        return 0
    return AGAIN


def restart_rest(manager: Manager, story: Record) -> None:
    """Restart whatever can be, whoever fails, so that nothing of the old root runs on."""
    left = work(story, story.start_of(Phase.SWITCH) or 0)
    while troubles := restart.restart(manager, left):
        failed = {trouble.unit for trouble in troubles}
        left = left._replace(units=[unit for unit in left.units if unit not in failed])


def bring_up(manager: Manager, story: Record) -> list[str]:
    """Restart, start what is new, verify; what did not come back, a sentence each."""
    timeout_sec = story.restart_timeout_usec / 1_000_000
    if story.phase is Phase.ARRIVE:
        start_missing(manager, EARLY, time.monotonic() + timeout_sec)
        run(TMPFILES, check=False)  # not --boot nor --remove: services have files there
        troubles = restart.restart(manager, work(story, story.start_of(Phase.SWITCH) or 0))
        if troubles:
            return [tell(story, trouble) for trouble in troubles]
        story.enter(Phase.VERIFY)
        record.save(story)
        events.tell(Event.ARRIVED, story, f"arrived on {story.target.get('device')}")
    deadline = time.monotonic() + story.verify_timeout_usec / 1_000_000
    start_missing(manager, manager.default_target(), deadline)
    manager.wait_until(lambda: not manager.jobs(), deadline)
    room.reserve_again()
    troubles = restart.settled(manager, work(story, 0), story.settle_usec)
    return verify.verify(manager, story) + [tell(story, trouble) for trouble in troubles]


def start_missing(manager: Manager, target: str, deadline: float) -> None:
    """Start what a target wants and what is not active, through all the targets below it.

    PID 1 looks no further than the first unit that is active already, so each is asked for.
    """
    jobs = []
    for below in targets_below(manager, target):
        with suppress(IssuError):  # not there, or not to be started by hand
            jobs.append(manager.start(below))
    for job in jobs:
        manager.wait_job(job, deadline)


def targets_below(manager: Manager, target: str) -> list[str]:
    """The target and all that it pulls in, the innermost first."""
    found, left = [target], [target]
    while left:
        known = manager.properties(left.pop())
        for unit in sorted(set().union(*(restart.texts(known, name) for name in restart.NEEDS))):
            if unit.endswith(".target") and unit not in found:
                found.append(unit)
                left.append(unit)
    return found[::-1]


def work(story: Record, since: int) -> restart.Work:
    """The restarts of this upgrade."""
    units = plan.of(live.planned(story), plan.RESTARTED)
    return restart.Work(units, story.parallel, story.restart_timeout_usec / 1_000_000, since)


def tell(story: Record, trouble: restart.Trouble) -> str:
    """Keep a trouble as a finding, with the last words of the unit; the sentence."""
    words = " | ".join(
        line for field, most in LAST.items() for line in
        run(["journalctl", "--boot", "--no-pager", "--output=cat", f"--lines={most}",
             f"{field}={trouble.unit}"], check=False).stdout.splitlines()
    )  # fmt: skip
    sentence = f"{trouble.unit} did not come back on the new root: {trouble.how}"
    story.find("did-not-come-back", "warn", f"{sentence}. Its last lines: {words or 'none'}",
               f"journalctl --unit={trouble.unit}")  # fmt: skip
    return sentence


def let_go(manager: Manager, story: Record) -> None:
    """Unmount the old root, and tell who still stands on it."""
    if story.sessions == "terminate":
        ends = [s.unit for s in live.planned(story) if s.action == plan.GONE]
        there = {unit.name for unit in manager.units() if unit.active == "active"}
        live.stop(manager, [unit for unit in ends if unit in there], live.ANSWER_SEC)
    try:
        pivot.drop(Path(story.stage), made=story.hold_made)
    except IssuError as error:
        story.find("unmount", "warn", str(error), f"umount -R -l {story.stage}")
    node = str(story.source.get("device") or "")
    held = oldroot.holders(story.old_dev)
    seen = Path(node).exists() if node else False
    if not held and seen and oldroot.wait_free(node):
        story.find("old-root-free", "info", f"the old root is unmounted and {node} is free")
        return
    for holder in held or (["somebody in another PID namespace"] if seen else []):
        story.find("old-root-pinned", "warn", f"old root pinned by {holder}",
                   "it is free when that has ended; issu status")  # fmt: skip
