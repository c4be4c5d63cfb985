"""One upgrade in the old root, run by issu@.service: the steps in their order, and the way back.

An error before the switch is undone here; a death of this program by ExecStopPost= of its unit.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from . import (
    __version__,
    continuity,
    devices,
    facts,
    live,
    log,
    mounts,
    netstate,
    outcome,
    plan,
    preflight,
    record,
    release,
    settings,
    settle,
    stage,
    survey,
    switch,
    trust,
    uevents,
)  # fmt: skip
from .errors import IssuError, Refused
from .evidence import Facts
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
    story = Record(id=new_id(), started=datetime.now(UTC).isoformat(timespec="seconds"))
    story.unit = sys.argv[2] if len(sys.argv) > 2 else ""
    log.setup(story.id)
    try:
        with record.lock(), Manager() as manager:
            return upgrade(manager, story, sys.argv[1])
    except (IssuError, OSError) as error:  # before anything was touched, or the undo itself
        if is_beyond(story):
            logger.error("%s; issu-arrive.service goes on", sentence(error))
            return OK
        tell(story, sentence(error), "failed" if story.phase else "refused")
        return REFUSED if story.phase is None else FAILED


def new_id() -> str:
    """An id that sorts by time, to the microsecond, and may stand in a D-Bus object path."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S_%f}"


def upgrade(manager: Manager, story: Record, target: str) -> int:
    """The steps; with strategy halt it returns only if there was no switch."""
    result = "refused"
    try:
        chosen = settings.load()
        examine(manager, story, target, chosen)
        result = "failed"
        make_ready(manager, story, chosen)
        notify(status=f"leaving for {story.target['device']}", ready=True)
        enter(story, Phase.RELEASE)
        STRATEGIES[chosen.strategy].leave(manager, story, chosen)
        return OK  # live: issu-arrive.service has taken over
    except (IssuError, OSError) as error:
        if is_beyond(story):
            raise  # ExecStopPost= of our unit sees to it
        if story.stage:
            notify(status=f"{result}: {sentence(error)}")
            settle.undo(manager, story, sentence(error), result=result)
        else:
            tell(story, sentence(error), result)
    return REFUSED if result == "refused" else FAILED


def is_beyond(story: Record) -> bool:
    """Whether the new root is / already: strategy live, after the pivot."""
    return story.phase is Phase.SWITCH and root_dev() != story.old_dev


def enter(story: Record, phase: Phase) -> None:
    """Begin a phase, and let everybody know who reads the record."""
    story.enter(phase)
    record.save(story)


def sentence(error: Exception) -> str:
    """What to tell the operator."""
    return error.sentence() if isinstance(error, IssuError) else str(error)


def tell(story: Record, error: str, result: str) -> None:
    """Report an upgrade that touched nothing, or whose undo failed too."""
    notify(status=f"{result}: {error}")
    logger.error("%s: %s", result, error)
    story.result, story.error = result, error
    try:
        with Manager() as manager:
            outcome.write_history(outcome.describe(manager, story))
    except (IssuError, OSError) as trouble:
        logger.error("this could not be kept in the history: %s", trouble)


def examine(manager: Manager, story: Record, target: str, chosen: settings.Settings) -> None:
    """Preflight; raises Refused with every blocking finding. The target is left mounted."""
    story.enter(Phase.PREFLIGHT)
    notify(status=f"checking {target}")
    device = devices.resolve(target)
    seen = facts.gather(manager, device, chosen)
    story.strategy, story.mechanism, story.old_dev = chosen.strategy, seen.mechanism, root_dev()
    story.source = source(manager, seen)
    story.target = {"device": device.node, "fstype": device.fstype}
    require(story, preflight.judge(seen))
    root, story.stage_made = facts.stage_directory()
    story.stage = str(root)
    record.save(story)  # from here on a dead agent leaves something to undo
    try:
        require(story, trust.mount(device, root, chosen))
    except Refused:
        raise
    except IssuError as error:
        seen = replace(seen, mount_error=str(error))
        require(story, preflight.judge(seen))
    seen = facts.look(seen, root, chosen.carry_mounts)
    require(story, preflight.judge(seen))
    describe_target(story, seen, root, chosen)
    wanted = survey.Wanted(story.skip, story.lifted)
    steps = survey.plan_for(manager, root, chosen, wanted, chosen.strategy)
    story.plan = [list(step) for step in steps]
    log_plan(steps)
    if chosen.rehearse:
        rehearse_first(story, device.node, chosen)


def rehearse_first(story: Record, node: str, chosen: settings.Settings) -> None:
    """Boot the target in a container; raises Refused if it does not come up there."""
    from .rehearse import rehearse  # not many want it

    notify(status=f"rehearsing {node}")
    limit = chosen.rehearse_timeout_usec / 1_000_000
    require(story, rehearse(Path(node), story.verify_units, limit))


def root_dev() -> int:
    """What identifies the running root: st_dev of /."""
    return os.stat("/").st_dev  # noqa: PTH116


def source(manager: Manager, seen: Facts) -> dict[str, object]:
    """The running root, as the report tells it."""
    root = mounts.mount_at("/")
    return {
        "device": seen.root_device, "dev": root_dev(), "fstype": root.fstype if root else "",
        "package": __version__, "systemd": manager.version(), **facts.os_release(Path("/")),
    }  # fmt: skip


def describe_target(
    story: Record, seen: Facts, root: Path, chosen: settings.Settings
) -> None:
    """Note what the record must know of the new root, its own [arrive] and [verify] included."""
    tree, own = seen.tree, settings.load(root)
    if tree:
        story.target |= {
            "os": tree.os, "version": tree.version, "package": tree.issu_says.split()[-1],
            "systemd": tree.init_says.partition("(")[2].rstrip(")"),
        }  # fmt: skip
    story.new_dev = root.stat().st_dev
    story.skip, story.lifted = survey.wanted(chosen, own, tree.issu_says if tree else "")
    story.verify_units = sorted({*chosen.verify_units, *own.verify_units})
    story.verify_timeout_usec = chosen.verify_timeout_usec


def log_plan(steps: plan.Plan) -> None:
    """Name the plan, so that it can be told from the one that `issu plan` has shown."""
    counts = ", ".join(f"{len(plan.of(steps, a))} {a}" for a in plan.ACTIONS)
    logger.info("plan %s: %s", plan.digest(steps), counts)


def require(story: Record, findings: list[Finding]) -> None:
    """Keep the findings for the report; raises Refused if one of them blocks."""
    for finding in findings:
        story.find(*finding)
    if stop := preflight.blocks(findings):
        raise Refused("; ".join(f"{f.text} ({f.way_out})" for f in stop))


def make_ready(manager: Manager, story: Record, chosen: settings.Settings) -> None:
    """Stage, and prepare the release, while every service still runs."""
    enter(story, Phase.STAGE)
    notify(status=f"staging {story.target['device']}")
    stage.stage(Path(story.stage), chosen)
    forget_refusals(manager, story)
    STRATEGIES[chosen.strategy].prepare(manager, story, chosen)
    with suppress(IssuError):  # without iproute2 there is nothing to wait for
        netstate.settle(time.monotonic() + netstate.SETTLE_SEC)
    story.continuity = continuity.snapshot(Source(points=story.carried))
    uevents.begin(manager)


def forget_refusals(manager: Manager, story: Record) -> None:
    """An earlier refusal is a failed unit, which would fail in the new root too."""
    for unit in manager.units():
        if unit.name.startswith("issu@") and unit.active == "failed":
            manager.call("ResetFailedUnit", "s", unit.name)


if __name__ == "__main__":
    sys.exit(main())
