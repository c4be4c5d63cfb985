"""Strategy live, from one root to the other: stop what goes, pivot, re-execute PID 1.

`prepare` and `leave` run in the agent on the old root. `back` runs on the new root when something
did not come back there, and does the same in the other direction. Where a killed process of ours
stood is seen from the machine: which root is /, and which one PID 1's program is on.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from . import (
    gate,
    mounts,
    netgate,
    newroot,
    pivot,
    plan,
    record,
    release,
    room,
    survey,
    switch,
    systemd,
)  # fmt: skip
from .errors import IssuError
from .phase import Phase
from .record import Record
from .settings import Settings
from .systemd import Manager

log = logging.getLogger(__name__)

ARRIVE = "issu-arrive.service"
EXEC_SEC = 30.0  # from the request until PID 1 executes its program
ANSWER_SEC = 60.0  # from there until it answers
POLL_SEC = 0.001
MAY_STOP = "[Unit]\nRefuseManualStop=no\nRefuseManualStart=no\n"


def prepare(manager: Manager, story: Record, chosen: Settings) -> None:
    """Everything that can be done while every service still runs."""
    release.note(manager, story)
    story.kept = plan.of(planned(story), plan.KEPT)
    stage = Path(story.stage)
    story.moved = survey.both_have(newroot.ask(stage), stage)
    story.carried = [*pivot.KERNEL, *chosen.carry_mounts, *story.moved]
    story.parallel, story.restart_timeout_usec = chosen.live_parallel, chosen.live_timeout_usec
    story.settle_usec, story.sessions = chosen.live_settle_usec, chosen.sessions
    record.save(story)
    record.write_atomically(record.SKIP, "".join(f"{unit}\n" for unit in story.skip))
    record.write_atomically(record.IN_PROGRESS, f"{story.id}\n")
    netgate.close(stage)
    gate.lift(story.lifted)
    if allow_stop(manager, going(story) + plan.of(planned(story), plan.RESTARTED)):
        room.reload(manager)
    post_guard(manager)


def post_guard(manager: Manager) -> None:
    """Have guard.py watch this process; raises IssuError if it does not come up."""
    guard = f"issu-guard@{os.getpid()}.service"
    job = manager.start(guard)
    if manager.wait_job(job, time.monotonic() + ANSWER_SEC) != "done":
        raise IssuError(f"{guard} did not start", hint=f"journalctl -u {guard}")


def planned(story: Record) -> plan.Plan:
    """The plan of the record."""
    return [plan.Step(*step) for step in story.plan]


def going(story: Record) -> list[str]:
    """What stops before the pivot. Sessions stay until the upgrade has come out well."""
    steps = [step for step in planned(story) if step.action in (plan.GONE, plan.SKIPPED)]
    return [s.unit for s in steps if "[live] sessions" not in s.reason]


def allow_stop(manager: Manager, units: Iterable[str]) -> bool:
    """Lift RefuseManualStop= of units that we must stop; whether PID 1 must reload for it."""
    barred = []
    for unit in units:
        found = manager.properties(unit)
        if found["RefuseManualStop"] or found["RefuseManualStart"]:
            barred.append(unit)
            gate.drop_in(unit, MAY_STOP)
    return bool(barred)


def leave(manager: Manager, story: Record, chosen: Settings) -> None:
    """Go to the new root and hand over to issu-arrive.service there.

    Raises IssuError; the old root is / then, and nothing but stopped units is to be undone.
    """
    stage = Path(story.stage)
    timeout_sec = chosen.stop_timeout_usec / 1_000_000
    for unit in stop(manager, going(story), timeout_sec):
        release.tell_killed(story, unit, timeout_sec)
    switch.check_root(stage, story.new_dev)
    story.hold_made = pivot.prepare(stage, story.carried)
    story.enter(Phase.SWITCH)
    record.save(story)
    story.steps["pivot_usec"] = pivot.swap(stage)
    begin = record.now_usec()
    try:
        reexecute(manager, story.new_dev)  # at once: until then PID 1 may not start a program
    except (IssuError, OSError):
        if pid1_dev() != story.new_dev:
            turn_back(story)
            strip(story)
        raise
    strip(story)
    record.save(story)
    with systemd.connect(time.monotonic() + ANSWER_SEC) as new:
        story.steps["reexec_usec"] = record.now_usec() - begin
        record.save(story)
        log.info("PID 1 is systemd %s of %s", new.version(), story.target.get("device"))
        new.start(ARRIVE)


def stop(manager: Manager, units: Iterable[str], timeout_sec: float) -> list[str]:
    """Stop units and nothing with them; returns those that had to be killed for it.

    Raises IssuError naming one that does not stop even then.
    """
    deadline = time.monotonic() + timeout_sec
    jobs = {}
    for unit in units:
        jobs[manager.stop(unit, "ignore-requirements")] = unit
    late = [unit for job, unit in jobs.items() if manager.wait_job(job, deadline) != "done"]
    for unit in late:
        manager.kill(unit, 9)
    deadline = time.monotonic() + release.KILL_GRACE_SEC
    for job, unit in jobs.items():
        if unit in late and manager.wait_job(job, deadline) != "done":
            raise IssuError(f"{unit} did not stop", hint=f"systemctl status {unit}")
    return late


def reexecute(manager: Manager, dev: int) -> None:
    """Let PID 1 execute the systemd of the root with st_dev `dev`, with its state.

    It hangs up instead of answering. Raises IssuError if it goes on as it is.
    """
    words = "it gave no reason"
    room.shrink(room.OURS_BYTES)  # PID 1 looks for it, and what restarts may need it
    try:
        manager.call("Reexecute")
    except IssuError as error:
        words = str(error)
    deadline = time.monotonic() + EXEC_SEC
    while pid1_dev() != dev:
        if time.monotonic() > deadline:
            raise IssuError(f"PID 1 did not re-execute from the other root: {words}")
        time.sleep(POLL_SEC)


def pid1_dev() -> int:
    """st_dev of the file system that PID 1's program is on."""
    return os.stat("/proc/1/exe").st_dev  # noqa: PTH116


def root_dev() -> int:
    """st_dev of /."""
    return os.stat("/").st_dev  # noqa: PTH116


def turn_back(story: Record) -> None:
    """Make the old root / again; raises IssuError if it is not where it was left."""
    stage = Path(story.stage)
    switch.check_root(stage, story.old_dev)
    pivot.prepare(stage, story.carried)
    story.steps["returned_usec"] = record.now_usec()
    record.save(story)
    pivot.swap(stage)


def strip(story: Record) -> None:
    """Take out of the root that was left what the other one has now; what stays is told later."""
    with suppress(IssuError):
        mounts.strip(Path(story.stage))


def back(manager: Manager, story: Record) -> None:
    """On the new root: what is new there stops, then the old root is / and PID 1 is its systemd.

    What will not stop pins the new root and is no reason to stay there. Raises IssuError; whoever
    calls again goes on from where this stood.
    """
    before = {*story.before}
    extra = [
        unit.name for unit in manager.units()
        if unit.active in ("active", "activating", "reloading") and unit.name not in before
        and unit.name.endswith(release.STOPPABLE) and not unit.name.startswith(plan.OWN)
        and not unit.name.startswith(TRANSIENT)
    ]  # fmt: skip
    try:
        post_guard(manager)
        stop(manager, extra, release.KILL_GRACE_SEC)
    except IssuError as error:
        story.find("back", "warn", str(error), error.hint)
    turn_back(story)
    reexecute(manager, story.old_dev)
    strip(story)
    record.save(story)


TRANSIENT = ("user@", "user-runtime-dir@", "run-")


def is_here(story: Record) -> tuple[bool, bool]:
    """Whether / is the new root, and whether PID 1's program is on it."""
    return root_dev() == story.new_dev, pid1_dev() == story.new_dev
