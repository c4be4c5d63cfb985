"""Kernel state that must survive an upgrade: read before release and after verify, compared.

A snapshot is a JSON-able dict, for it crosses the switch in the record and may be read by another
version of this package. To watch one more kind of state, write a function that returns
{name: value} and give it a name in READERS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

State = dict[str, Any]


def _boot_id(sysroot: Path) -> State:
    """The kernel makes a new one at every boot (random(4)); the same one: the same kernel."""
    return {"kernel": _line(sysroot / "proc/sys/kernel/random/boot_id")}


def _modules(sysroot: Path) -> State:
    """The loaded modules (proc_modules(5)).

    The inode of a module's directory in sysfs is made anew with the module, so it tells one
    that was unloaded and loaded again from one that stayed.
    """
    lines = (sysroot / "proc/modules").read_text(errors="replace").splitlines()
    names = [line.split()[0] for line in lines if line.strip()]
    return {name: {"sysfs_inode": _inode(sysroot / "sys/module" / name)} for name in names}


def _network_devices(sysroot: Path) -> State:
    """The devices of this network namespace (sysfs-class-net); an entry may be a plain file
    (`bonding_masters`), and a file that cannot be read gives null."""
    devices = [entry for entry in (sysroot / "sys/class/net").iterdir() if entry.is_dir()]
    return {
        device.name: {
            "ifindex": _number(device / "ifindex"),
            "address": _line(device / "address"),
            "carrier_changes": _number(device / "carrier_changes"),
        }
        for device in devices
    }


READERS: dict[str, Callable[[Path], State]] = {
    "boot_id": _boot_id,
    "module": _modules,
    "network-device": _network_devices,
}


def snapshot(sysroot: Path = Path("/")) -> dict[str, Any]:
    """Read every kind of state; a kind that cannot be read at all is left out.

    `boot_id` is a string, every other kind a dict of {name: value}.
    """
    state: dict[str, Any] = {}
    for kind, read in READERS.items():
        try:
            state[kind] = dict(sorted(read(sysroot).items()))
        except OSError:
            continue
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


def _line(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


def _number(path: Path) -> int | None:
    line = _line(path) or ""
    return int(line) if line.isdecimal() else None


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None
