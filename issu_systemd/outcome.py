"""What an upgrade did, gathered from PID 1, the record and the kernel for report.py to compute."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import continuity, gate, mounts, plan, record, report, settings, uevents
from .errors import IssuError, SettingsError
from .kernelstate import Source
from .phase import Phase
from .record import Record
from .systemd import Manager, escape_path

Times = dict[str, report.UnitTimes]


def write_history(document: dict[str, Any]) -> None:
    """Keep a report under its id; raises IssuError when it cannot be written.

    The provisional one goes, at once if the disk is full: it has kept the room. So do the oldest,
    beyond [history] keep.
    """
    path = record.HISTORY / f"{document['id']}.json"
    word = path.with_suffix(record.UNFINISHED)
    try:
        record.write_atomically(path, json.dumps(document, indent=1) + "\n", spare=word)
        word.unlink(missing_ok=True)
        prune()
    except OSError as error:
        raise IssuError(f"{path}: {error.strerror}") from error


def prune() -> None:
    """Remove the oldest reports beyond [history] keep, but not the last accepted: it leads back.

    Raises OSError.
    """
    try:
        keep = settings.load().reports
    except SettingsError:
        return
    paths = sorted(record.HISTORY.glob("*.json"))
    old = paths[:-keep]
    last = next((path for path in reversed(paths) if is_accepted(path)), None) if old else None
    for path in old:
        if path != last:
            path.unlink(missing_ok=True)


def is_accepted(path: Path) -> bool:
    """Whether a report is that of an accepted upgrade."""
    try:
        return bool(json.loads(path.read_text())["result"] == "accepted")
    except (OSError, ValueError, TypeError, KeyError):
        return False


def describe(manager: Manager, story: Record, stopped: Times | None = None) -> dict[str, Any]:
    """The report of an upgrade as it stands; `stopped` are times that PID 1 may know no more."""
    begun = story.start_of(Phase.RELEASE) or 0
    after = joined(unit_times(manager), stopped or {}) if begun else {}
    watched = uevents.collect(manager, story) if story.start_of(Phase.STAGE) else None
    document = report.build(
        id=story.id, result=story.result or "failed", mechanism=story.mechanism,
        strategy=story.strategy, source=story.source, target=story.target, started=story.started,
        phases=[
            report.Phase(p["name"], p["start_usec"], p["end_usec"] or 0) for p in story.phases
        ],
        before=set(story.before), after=after, kept=set(story.kept), crossed=crossed(story),
        gated=gated(story, {*story.before, *after}), release_usec=begun,
        default_target=manager.default_target(),
        continuity=(story.compared or continuity_of(story)) if begun else {},
        findings=story.findings, error=story.error,
    )  # fmt: skip
    carried_out = bool(after) and story.result == "accepted"
    document["uid"] = story.uid
    document["uevents"] = watched
    document["accept_deadline_usec"] = story.deadline_usec
    document["way_back"] = story.way_back or None
    document["steps"] = dict(story.steps)
    document["plan"] = {
        "sha256": plan.digest([plan.Step(*step) for step in story.plan]) if story.plan else None,
        "differences": plan.differences(story.plan, document["units"]) if carried_out else [],
    }
    return document


def continuity_of(story: Record) -> dict[str, Any]:
    """The kernel's state now against that before the upgrade."""
    now = continuity.snapshot(Source(points=story.carried))
    return continuity.diff(story.continuity, now)


def gated(story: Record, units: set[str]) -> set[str]:
    """Those of the units whose start was forbidden, by the package or by [arrive] skip."""
    found = Path("/usr/lib/systemd/system").glob("*.d/50-issu.conf")
    names = {path.parent.name.removesuffix(".d") for path in found} - set(story.lifted)
    return {unit for unit in units if gate.is_among(unit, names | set(story.skip))}


def crossed(story: Record) -> set[str]:
    """The mount units of what was carried and is the same file system as before."""
    return {
        f"{escape_path(mount.point)}.mount"
        for mount in mounts.mounts()
        if story.mounts.get(mount.point) == mount.dev
        and any(mount.point == c or mount.point.startswith(f"{c}/") for c in story.carried)
    }


def joined(now: Times, stopped: Times) -> Times:
    """The times of all units, with the stops of those whose stop was forgotten."""
    lost = {
        name: replace(times, active_exit_usec=stopped[name].active_exit_usec)
        for name, times in now.items()
        if name in stopped and not times.active_exit_usec
    }
    return now | lost


def unit_times(manager: Manager) -> Times:
    """PID 1's time stamps of every unit that counts in the report."""
    wanted = {manager.default_target()} | {
        unit.name
        for unit in manager.units()
        if unit.name.endswith(plan.COUNTED) and unit.name != "-.mount"
    }
    return {name: times_of(manager.properties(name)) for name in wanted}


def times_of(properties: dict[str, Any]) -> report.UnitTimes:
    """One unit's times out of its D-Bus properties."""
    return report.UnitTimes(
        active=properties["ActiveState"] in (b"active", b"reloading"),
        active_enter_usec=properties["ActiveEnterTimestampMonotonic"],
        active_exit_usec=properties["ActiveExitTimestampMonotonic"],
        inactive_enter_usec=properties["InactiveEnterTimestampMonotonic"],
        condition_failed=bool(properties["ConditionTimestampMonotonic"])
        and not properties["ConditionResult"],
    )
