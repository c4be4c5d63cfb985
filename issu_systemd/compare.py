"""`issu continuity`: snapshots of the kernel's state, taken and compared by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from . import continuity, settings
from .errors import IssuError
from .kernelstate import Source

CRITICAL = ("/proc", "/sys", "/dev")  # these mounts every upgrade takes along
WIDEST = 60  # characters of a value in the table
HEAD = ("KIND", "NAME", "BEFORE", "AFTER")


def snapshot() -> dict[str, Any]:
    """The kernel's state now, with the mounts that an upgrade would take along."""
    return continuity.snapshot(Source(points=(*CRITICAL, *settings.load().carry_mounts)))


def read(path: Path) -> dict[str, Any]:
    """The snapshot in a file; raises IssuError naming the file."""
    hint = "issu continuity snapshot >FILE"
    try:
        document = json.loads(path.read_text())
    except OSError as error:
        raise IssuError(f"{path}: {error.strerror}", hint=hint) from error
    except (ValueError, RecursionError) as error:
        raise IssuError(f"{path} is not JSON: {error}", hint=hint) from error
    if not isinstance(document, dict) or "boot_id" not in document:
        raise IssuError(f"{path} holds no snapshot", hint=hint)
    return document


def diff(before: Path, after: Path) -> dict[str, Any]:
    """What continuity.diff says of the snapshots in two files; raises IssuError naming a file."""
    old, new = read(before), read(after)
    try:
        return continuity.diff(old, new)
    except TypeError as error:  # counters that are no numbers
        raise IssuError(f"{before} and {after} cannot be compared: {error}") from error


def table(document: dict[str, Any]) -> str:
    """The differences for people, a line for each value that differs."""
    compared = f"compared: {', '.join(document['read']) or 'nothing'}"
    found = document["differences"]
    if not found:
        return f"no difference; {compared}"
    rows = [HEAD, *((d["what"], d["name"], *pair) for d in found for pair in pairs(d))]
    wide = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    lines = ["  ".join(map(str.ljust, row, wide)).rstrip() for row in rows]
    return "\n".join([*lines, f"{len(found)} difference{'s' * (len(found) > 1)}; {compared}"])


def pairs(difference: dict[str, Any]) -> list[tuple[str, str]]:
    """The two sides of a difference, by field where both have fields."""
    before, after = difference["before"], difference["after"]
    if not isinstance(before, dict) or not isinstance(after, dict):
        return [(short(before), short(after))]
    return [(f"{f}={short(before[f])}", f"{f}={short(after[f])}") for f in before if f in after]


def short(value: Any) -> str:
    """A value in the table; "-" for none."""
    if value is None:
        return "-"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…"
