"""What one upgrade did, as data: the document that `issu report --json` prints.

Pure: plain values in, a JSON-able dict out; it never raises on odd data. All times are
microseconds of CLOCK_MONOTONIC, which runs on through the switch because the kernel does.
Throughout the report null means "not known" and 0 means "known to be nothing".
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .plan import COUNTED, PASSING

SCHEMA = 1
# PID 1 finds these in the kernel's tables and may have no time stamp of them at all.
ENUMERATED = (".mount", ".automount", ".swap")
ROW = ("unit", "stopped_usec", "started_usec", "outage_usec", "action")


@dataclass(frozen=True)
class Phase:
    """One phase of the upgrade; `end_usec` is 0 while it runs or if it was cut off."""

    name: str
    start_usec: int
    end_usec: int


@dataclass(frozen=True)
class UnitTimes:
    """The state of one unit as PID 1 tells it at the end; a time of 0 means never, or lost."""

    active: bool
    active_enter_usec: int = 0
    active_exit_usec: int = 0
    inactive_enter_usec: int = 0
    condition_failed: bool = False


Names = Collection[str]
Units = dict[str, UnitTimes]


def build(
    *,
    id: str,
    result: str,
    mechanism: str | None,
    strategy: str,
    source: Mapping[str, Any],
    target: Mapping[str, Any],
    started: str,
    phases: Sequence[Phase],
    before: Names,
    after: Units,
    gated: Names,
    kept: Names,
    release_usec: int,
    default_target: str,
    continuity: Mapping[str, Any],
    findings: Iterable[Mapping[str, Any]],
    error: str | None,
    versions: Mapping[str, str] | None = None,
    crossed: Names = (),
) -> dict[str, Any]:
    """Compute the report of one upgrade.

    `before` names the units active before release, `after` holds every unit PID 1 knows at the
    end (empty: it could not be read), `gated` the units whose start was forbidden, `kept` those
    to be left alone. `release_usec` is 0 if nothing was released. `default_target` is the real
    name, not an alias. `crossed` names the mounts that were carried: PID 1 finds them anew on
    the other root and stamps them so. `versions` may give this package's version in the "source"
    and in the "target"; the report shows it as their `package`.
    """
    # A phase may come twice, when a killed process of ours has repeated it: the first counts.
    begins = {phase.name: phase.start_usec for phase in reversed(phases)}
    release = release_usec or begins.get("release", 0)
    units: list[dict[str, Any]] = []
    start, end, outage = None, None, None if release else 0
    if release and after:
        # What stops after the phases that stop things was not stopped by this upgrade.
        until = begins.get("accept" if strategy == "live" else "arrive", 0)
        units = unit_rows(before, uncounted(after, crossed), gated, kept, release, until)
        start, end, outage = outage_window(units, after.get(default_target), release)
    run_end = end if outage != 0 else end or begins.get("accept") or None
    versions = versions or {}
    own = [row["outage_usec"] for row in units if row["outage_usec"]]
    return {
        "schema": SCHEMA,
        "id": id,
        "result": result,
        "mechanism": mechanism,
        "strategy": strategy,
        "source": {**source, "package": versions.get("source", source.get("package"))},
        "target": {**target, "package": versions.get("target", target.get("package"))},
        "started": started,
        "phases": [{key: value or None for key, value in asdict(p).items()} for p in phases],
        "outage_usec": outage,
        "outage_start_usec": start,
        "outage_end_usec": end,
        "unit_outage_usec": {"longest": max(own, default=0), "sum": sum(own)},
        "units": units,
        "continuity": dict(continuity),
        "findings": [dict(finding) for finding in findings],
        "error": error,
        **benchmark_times(phases, release, run_end),
    }


def uncounted(after: Units, crossed: Names) -> Units:
    """The times without those that PID 1 gave to mounts that were there all the time."""
    return after | {name: UnitTimes(active=True) for name in crossed if name in after}


def unit_rows(
    before: Names, after: Units, gated: Names, kept: Names, release: int, until: int
) -> list[dict[str, Any]]:
    """What became of each unit, by name; what was not and is not there is left out.

    A stop belongs to this upgrade if it lies between `release` and `until` (0: open end).
    """
    rows = []
    for name in sorted({*before, *after}):
        times = after.get(name, UnitTimes(active=False))
        stays = name in kept or name.endswith(ENUMERATED)
        action = _action(times, release, was=name in before, gated=name in gated, stays=stays)
        if action is None or name.startswith(PASSING) or not name.endswith(COUNTED):
            continue
        enter, stops = times.active_enter_usec, [times.active_exit_usec]
        started = enter if times.active and enter >= release else None
        if not times.active:
            stops.append(times.inactive_enter_usec)
        # Neither a later stop is this upgrade's nor one that comes after the start.
        own = [stop for stop in stops if release <= stop <= min(until or stop, started or stop)]
        stopped = own[0] if own and action != "new" else None
        outage = 0 if action == "kept" else _span(stopped, started)
        rows.append(dict(zip(ROW, (name, stopped, started, outage, action), strict=True)))
    return rows


def _action(times: UnitTimes, release: int, *, was: bool, gated: bool, stays: bool) -> str | None:
    """kept | restarted | skipped | new | gone, or None for a unit of no concern.

    What happened beats what was asked for: a unit to be kept that was restarted says so.
    """
    if not times.active:
        if gated and times.condition_failed:
            return "skipped"
        return "gone" if was else None
    enter, leave = times.active_enter_usec, times.active_exit_usec
    if enter >= release:
        return "restarted" if was else "new"
    if leave >= release:
        return "restarted"  # it left and is back; when is lost
    if enter > leave:
        return "kept"
    # No time stamps to go by: believe it of units nothing stops, not of an ordinary service.
    return "new" if not was else "kept" if stays else "restarted"


def outage_window(
    units: Sequence[Mapping[str, Any]], target: UnitTimes | None, release: int
) -> tuple[int | None, int | None, int | None]:
    """Start, end and length of the outage of the whole element.

    From the first unit stopped to the default target active again. If the target never left
    (strategy live) it ends with the last unit restarted; if no unit left, the length is 0.
    """
    stops = [unit["stopped_usec"] for unit in units if unit["stopped_usec"] is not None]
    if not stops and all(unit["action"] in ("kept", "new", "skipped") for unit in units):
        return None, None, 0
    end = None
    if target is not None and target.active:
        end = target.active_enter_usec
        if end < release:
            away = [u for u in units if u["action"] == "restarted" and u["stopped_usec"]]
            back = [unit["started_usec"] for unit in away]
            end = None if None in back else max(back, default=None)
    start = min(stops, default=None)
    return start, end, _span(start, end)


def benchmark_times(
    phases: Sequence[Phase], release: int, run_end: int | None
) -> dict[str, int | None]:
    """T1 staging, T2 run, T3 housekeeping and T4, their sum (RFC 7654 section 7).

    Without a release everything was staging. If the end of the run is not known T4 still is:
    it is then the time from the start of the first phase to the end of the last.
    """
    times = [time for phase in phases for time in (phase.start_usec, phase.end_usec) if time > 0]
    first, last = min(times, default=None), max(times, default=None)
    t1, t2, t3 = _span(first, release or last), _span(release, run_end), None
    if not release:
        t2 = t3 = 0
    elif t2 is not None and run_end is not None and last is not None:
        t3 = max(0, last - run_end)
    t4 = _span(first, last)
    if t1 is not None and t2 is not None and t3 is not None:
        t4 = t1 + t2 + t3
    return {"t1_usec": t1, "t2_usec": t2, "t3_usec": t3, "t4_usec": t4}


def _span(start: int | None, end: int | None) -> int | None:
    return None if start is None or end is None or end < start else end - start
