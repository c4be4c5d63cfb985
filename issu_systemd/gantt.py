"""A report as a picture: a self-contained SVG Gantt chart, without scripts or external fonts.

Pure. Above, the whole upgrade; below, unfolded from it, the run with every unit and the outage of
the element. The axes count seconds from the start of release. The colours are Okabe and Ito's,
which the colour-blind can tell apart, and shapes say the same once more.
"""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement, tostring

from . import timeline as tl
from .timeline import PHASE, UNIT, Report, duration, number, spans, string, table

WIDTH, LEFT, RIGHT, ROW, BAND = 1200, 290, 1090, 16, 24
INK, SOFT, GRID, RULE = "#1a1a1a", "#555555", "#d4d4d4", "#efefef"
OLD_ROOT, AWAY, NEW_ROOT, KEPT, SHADE = "#8c8c8c", "#d55e00", "#0072b2", "#009e73", "#fdeee2"
ALARM, BADGES = "#a33f00", {"accepted": "#00684d", "refused": "#7a5200"}
PHASES = {
    "preflight": "#d0d0d0", "stage": "#a9cce3", "release": "#f5b98a", "switch": "#e69f00",
    "arrive": "#f4e868", "verify": "#9fdcc5", "accept": "#d9c2dc", "roll-back": "#f08080",
}  # fmt: skip
GROUPS = {
    "restarted": "Restarted", "skipped": "Skipped during an ISSU", "gone": "Gone: not running now",
    "new": "New: not running before", "kept": "Kept: never stopped",
}  # fmt: skip
LEGEND = {"old root": OLD_ROOT, "away": AWAY, "new root": NEW_ROOT, "kept": KEPT}
MARKS = {"skipped": "m-4 0l4-4l4 4l-4 4z", "gone": "m-4-4l8 8m0-8l-8 8", "new": "m0-5l7 5l-7 5z"}


@dataclass(frozen=True)
class Axis:
    """Maps times in microseconds to places between LEFT and RIGHT; at `zero` it reads 0 s."""

    low: int
    high: int
    zero: int

    def x(self, usec: int) -> float:
        part = (usec - self.low) / max(self.high - self.low, 1)
        return LEFT + round((RIGHT - LEFT) * min(max(part, 0.0), 1.0), 1)

    def ticks(self) -> list[tuple[float, str]]:
        """About eight places and labels, at multiples of 1, 2 or 5 times a power of ten."""
        steps = (n * 10**power for power in range(20) for n in (1, 2, 5))
        step = next(step for step in steps if step >= (self.high - self.low) / 8)
        digits = max(0, 7 - len(str(step)))
        times = range(self.zero - (self.zero - self.low) // step * step, self.high + 1, step)
        return [(self.x(time), f"{(time - self.zero) / 1e6:.{digits}f} s") for time in times]


def svg(report: Report) -> str:
    """The report as an SVG document, as tall as its units need."""
    root = Element("svg", xmlns="http://www.w3.org/2000/svg", role="img")
    _draw(root, "rect", width="100%", height="100%", fill="#ffffff")
    y = _title(root, report)
    overview, run = _axes(report)
    y = _overview(root, report, overview, run, y) if overview else y
    y = _run(root, report, run, y + 34) if run else y
    for line in tl.remarks(report, 150):
        y = _text(root, 24 + 6 * (len(line) - len(line.lstrip())), y + 18, line.strip())
    size = {"width": f"{WIDTH}", "height": f"{y + 24}", "viewBox": f"0 0 {WIDTH} {y + 24}"}
    root.attrib.update(size, fill=INK, style="font: 12px DejaVu Sans, Verdana, sans-serif")
    return tostring(root, encoding="unicode") + "\n"


def _axes(report: Report) -> tuple[Axis | None, Axis | None]:
    """The axis of the whole upgrade and that of the run, as far as there is something to show."""
    phases, units = spans(report, *PHASE), spans(report, *UNIT)
    times = [time for _, *span in phases for time in span if time is not None]
    outage_start = number(report.get("outage_start_usec"))
    begin = next((start for name, start, _ in phases if name == "release"), outage_start)
    zero = min(times, default=0) if begin is None else begin
    overview = Axis(min(times), max(times), zero) if times else None
    if begin is None or not units:
        return overview, None
    back = [number(report.get("outage_end_usec")), *(end for _, stop, end in units if stop)]
    end = max((time for time in back if time is not None), default=max(times, default=begin))
    pad = max(end - begin, 1000) // 30
    return overview, Axis(begin - pad, end + pad, zero)


def _title(root: Element, report: Report) -> int:
    result = string(report.get("result"))
    SubElement(root, "title").text = f"ISSU {string(report.get('id'))}: {result}"
    _text(root, 24, 38, "In-service software upgrade", font_size=20, font_weight="bold")
    _draw(root, "rect", x=1046, y=18, width=130, height=28, rx=14, fill=BADGES.get(result, ALARM))
    _text(root, 1111, 37, result, 15, fill="#ffffff", text_anchor="middle", font_weight="bold")
    facts = [string(report.get(key)) for key in ("id", "started", "mechanism", "strategy")]
    _text(root, 24, 60, " · ".join(fact for fact in facts if fact != "?"), 150, fill=SOFT)
    told = tl.system(report, "source"), tl.system(report, "target"), tl.kernel_state(report)
    for n, (label, text) in enumerate(zip(("from", "to", "kernel"), told, strict=True)):
        _text(root, 24, 84 + 18 * n, label, fill=SOFT)
        _text(root, 76, 84 + 18 * n, text, 150)
    for n, (key, label) in enumerate({"outage_usec": "Outage of the element", **tl.CLOCKS}.items()):
        x, fill = 24 + 230 * n, INK if n else ALARM
        value = duration(number(report.get(key)))
        _text(root, x, 158, value, font_size=20, font_weight="bold", fill=fill)
        _text(root, x, 176, label, fill=SOFT)
    return 202


def _overview(root: Element, report: Report, axis: Axis, run: Axis | None, y: int) -> int:
    """Every phase with its duration, the whole upgrade, and what of it the run unfolds."""
    x = LEFT
    for name, start, end in spans(report, *PHASE):
        text = f"{name} {duration(None if start is None or end is None else end - start)}"
        x, y = (LEFT, y + 18) if x + 7 * len(text) > WIDTH - 40 else (x, y)
        _draw(root, "rect", x=x, y=y, width=10, height=10, fill=PHASES.get(name, RULE))
        _text(root, x + 15, y + 9, text, font_size=11)
        x += 30 + 7 * len(text)
    _text(root, 24, y + 39, "Whole upgrade", font_weight="bold")
    if run:
        a, b, top = axis.x(run.low), axis.x(run.high), y + 22 + BAND
        funnel = f"M{a} {top}H{max(b, a + 2)}L{RIGHT} {top + 52}H{LEFT}z"
        _draw(root, "path", d=funnel, fill="#f0f0f0")
    return _band(root, report, axis, y + 22)


def _band(root: Element, report: Report, axis: Axis, y: int) -> int:
    """The phases side by side, and the axis below them."""
    for name, start, end in spans(report, *PHASE):
        if start is None or end is None or end < axis.low or start > axis.high:
            continue
        x, fill = axis.x(start), PHASES.get(name, RULE)
        wide = round(max(axis.x(end) - x, 1.0), 1)
        _draw(root, "rect", x=x, y=y, width=wide, height=BAND, fill=fill, stroke="#ffffff")
        if wide > 8 * len(name) + 4:
            _text(root, x + wide / 2, y + 16, name, text_anchor="middle")
    for x, label in axis.ticks():
        _draw(root, "path", d=f"M{x} {y + BAND}v4", stroke=SOFT)
        _text(root, x, y + BAND + 16, label, fill=SOFT, text_anchor="middle", font_size=11)
    return y + BAND + 18


def _run(root: Element, report: Report, axis: Axis, y: int) -> int:
    """Every unit, group by group, the restarted ones in the order in which they stopped."""
    for n, (label, fill) in enumerate(LEGEND.items()):
        left, middle, thick = 24 + 110 * (n % 2), y + 9 + 22 * (n // 2), 3 + 7 * (label == "away")
        _draw(root, "rect", x=left, y=middle - thick / 2, width=22, height=thick, fill=fill)
        _text(root, left + 30, middle + 4, label)
    top = _band(root, report, axis, y) + 24
    units = sorted(table(report, "units"), key=lambda r: number(r.get("stopped_usec")) or 2**63)
    groups = [(head, [u for u in units if u.get("action") == a]) for a, head in GROUPS.items()]
    bottom = top + sum(30 + ROW * len(rows) for _, rows in groups if rows)
    start, end = (number(report.get(f"outage_{edge}_usec")) for edge in ("start", "end"))
    if start is not None and end is not None and end >= start:
        a, b = axis.x(start), axis.x(end)
        shade = _draw(root, "rect", x=a, y=top, width=b - a, height=bottom - top, fill=SHADE)
        shade.attrib.update({"stroke": AWAY, "stroke-dasharray": "4 3"})
        label = f"outage {duration(end - start)}"
        _text(root, (a + b) / 2, top - 6, label, fill=ALARM, text_anchor="middle")
    for x, label in axis.ticks():
        _draw(root, "path", d=f"M{x} {top}V{bottom}", stroke=GRID)
        _text(root, x, bottom + 16, label, fill=SOFT, text_anchor="middle", font_size=11)
    for head, rows in groups:
        if rows:
            _text(root, 24, top + 22, f"{head} ({len(rows)})", font_weight="bold")
            top += 30
        for row in rows:
            _unit(root, row, axis, top)
            top += ROW
    return bottom + 24


def _unit(root: Element, row: Report, axis: Axis, top: int) -> None:
    """One row: a line while it runs, thick while it is away, dotted if it does not come back."""
    action, y = str(row.get("action")), top + ROW // 2
    stopped, started = number(row.get("stopped_usec")), number(row.get("started_usec"))
    a = float(LEFT) if stopped is None else axis.x(stopped)
    b = float(RIGHT) if started is None else axis.x(started)
    value = duration(number(row.get("outage_usec"))) if action == "restarted" else action
    _draw(root, "path", d=f"M24 {top + ROW}H{WIDTH - 24}", stroke=RULE)
    _text(root, LEFT - 10, y + 4, string(row.get("unit")), 40, text_anchor="end", font_size=11)
    _text(root, WIDTH - 24, y + 4, value, text_anchor="end", font_size=11)
    if action == "kept":
        _draw(root, "path", d=f"M{LEFT} {y}H{RIGHT}", stroke=KEPT, stroke_width=4)
        return
    _draw(root, "path", d=f"M{LEFT} {y}H{a}", stroke=OLD_ROOT, stroke_width=2)
    if action == "restarted" and stopped is not None and started is not None and b >= a:
        _draw(root, "rect", x=a, y=y - 5, width=round(max(b - a, 1.5), 1), height=10, fill=AWAY)
    elif action != "new":
        _draw(root, "path", d=f"M{a} {y}H{b}", stroke=OLD_ROOT, stroke_dasharray="1 4")
    _draw(root, "path", d=f"M{b} {y}H{RIGHT}", stroke=NEW_ROOT, stroke_width=2)
    if action in MARKS:
        x, ink = (b, NEW_ROOT) if action == "new" else (a, INK)
        _draw(root, "path", d=f"M{x} {y}{MARKS[action]}", stroke=ink, stroke_width=2, fill="white")


def _draw(parent: Element, tag: str, **style: str | float) -> Element:
    return SubElement(parent, tag, {k.replace("_", "-"): str(v) for k, v in style.items()})


def _text(root: Element, x: float, y: int, text: str, limit: int = 999, **style: str | int) -> int:
    """Write one line, cut in the middle if it has more than `limit` characters; returns its y."""
    shown = text if len(text) <= limit else f"{text[: limit // 2]}...{text[3 - limit // 2 :]}"
    _draw(root, "text", x=x, y=y, **style).text = shown
    return y
