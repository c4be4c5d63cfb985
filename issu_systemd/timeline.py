"""A report as text, for the person who reads it at 3 a.m. on an 80-column console.

Pure. Reads reports of older and newer schemas: what is missing or odd is shown as unknown,
never an error. Also holds the tolerant readers that gantt.py shares.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping
from typing import Any

Report = Mapping[str, Any]
Span = tuple[str, int | None, int | None]

LONGEST, NAMED = 10, 12
PHASE = ("phases", "name", "start_usec", "end_usec")
UNIT = ("units", "unit", "stopped_usec", "started_usec")
STEPS = {"pivot_usec": "change of the root", "reexec_usec": "PID 1 away"}
ACTIONS = ("restarted", "kept", "skipped", "new", "gone")
CLOCKS = {
    "t1_usec": "T1 staging", "t2_usec": "T2 run", "t3_usec": "T3 housekeeping", "t4_usec": "T4 sum",
}  # fmt: skip


def render(report: Report, *, width: int = 80, unicode: bool = False) -> str:
    """The report as lines of at most `width` columns (at least 60); pure ASCII unless
    `unicode` allows block characters."""
    width = max(width, 60)
    sections = [
        _header(report, width),
        _phases(report, width, unicode=unicode),
        _outages(report, width, unicode=unicode),
        _counts(report, width),
        _continuity(report, width),
        remarks(report, width),
    ]
    text = "\n\n".join("\n".join(lines) for lines in sections if lines)
    if not unicode:
        text = text.encode("ascii", "backslashreplace").decode("ascii")
    return "\n".join(_cut(line, width) for line in text.splitlines()) + "\n"


def duration(usec: int | None) -> str:
    """Microseconds for people: 850 us, 56 ms, 1.234 s, 2 min 3 s, 1 h 2 min."""
    if usec is None:
        return "unknown"
    if usec < 0:
        return "-" + duration(-usec)
    if usec < 1000:
        return f"{usec} us" if usec else "0 s"
    msec = round(usec / 1000)
    if msec < 1000:
        return f"{msec} ms"
    if msec < 60_000:
        return f"{msec / 1000:.3f} s"
    minutes, seconds = divmod(round(msec / 1000), 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    return f"{minutes // 60} h {minutes % 60} min"


def number(value: object) -> int | None:
    """A time of the report in microseconds; None for whatever is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if abs(value) < 2**63 else None


def string(value: object, default: str = "?") -> str:
    """One line that is safe on a terminal and in XML: no control characters, no surrogates."""
    text = default if value is None or value == "" else str(value)
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def table(report: Report, key: str) -> list[Report]:
    """A list of objects in the report; entries that are no objects are dropped."""
    rows = report.get(key)
    return [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []


def spans(report: Report, key: str, name: str, start: str, end: str) -> list[Span]:
    """Name, start and end in microseconds of everything in a list of the report."""
    rows = table(report, key)
    return [(string(r.get(name)), number(r.get(start)), number(r.get(end))) for r in rows]


def system(report: Report, key: str) -> str:
    """`source` or `target` in a line: Debian 12, systemd 252, /dev/vda1 (ext4)."""
    side = report.get(key)
    if not isinstance(side, Mapping):
        return "?"
    name = f"{string(side.get('os'))} {string(side.get('version'), '')}".rstrip()
    where = f"{string(side.get('device'))} ({string(side.get('fstype'))})"
    return f"{name}, systemd {string(side.get('systemd'))}, {where}"


def kernel_state(report: Report) -> str:
    """The verdict on continuity in a line; nothing is claimed of what was not compared."""
    state = report.get("continuity")
    read = state.get("read") if isinstance(state, Mapping) else None
    if not isinstance(state, Mapping) or not isinstance(read, list) or not read:
        return "not compared"
    lost = len(table(state, "differences"))
    verdict = f"{lost} difference{'s' * (lost > 1)}" if lost else "nothing lost"
    return f"{verdict} (compared: {', '.join(map(string, read))})"


def remarks(report: Report, width: int) -> list[str]:
    """The findings with their way out, and the error; empty if all was well."""
    lines = []
    for row in table(report, "findings"):
        note = f" ({row['note']})" if row.get("note") else ""
        label = f"  {string(row.get('severity')).upper()}{note} {string(row.get('id'))}: "
        lines += _wrapped(label, string(row.get("text")), width)
        lines += _wrapped("    way out: ", string(row.get("way_out"), ""), width)
    error = _wrapped("Error: ", string(report.get("error"), ""), width)
    return (["Findings", *lines] if lines else []) + error


def _header(report: Report, width: int) -> list[str]:
    how = f"{string(report.get('mechanism'), 'not switched')}, strategy"
    return [
        f"ISSU {string(report.get('id'))}: {string(report.get('result')).upper()}",
        *_wrapped("  from     ", system(report, "source"), width),
        *_wrapped("  to       ", system(report, "target"), width),
        f"  by       {how} {string(report.get('strategy'))}",
        f"  started  {string(report.get('started'))}",
    ]


def _phases(report: Report, width: int, *, unicode: bool) -> list[str]:
    rows = spans(report, *PHASE)
    lines = ["Phases", *_bars(rows, width, unicode=unicode)] if rows else []
    clocks = [f"{name} {duration(number(report.get(key)))}" for key, name in CLOCKS.items()]
    steps = report.get("steps")
    took = [
        f"{name} {duration(number(steps.get(key)))}"
        for key, name in STEPS.items()
        if isinstance(steps, Mapping) and key in steps
    ]
    lines += _wrapped("  ", ", ".join(took), width)
    return [*lines, "RFC 7654", *_wrapped("  ", ", ".join(clocks), width)]


def _outages(report: Report, width: int, *, unicode: bool) -> list[str]:
    rows = [row for row in spans(report, *UNIT) if None not in row]
    rows.sort(key=lambda row: (row[1] or 0) - (row[2] or 0))
    whole = duration(number(report.get("outage_usec")))
    lines = [f"Outage: {whole}"]
    each = report.get("unit_outage_usec")
    if report.get("strategy") == "live" and isinstance(each, Mapping):
        longest, total = (duration(number(each.get(key))) for key in ("longest", "sum"))
        lines = [
            f"Outage: each unit by itself, {longest} at most, {total} in sum",
            f"  first stop to last start: {whole}",
        ]
    if rows:
        lines[-1] += f"; the longest {min(LONGEST, len(rows))} of {len(rows)} units"
    return lines + _bars(rows[:LONGEST], width, unicode=unicode)


def _bars(rows: list[Span], width: int, *, unicode: bool) -> list[str]:
    """Name, duration and a bar from start to end, all to one scale."""
    times = [time for _, start, end in rows for time in (start, end) if time is not None]
    first, last = min(times, default=0), max(times, default=0)
    names = min(max((len(name) for name, _, _ in rows), default=0), width // 2 - 4)
    columns = width - names - 18
    lines = []
    for name, start, end in rows:
        bar, took = "", None
        if start is not None and end is not None and end >= start:
            scale = columns / max(last - first, 1)
            skip = min(int((start - first) * scale), columns - 1)
            fill = max(1, round((end - first) * scale) - skip)
            bar = " " * skip + ("█" if unicode else "=") * fill
            took = end - start
        label = _cut(name, names).ljust(names)
        lines.append(f"  {label}  {duration(took):>11} |{bar:<{columns}}|")
    return lines


def _counts(report: Report, width: int) -> list[str]:
    units = table(report, "units")
    counts = Counter(string(row.get("action")) for row in units)
    order = [*ACTIONS, *sorted(set(counts) - set(ACTIONS))]
    text = ", ".join(f"{counts[action]} {action}" for action in order if counts[action])
    lines = _wrapped("Units: ", text, width)
    for action in ("gone", "skipped"):
        names = [string(row.get("unit")) for row in units if row.get("action") == action]
        more = [f"and {len(names) - NAMED} more"] if len(names) > NAMED else []
        lines += _wrapped(f"  {action}: ", ", ".join(names[:NAMED] + more), width)
    plan = report.get("plan")
    for sentence in plan.get("differences") or [] if isinstance(plan, Mapping) else []:
        lines += _wrapped("  otherwise than planned: ", string(sentence), width)
    return lines


def _continuity(report: Report, width: int) -> list[str]:
    lines = _wrapped("Kernel state: ", kernel_state(report), width)
    state = report.get("continuity")
    for item in table(state, "differences") if isinstance(state, Mapping) else []:
        change = f"{string(item.get('before'), 'none')} -> {string(item.get('after'), 'none')}"
        label = f"  {string(item.get('what'))} {string(item.get('name'))}: "
        lines += _wrapped(label, change, width)
    return lines


def _wrapped(label: str, text: str, width: int) -> list[str]:
    """`text` after `label`, over as many lines as it takes; no lines if there is no text."""
    indent = " " * (len(label) - len(label.lstrip()) + 4)
    return textwrap.wrap(
        text, width, initial_indent=label, subsequent_indent=indent, break_on_hyphens=False
    )


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."
