"""Kernel state that is read from /proc and /sys: modules, drivers, network devices, sysctls.

Each reader takes a Source and returns {name: value}. Inodes of sysfs are made anew with what they
stand for, so that one tells what was taken away and made again from what stayed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from . import mounts

State = dict[str, Any]
# Not settings: a count, and what acts when it is written.
NO_SYSCTLS = ("nf_conntrack_count", "flush")
# What only a process that may see it should, and nobody in a report (ip-sysctl).
SECRETS = ("tcp_fastopen_key", "stable_secret")
COUNTERS = ("rx_packets", "tx_packets", "rx_bytes", "tx_bytes", "rx_dropped", "tx_dropped",
            "rx_errors", "tx_errors")  # fmt: skip


class Source(NamedTuple):
    """Where to read: the root of /proc and /sys, and the mount points to look at."""

    sysroot: Path = Path("/")
    points: Collection[str] = ()


def boot_id(source: Source) -> State:
    """The kernel makes a new one at every boot (random(4)); the same one: the same kernel."""
    return {"kernel": line(source.sysroot / "proc/sys/kernel/random/boot_id")}


def modules(source: Source) -> State:
    """The loaded modules (proc_modules(5)): state, srcversion, and whether it is the same load."""
    lines = (source.sysroot / "proc/modules").read_text(errors="replace").splitlines()
    place = source.sysroot / "sys/module"
    return {
        words[0]: {
            "sysfs_inode": inode(place / words[0]),
            "state": words[4] if len(words) > 4 else None,
            "srcversion": line(place / words[0] / "srcversion"),
        }
        for words in map(str.split, filter(str.strip, lines))
    }


def drivers(source: Source) -> State:
    """The devices that a driver has (sysfs(5)), by path; a new inode is a new binding."""
    found = {}
    for link in sorted((source.sysroot / "sys/bus").glob("*/drivers/*/*")):
        if link.is_symlink() and link.name != "module":
            device = link.resolve()
            name = "/" + str(device.relative_to(source.sysroot / "sys"))
            found[name] = {
                "driver": f"{link.parts[-4]}/{link.parts[-2]}",
                "sysfs_inode": inode(device / "driver"),
            }
    return found


def network_devices(source: Source) -> State:
    """The devices of this network namespace (sysfs-class-net); an entry may be a plain file
    (`bonding_masters`), and a file that cannot be read gives null."""
    return {
        device.name: {
            "ifindex": number(device / "ifindex"),
            "address": line(device / "address"),
            "mtu": number(device / "mtu"),
            "master": target(device / "master"),
            "operstate": line(device / "operstate"),
            "carrier_changes": number(device / "carrier_changes"),
        }
        for device in _interfaces(source)
    }


def statistics(source: Source) -> State:
    """The counters of each network device; they only grow while it lives."""
    return {
        device.name: {name: number(device / "statistics" / name) for name in COUNTERS}
        for device in _interfaces(source)
    }


def sysctls(source: Source) -> State:
    """The settings below /proc/sys/net, by directory; of secrets only that they are there."""
    top = source.sysroot / "proc/sys"
    return {
        str(place.relative_to(top)).replace("/", "."): dict(_settings(place))
        for place in sorted({path.parent for path in (top / "net").rglob("*") if path.is_file()})
    }


def carried_mounts(source: Source) -> State:
    """The file systems at the given mount points."""
    return {
        mount.point: {"dev": mount.dev, "fstype": mount.fstype}
        for mount in mounts.mounts()
        if mount.point in source.points
    }


def _interfaces(source: Source) -> list[Path]:
    return [entry for entry in (source.sysroot / "sys/class/net").iterdir() if entry.is_dir()]


def _settings(place: Path) -> Iterator[tuple[str, str | None]]:
    for path in sorted(place.iterdir()):
        if path.is_file() and path.name not in NO_SYSCTLS:
            yield path.name, "set" if path.name in SECRETS else line(path)


def line(path: Path) -> str | None:
    """The text of a file, or None if it cannot be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


def number(path: Path) -> int | None:
    """The whole number in a file, or None."""
    text = line(path) or ""
    return int(text) if text.isdecimal() else None


def target(path: Path) -> str | None:
    """The last part of where a link leads, or None if there is none."""
    try:
        return path.readlink().name
    except OSError:
        return None


def inode(path: Path) -> int | None:
    """The inode of a file or of a link itself, or None."""
    try:
        return path.lstat().st_ino
    except OSError:
        return None


READERS: dict[str, Callable[[Source], State]] = {
    "boot_id": boot_id,
    "module": modules,
    "driver": drivers,
    "network-device": network_devices,
    "statistics": statistics,
    "sysctl": sysctls,
    "mount": carried_mounts,
}
