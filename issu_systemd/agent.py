"""One upgrade in the old root, run by issu@.service: the steps in their order, and the way back.

An error before the switch is undone here; a death of this program by ExecStopPost= of its unit.
"""

from __future__ import annotations

import logging
import secrets
import sys
from datetime import UTC, datetime
from pathlib import Path

from . import (
    __version__,
    continuity,
    devices,
    facts,
    log,
    mounts,
    preflight,
    record,
    release,
    settings,
    settle,
    stage,
    switch,
)  # fmt: skip
from .errors import Busy, IssuError, Refused
from .phase import Phase
from .record import Record
from .systemd import Manager, notify

logger = logging.getLogger(__name__)


def main() -> int:
    """Upgrade to the device named by the first argument, for the unit named by the second."""
    story = Record(id=new_id(), started=datetime.now(UTC).isoformat(timespec="seconds"))
    story.unit = sys.argv[2] if len(sys.argv) > 2 else ""
    log.setup(story.id)
    try:
        with record.lock(), Manager() as manager:
            return upgrade(manager, story, sys.argv[1])
    except Busy as error:
        return refuse(story, error)
    except (IssuError, OSError) as error:
        notify(status=str(error))
        logger.error("%s", error)
        return 1


def new_id() -> str:
    """An id that sorts by time and does not meet another's."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"


def upgrade(manager: Manager, story: Record, target: str) -> int:
    """The steps; returns only if there was no switch."""
    try:
        chosen = settings.load()
        device = examine(manager, story, target, chosen)
    except (IssuError, OSError) as error:
        return refuse(story, error)
    try:
        make_ready(manager, story, chosen)
        notify(status=f"stopping every service for {device.node}", ready=True)
        story.enter(Phase.RELEASE)
        record.save(story)
        release.release(manager, story, chosen)
        story.enter(Phase.SWITCH)
        record.save(story)
        switch.switch(manager, Path(story.stage), story.mechanism or "")
    except (IssuError, OSError) as error:
        sentence = error.sentence() if isinstance(error, IssuError) else str(error)
        notify(status=f"failed: {sentence}")
        settle.undo(manager, story, sentence)
    return 1


def examine(
    manager: Manager, story: Record, target: str, chosen: settings.Settings
) -> devices.Device:
    """Preflight; raises Refused with every blocking finding, the target unmounted again."""
    story.enter(Phase.PREFLIGHT)
    notify(status=f"checking {target}")
    device = devices.resolve(target)
    seen = facts.gather(manager, device, chosen)
    story.strategy, story.mechanism, story.old_dev = chosen.strategy, seen.mechanism, seen.root_dev
    story.source = source(manager, seen)
    story.target = {"device": device.node, "fstype": device.fstype}
    require(story, preflight.judge(seen))
    try:
        with facts.mounted(device) as (root, made):
            seen = facts.look(seen, root)
            require(story, preflight.judge(seen))
            describe_target(story, seen, root, chosen)
            story.stage, story.stage_made = str(root), made
    except Refused:
        raise
    except IssuError as error:
        trouble = f"{device.node} does not mount: {error}"
        raise Refused(trouble, hint=f"fsck {device.node}") from error
    return device


def source(manager: Manager, seen: preflight.Facts) -> dict[str, object]:
    """The running root, as the report tells it."""
    root = mounts.mount_at("/")
    return {
        "device": seen.root_device, "fstype": root.fstype if root else "", "package": __version__,
        "systemd": manager.version(), **facts.os_release(Path("/")),
    }  # fmt: skip


def describe_target(
    story: Record, seen: preflight.Facts, root: Path, chosen: settings.Settings
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
    story.verify_timeout_usec = max(chosen.verify_timeout_usec, own.verify_timeout_usec)


def require(story: Record, findings: list[preflight.Finding]) -> None:
    """Keep the findings for the report; raises Refused if one of them blocks."""
    for finding in findings:
        story.find(*finding)
    if stop := preflight.blocks(findings):
        raise Refused("; ".join(f"{f.text} ({f.way_out})" for f in stop))


def make_ready(manager: Manager, story: Record, chosen: settings.Settings) -> None:
    """Stage, and prepare the release, while every service still runs."""
    story.enter(Phase.STAGE)
    record.write_atomically(record.UNDO, f"{story.unit} {story.old_dev}\n")
    record.save(story)
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


def refuse(story: Record, error: Exception) -> int:
    """Report a refusal; nothing was changed."""
    sentence = error.sentence() if isinstance(error, IssuError) else str(error)
    notify(status=f"refused: {sentence}")
    logger.error("refused: %s", sentence)
    story.result, story.error = "refused", sentence
    story.end_phase()
    try:
        with Manager() as manager:
            settle.write_history(settle.describe(manager, story))
    except (IssuError, OSError) as trouble:
        logger.error("the refusal could not be kept in the history: %s", trouble)
    return 3


if __name__ == "__main__":
    sys.exit(main())
