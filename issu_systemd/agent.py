"""One upgrade in the old root, run by issu@.service: the steps in their order, and the way back.

An error before the switch is undone here; a death of this program by ExecStopPost= of its unit, or
else by the next upgrade.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from . import (
    continuity,
    describe,
    devices,
    events,
    facts,
    herald,
    live,
    log,
    mounts,
    netstate,
    outcome,
    plan,
    preflight,
    record,
    release,
    request,
    room,
    settings,
    settle,
    stage,
    switch,
    trust,
    uevents,
    unfinished,
    watchdog,
    wayback,
)  # fmt: skip
from .errors import IssuError, Refused, SettingsError
from .events import Event
from .finding import Finding
from .kernelstate import Source
from .phase import Phase
from .record import Record
from .systemd import Manager, notify

logger = logging.getLogger(__name__)

OK, FAILED, REFUSED = 0, 1, 3


class Strategy(NamedTuple):
    """How the old root is left: what can be done before anything stops, and the leaving."""

    prepare: Callable[[Manager, Record, settings.Settings], None]
    leave: Callable[[Manager, Record, settings.Settings], None]


STRATEGIES = {
    "halt": Strategy(release.prepare, switch.leave), "live": Strategy(live.prepare, live.leave),
}  # fmt: skip


def main() -> int:
    """Upgrade to the device named by the first argument, for the unit named by the second."""
    target, unit = sys.argv[1:3]
    story = asked(target, unit)
    log.setup(story.id)
    try:
        with record.lock(), Manager() as manager:
            settle.complete(manager)
            unfinished.settle()
            begin(story)
            return upgrade(manager, story)
    except (IssuError, OSError) as error:
        if is_beyond(story):
            logger.error("%s; issu-arrive.service goes on", sentence(error))
            return OK
        if story.phase:  # the undo itself; ExecStopPost= or the next upgrade repeats it
            logger.error("this could not be undone: %s", sentence(error))
            return FAILED
        tell(story, sentence(error))
        wayback.drop(target)
        return REFUSED


def asked(target: str, unit: str) -> Record:
    """The record of what a request for our unit asks for, or `systemctl start`."""
    wanted = request.take(unit) or request.Request(record.new_id(), unit, target)
    story = Record(id=wanted.id, started=datetime.now(UTC).isoformat(timespec="seconds"), unit=unit)
    story.target, story.uid, story.force = {"device": target}, wanted.uid, [*wanted.force]
    with suppress(SettingsError):  # a refusal, in its turn
        story.strategy = wanted.strategy or settings.load().strategy
    return story


def begin(story: Record) -> None:
    """Put the record where everybody sees it, and a dead agent leaves something to undo."""
    story.old_dev = root_dev()
    story.source = {"device": devices.node_of(mounts.device_number("/")), "dev": story.old_dev}
    story.enter(Phase.PREFLIGHT)
    wayback.take(story)
    with suppress(OSError):  # a full /run is for preflight to tell
        record.save(story)
        wayback.taken(story)
        room.reserve()
    unfinished.leave(story)
    events.tell(Event.STARTED, story, f"upgrade to {story.target['device']}")


def upgrade(manager: Manager, story: Record) -> int:
    """The steps; with strategy halt it returns only if there was no switch."""
    result = "refused"
    try:
        chosen = wayback.settings_of(story)
        require_choice(story)
        chosen = examine(manager, story, chosen)
        result = "failed"
        make_ready(manager, story, chosen)
        herald.announce()
        notify(status=f"leaving for {story.target['device']}", ready=True)
        watchdog.arm(story)
        enter(story, Phase.RELEASE)
        events.tell(Event.RELEASED, story, f"leaving for {story.target['device']}")
        STRATEGIES[chosen.strategy].leave(manager, story, chosen)
        return OK  # live: issu-arrive.service has taken over
    except (IssuError, OSError) as error:
        if is_beyond(story):
            raise  # ExecStopPost= of our unit sees to it
        notify(status=f"{result}: {sentence(error)}")
        settle.undo(manager, story, sentence(error), result=result)
    return REFUSED if result == "refused" else FAILED


def is_beyond(story: Record) -> bool:
    """Whether the new root is / already: strategy live, after the pivot."""
    return story.phase is Phase.SWITCH and root_dev() != story.old_dev


def enter(story: Record, phase: Phase) -> None:
    """Begin a phase, and let everybody know who reads the record, or what a power cut leaves."""
    story.enter(phase)
    record.save(story)
    unfinished.leave(story)


def sentence(error: Exception) -> str:
    """What to tell the operator."""
    return error.sentence() if isinstance(error, IssuError) else str(error)


def tell(story: Record, error: str) -> None:
    """Report a refusal before the record was ours: nothing was touched."""
    notify(status=f"refused: {error}")
    story.result, story.error = "refused", error
    events.tell_end(story)
    try:
        with Manager() as manager:
            outcome.write_history(outcome.describe(manager, story))
    except (IssuError, OSError) as trouble:
        logger.error("this could not be kept in the history: %s", trouble)


def examine(
    manager: Manager, story: Record, chosen: settings.Settings
) -> settings.Settings:
    """Preflight, once more for halt if a way back is not to be had with live; what it goes by."""
    try:
        inspect(manager, story, chosen)
    except Refused as refusal:
        if not story.way_back.get("reboot") or story.strategy != "live":
            raise
        logger.warning("going back with halt, not live: %s", refusal)
        wayback.by_halt(story)
        chosen = replace(chosen, strategy="halt")
        inspect(manager, story, chosen)
    return chosen


def inspect(manager: Manager, story: Record, chosen: settings.Settings) -> None:
    """Preflight; raises Refused with every blocking finding. The target is left mounted."""
    target = story.target["device"]
    notify(status=f"checking {target}")
    device = devices.resolve(target)
    seen = facts.gather(manager, device, chosen)
    story.mechanism = seen.mechanism
    story.source = describe.source(manager, story, seen)
    story.target = {"device": device.node, "fstype": device.fstype}
    story.settings = asdict(chosen)
    if not preflight.may_look(preflight.judge(seen)):
        require(story, preflight.judge(seen))
    root, story.stage_made = facts.stage_directory()
    story.stage = str(root)
    record.save(story)  # from here on a dead agent leaves a mount
    try:
        doubts = trust.mount(device, root, chosen)._asdict()
    except IssuError as error:
        doubts = {"mount_error": str(error)}
    if any(doubts.values()):
        require(story, preflight.judge(replace(seen, **doubts)))
    seen, steps = facts.foresee(
        manager, facts.look(seen, root, chosen.carry_mounts), root, chosen
    )
    require(story, preflight.judge(seen))
    describe.target(story, seen, root, chosen)
    story.plan = [list(step) for step in steps]
    log_plan(steps)
    if chosen.rehearse:
        from .rehearse import for_upgrade  # not many want it

        notify(status=f"rehearsing {device.node}")
        require(story, for_upgrade(story, chosen))


def root_dev() -> int:
    """What identifies the running root: st_dev of /."""
    return os.stat("/").st_dev  # noqa: PTH116


def log_plan(steps: plan.Plan) -> None:
    """Name the plan, so that it can be told from the one that `issu plan` has shown."""
    counts = ", ".join(f"{len(plan.of(steps, a))} {a}" for a in plan.ACTIONS)
    logger.info("plan %s: %s", plan.digest(steps), counts)


def require(story: Record, findings: list[Finding]) -> None:
    """Keep the findings for the report; raises Refused if one blocks that is not forced."""
    force = {*story.force, *wayback.borne(story)}
    stop = preflight.blocks(findings, force)
    for found in findings:
        forced = found not in stop and preflight.blocks([found])
        story.find(*found, note="forced" if forced else "")
    if stop:
        raise Refused("; ".join(f"{f.text} ({f.way_out})" for f in stop))


def require_choice(story: Record) -> None:
    """Raise Refused if what was asked for with the start is not to be had."""
    if story.strategy not in STRATEGIES:
        raise Refused(f"{story.strategy} is no strategy", hint=f"there are: {names(STRATEGIES)}")
    if stubborn := {*story.force} - preflight.FORCEABLE:
        raise Refused(f"{names(stubborn)} cannot be forced",
                      hint=f"these can be: {names(preflight.FORCEABLE) or 'none'}")  # fmt: skip


def names(what: Iterable[str]) -> str:
    """Names in a sentence."""
    return ", ".join(sorted(what))


def make_ready(manager: Manager, story: Record, chosen: settings.Settings) -> None:
    """Stage, and prepare the release, while every service still runs."""
    enter(story, Phase.STAGE)
    notify(status=f"staging {story.target['device']}")
    stage.stage(Path(story.stage), chosen)
    forget_refusals(manager, story)
    STRATEGIES[chosen.strategy].prepare(manager, story, chosen)
    watchdog.prepare(story, chosen)  # may load a module, before modules are counted
    with suppress(IssuError):  # without iproute2 there is nothing to wait for
        netstate.settle(time.monotonic() + netstate.SETTLE_SEC)
    story.continuity = continuity.snapshot(Source(points=story.carried))
    uevents.begin(manager)
    switch.check_root(Path(story.stage), story.new_dev)


def forget_refusals(manager: Manager, story: Record) -> None:
    """An earlier refusal is a failed unit, which would fail in the new root too."""
    for unit in manager.units():
        if unit.name.startswith("issu@") and unit.active == "failed":
            manager.call("ResetFailedUnit", "s", unit.name)


if __name__ == "__main__":
    sys.exit(main())
