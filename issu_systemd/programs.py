"""Programs of the element's own, in verify.d, accept.d and rollback.d: to find and run them.

A file in a later directory replaces its namesake in an earlier one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from . import record
from .errors import IssuError
from .run import run_bounded

KEPT_BYTES = 64 * 1024  # of what a program prints, the end
LINE = 500  # characters of it that are told


class Said(NamedTuple):
    """How a program ended: its exit status, None if it did not end; its last line, "" for none."""

    status: int | None
    last: str
    trouble: str  # a sentence; "" if it is content


def found(places: Iterable[Path]) -> list[Path]:
    """The programs in the order of their names; what is not an executable file hides one."""
    every = {path.name: path for place in places for path in place.glob("[!.]*")}
    ordered = [every[name] for name in sorted(every)]
    return [path for path in ordered if path.is_file() and os.access(path, os.X_OK)]


def run_one(path: Path, usec: int, more: Mapping[str, str] | None = None) -> Said:
    """Run one with the record's path, for so many microseconds; `more` is for its environment."""
    seconds = usec / 1_000_000
    try:
        done = run_bounded([path, record.RECORD], timeout=seconds, keep=KEPT_BYTES, more=more)
    except IssuError as error:
        return Said(None, "", str(error))
    last = (done.output.strip().splitlines() or [""])[-1][:LINE]
    told = last or "it said nothing"
    if done.status is None:
        return Said(None, last, f"{path} did not end within {seconds:g} s: {told}")
    trouble = f"{path} ended with {done.status}: {told}" if done.status else ""
    return Said(done.status, last, trouble)
