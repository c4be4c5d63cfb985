"""What the command prints: tables and lines from plain values, JSON, and the pager.

Only `printed` and `paged` write; the rest is pure.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

JSON = ("short", "pretty", "off")
ORDER = ("block", "warn", "info")  # of severities
PAGERS = ("$SYSTEMD_PAGER", "$PAGER", "less")
LESS = {"LESS": "FRSXMK", "LESSCHARSET": "utf-8", "LESSSECURE": "1"}  # as systemctl(1)
NARROW = 60

Row = Mapping[str, Any]


def as_json(document: Any, mode: str) -> str:
    """A document as JSON: "short" in one line, "pretty" for people."""
    if mode == "short":
        return json.dumps(document, separators=(",", ":"))
    return json.dumps(document, indent=1)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, legend: bool) -> list[str]:
    """Columns as wide as their widest cell, the last as long as it is."""
    lines = [head, *rows] if legend else list(rows)
    wide = [max((len(line[i]) for line in lines), default=0) for i in range(len(head))]
    return ["  ".join(map(str.ljust, line, wide)).rstrip() for line in lines]


def findings(found: Iterable[Row], *, legend: bool, width: int | None) -> list[str]:
    """Findings, the blocking ones first, each with its way out; `width` None: lines of any length.

    A severity that is not known comes last.
    """
    rank = {severity: place for place, severity in enumerate(ORDER)}
    rows = sorted(found, key=lambda row: rank.get(row["severity"], len(rank)))
    heads = [{"severity": "SEVERITY", "id": "ID", "text": "FINDING"}] if legend and rows else []
    first, second = (
        max((len(row[key]) for row in (*heads, *rows)), default=0) for key in ("severity", "id")
    )
    lines = []
    for row in (*heads, *rows):
        label = f"{row['severity']:<{first}}  {row['id']:<{second}}  "
        lines += wrapped(label, row["text"], width)
        if row.get("way_out"):
            lines += wrapped(" " * len(label) + "way out: ", row["way_out"], width)
    return lines


def wrapped(label: str, text: str, width: int | None) -> list[str]:
    """`text` after `label`, over as many lines as it takes in `width` columns."""
    line = f"{label}{one_line(text)}"
    if width is None or len(line) <= width or width - len(label) < NARROW // 2:
        return [line]
    import textwrap

    return textwrap.wrap(
        line, width, subsequent_indent=" " * len(label), break_on_hyphens=False,
        break_long_words=False,
    )  # fmt: skip


def verdict(target: str, found: Iterable[Row], *, eligible: bool) -> str:
    """Whether an upgrade would start, in a line."""
    if eligible:
        return f"An upgrade to {target} would start."
    count = sum(row["severity"] == "block" for row in found)
    return f"An upgrade to {target} would be refused: {count} blocking finding{'s'[: count != 1]}."


def upgrades(rows: Iterable[Row], *, legend: bool) -> list[str]:
    """Past upgrades, a line each."""
    head = ("ID", "RESULT", "STRATEGY", "TARGET", "OUTAGE", "ERROR")
    cells = (
        [
            row["id"], row.get("result") or "-", row.get("strategy") or "-",
            row.get("target") or "-", seconds(row.get("outage_usec")), one_line(row.get("error")),
        ]
        for row in rows
    )  # fmt: skip
    return table(head, cells, legend=legend)


def inhibitors(rows: Iterable[Sequence[Any]], *, legend: bool) -> list[str]:
    """Who forbids upgrades, a line each."""
    cells = ([one_line(who), str(uid), str(pid), one_line(why)] for who, why, uid, pid in rows)
    return table(("WHO", "UID", "PID", "WHY"), cells, legend=legend)


def phases(spans: Iterable[Row], now_usec: int) -> list[str]:
    """The phases of an upgrade so far with their times; the one that runs has its age."""
    rows = []
    for span in spans:
        ended = span.get("end_usec")
        took = seconds((ended or now_usec) - span["start_usec"])
        rows.append((span["name"], took if ended else f"{took} so far"))
    return table(("", ""), rows, legend=False)


def seconds(usec: int | None) -> str:
    """Microseconds in seconds with three digits, "-" for none."""
    return f"{usec / 1_000_000:.3f} s" if usec else "-"


def one_line(text: str | None) -> str:
    """Text that neither breaks a table nor speaks to the terminal."""
    clean = " ".join((text or "").split())
    return "".join(c if c.isprintable() else "?" for c in clean)


def printed(lines: Iterable[str]) -> None:
    """Print lines at once, whoever reads them."""
    for line in lines:
        print(line)
    sys.stdout.flush()


def pager() -> list[str]:
    """The pager to use, as systemctl(1) chooses it; none if it is empty or cat."""
    import shlex

    for name in PAGERS:
        word = os.environ.get(name[1:]) if name.startswith("$") else name
        if word is not None:
            words = shlex.split(word)
            return [] if words in ([], ["cat"]) else words
    return []


def paged(text: str, *, wanted: bool) -> None:
    """Print text, on a terminal through the pager unless it is not wanted."""
    argv = pager() if wanted and sys.stdout.isatty() else []
    if argv:
        from . import run

        own = os.environ.get("SYSTEMD_LESS")
        if run.page(f"{text}\n", argv, LESS | ({"LESS": own} if own else {})):
            return
    print(text)


def width() -> int | None:
    """Columns of the terminal that is printed to; None if it is none."""
    return max(os.get_terminal_size(1).columns, NARROW) if sys.stdout.isatty() else None
