"""Kernel state that must survive an upgrade: read before release and after verify, compared.

A snapshot is a JSON-able dict, for it crosses the switch in the record and may be read by another
version of this package. To watch one more kind of state, write a function that takes a Source and
returns {name: value}, and give it a name in READERS.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import kernelstate, netstate
from .errors import IssuError
from .kernelstate import Source

READERS = {**kernelstate.READERS, **netstate.READERS}
GROWING = "statistics"  # a difference only if a counter is smaller than it was


def snapshot(source: Source = Source()) -> dict[str, Any]:  # noqa: B008  # immutable
    """Read every kind of state; a kind that cannot be read at all is left out.

    `boot_id` is a string, every other kind a dict of {name: value}. Below another root than /
    only files are read.
    """
    state: dict[str, Any] = {}
    readers = READERS if source.sysroot == Source().sysroot else kernelstate.READERS
    for kind, read in readers.items():
        try:
            state[kind] = dict(sorted(read(source).items()))
        except (OSError, IssuError, ValueError, LookupError, TypeError, AttributeError):
            continue  # missing, or tells what we know not
    state["boot_id"] = state["boot_id"]["kernel"]
    return state


def diff(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Compare two snapshots: `boot_id`, `read` (the kinds compared) and `differences`.

    Only what both snapshots have is compared, kind by kind and field by field, so an older or
    newer version's snapshot makes no difference by itself. A difference names `what`, `name`,
    `before` and `after`: the fields that differ, or null on the side where it does not exist.
    An element that lost nothing has no differences.
    """
    kinds = [kind for kind in before if before[kind] is not None and after.get(kind) is not None]
    differences: list[dict[str, Any]] = []
    for kind in kinds:
        old, new = _named(kind, before[kind]), _named(kind, after[kind])
        for name in sorted({*old, *new}):
            was, now = _differing(old.get(name), new.get(name))
            if kind == GROWING and was and now:
                was, now = _shrunk(was, now)
            if was != now:
                differences.append({"what": kind, "name": name, "before": was, "after": now})
    return {
        "boot_id": {"before": before.get("boot_id"), "after": after.get("boot_id")},
        "read": kinds,
        "differences": differences,
    }


def _named(kind: str, state: Any) -> Mapping[str, Any]:
    return state if isinstance(state, Mapping) else {kind: state}


def _differing(was: Any, now: Any) -> tuple[Any, Any]:
    """The two values, of two dicts only the fields that both have and that differ."""
    if not isinstance(was, Mapping) or not isinstance(now, Mapping):
        return was, now
    fields = [field for field in was if field in now and was[field] != now[field]]
    return {field: was[field] for field in fields}, {field: now[field] for field in fields}


def _shrunk(was: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[Any, Any]:
    """Of two sets of counters those that are smaller now, or cannot be read any more."""
    fields = [f for f in was if was[f] is not None and (now[f] is None or now[f] < was[f])]
    return {field: was[field] for field in fields}, {field: now[field] for field in fields}
