"""Frames received over time, one row a rival, as an SVG."""

from html import escape
from statistics import median

from .traffic import BIN_USEC

WIDTH, ROW, LEFT, TOP = 900, 70, 170, 30  # pixels
STEP_USEC = 200_000  # one point of the line
CUT = 2  # times what usually comes
STYLE = (
    "text{font:12px sans-serif;fill:#333}.line{fill:#cfe3f5;stroke:#2b6cb0;stroke-width:1}"
    ".axis{stroke:#999;stroke-width:1}"
)


def svg(rows: dict[str, list[int]]) -> str:
    """The picture; all rows have one time axis and one scale.

    What had to wait on the wire comes all at once when a port is up again: that peak is cut off.
    """
    points = {title: coarse(bins) for title, bins in rows.items()}
    usual = max((median(line) for line in points.values() if line), default=1) or 1
    longest = max((len(line) for line in points.values()), default=1) or 1
    height = TOP + ROW * len(rows) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}">',
        f"<style>{STYLE}</style>",
        f'<text x="{LEFT}" y="18">frames received in {STEP_USEC / 1e6:g} s each</text>',
    ]
    for number, (title, line) in enumerate(points.items()):
        parts += row(title, line, TOP + ROW * number, longest, usual * CUT)
    parts += axis(longest, height - 30)
    return "\n".join([*parts, "</svg>"]) + "\n"


def coarse(bins: list[int]) -> list[int]:
    """Fewer, larger bins; the last, which is not full, is left out."""
    size = STEP_USEC // BIN_USEC
    return [sum(bins[i : i + size]) for i in range(0, len(bins) - size + 1, size)]


def row(title: str, line: list[int], top: int, longest: int, most: float) -> list[str]:
    """One rival."""
    base = top + ROW - 10
    scale = (WIDTH - LEFT - 20) / longest
    places = [
        f"{LEFT + i * scale:.1f},{base - min(value / most, 1) * (ROW - 20):.1f}"
        for i, value in enumerate(line)
    ]
    end = f"{LEFT + max(len(line) - 1, 0) * scale:.1f},{base}"
    return [
        f'<text x="5" y="{base - 15}">{escape(title)}</text>',
        f'<polygon class="line" points="{LEFT},{base} {" ".join(places)} {end}"/>',
    ]


def axis(longest: int, y: int) -> list[str]:
    """Seconds."""
    seconds = int(longest * STEP_USEC / 1e6)
    scale = (WIDTH - LEFT - 20) / longest * 1e6 / STEP_USEC
    step = max(1, 10 * round(seconds / 80)) if seconds > 20 else 5
    marks = [
        f'<text x="{LEFT + s * scale:.1f}" y="{y + 18}">{s} s</text>'
        for s in range(0, seconds + 1, step)
    ]
    return [f'<line class="axis" x1="{LEFT}" x2="{WIDTH - 20}" y1="{y}" y2="{y}"/>', *marks]
