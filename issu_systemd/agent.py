"""One upgrade in the old root, run by issu@.service: the steps in their order, and the way back.

An error before the switch is undone here; a death of this program by ExecStopPost= of its unit.
"""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from . import (
    __version__,
    continuity,
    devices,
    facts,
    log,
    mounts,
    outcome,
    preflight,
    record,
    release,
    settings,
    settle,
    stage,
    switch,
)  # fmt: skip
from .errors import IssuError, Refused
from .evidence import Facts
from .phase import Phase
from .record import Record
from .systemd import Manager, notify

logger = logging.getLogger(__name__)

FAILED, REFUSED = 1, 3


def main() -> int:
    """Upgrade to the device named by the first argument, for the unit named by the second."""
    story = Record(id=new_id(), started=datetime.now(UTC).isoformat(timespec="seconds"))
    story.unit = sys.argv[2] if len(sys.argv) > 2 else ""
    log.setup(story.id)
    try:
        with record.lock(), Manager() as manager:
            return upgrade(manager, story, sys.argv[1])
    except (IssuError, OSError) as error:  # before anything was touched, or the undo itself
        tell(story, sentence(error), "failed" if story.phase else "refused")
        return REFUSED if story.phase is None else FAILED


def new_id() -> str:
    """An id that sorts by time, to the microsecond, and may stand in a D-Bus object path."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S_%f}"


def upgrade(manager: Manager, story: Record, target: str) -> int:
    """The steps; returns only if there was no switch."""
    result = "refused"
    try:
        chosen = settings.load()
        examine(manager, story, target, chosen)
        result = "failed"
        make_ready(manager, story, chosen)
        notify(status=f"stopping every service for {story.target['device']}", ready=True)
        enter(story, Phase.RELEASE)
        release.release(manager, story, chosen)
        switch.check_root(Path(story.stage), story.new_dev)
        enter(story, Phase.SWITCH)
        switch.switch(manager, Path(story.stage), story.mechanism or "")
    except (IssuError, OSError) as error:
        if story.stage:
            notify(status=f"{result}: {sentence(error)}")
            settle.undo(manager, story, sentence(error), result=result)
        else:
            tell(story, sentence(error), result)
    return REFUSED if result == "refused" else FAILED


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
        mounts.mount(device.node, root, options="ro", fstype=device.fstype)
    except IssuError as error:
        seen = replace(seen, mount_error=str(error))
        require(story, preflight.judge(seen))
    seen = facts.look(seen, root)
    require(story, preflight.judge(seen))
    describe_target(story, seen, root, chosen)


def root_dev() -> int:
    """What identifies the running root: st_dev of /."""
    return os.stat("/").st_dev  # noqa: PTH116


def source(manager: Manager, seen: Facts) -> dict[str, object]:
    """The running root, as the report tells it."""
    root = mounts.mount_at("/")
    return {
        "device": seen.root_device, "fstype": root.fstype if root else "", "package": __version__,
        "systemd": manager.version(), **facts.os_release(Path("/")),
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
    story.skip = sorted({*chosen.skip, *own.skip})
    story.verify_units = sorted({*chosen.verify_units, *own.verify_units})
    story.verify_timeout_usec = chosen.verify_timeout_usec


def require(story: Record, findings: list[preflight.Finding]) -> None:
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
    story.continuity = continuity.snapshot()
    release.prepare(manager, story, chosen)


def forget_refusals(manager: Manager, story: Record) -> None:
    """An earlier refusal is a failed unit, which would fail in the new root too."""
    for unit in manager.units():
        if unit.name.startswith("issu@") and unit.active == "failed":
            manager.call("ResetFailedUnit", "s", unit.name)


if __name__ == "__main__":
    sys.exit(main())
