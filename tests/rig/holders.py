"""Who has a block device mounted: a look at every mount namespace of the host."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Holder:
    """One mount namespace that has the device mounted, and the processes living in it."""

    mount_namespace: str
    pid_namespaces: frozenset[str]
    pids: tuple[int, ...]


def number(device: Path) -> str:
    """MAJOR:MINOR of a block device node, as in /proc/PID/mountinfo."""
    rdev = device.stat().st_rdev
    return f"{os.major(rdev)}:{os.minor(rdev)}"


def namespace(pid: int, kind: str) -> str:
    """The namespace of a process as namespaces(7) names it, e.g. "mnt:[4026531832]"."""
    return str(Path(f"/proc/{pid}/ns/{kind}").readlink())


def holders(device: Path) -> list[Holder]:
    """Every mount namespace with a process in it where the device is mounted anywhere.

    Not seen are mounts that were detached lazily and are kept by an open file, and namespaces
    without processes; `superblock` sees those.
    """
    wanted = number(device)
    namespaces: dict[str, list[tuple[int, str]]] = {}
    for proc in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            inside = (int(proc.name), namespace(int(proc.name), "pid"))
            namespaces.setdefault(namespace(int(proc.name), "mnt"), []).append(inside)
    found = []
    for mount, members in sorted(namespaces.items()):
        if any(_mounts(pid, wanted) for pid, _ in members[:3]):  # more than one: it may just end
            pids = tuple(sorted(pid for pid, _ in members))
            found.append(Holder(mount, frozenset(ns for _, ns in members), pids))
    return found


def strangers(device: Path, leader: int) -> list[Holder]:
    """Holders of the device with processes outside the container whose PID 1 is `leader`.

    Empty means: nobody on the host keeps the container from giving the device up.
    """
    inside = {namespace(leader, "pid")}
    return [h for h in holders(device) if h.pid_namespaces != inside]


def superblock(device: Path) -> bool:
    """Is there a live ext4 superblock on the device, visibly mounted or not?"""
    return Path("/proc/fs/ext4", device.name).exists()


def _mounts(pid: int, wanted: str) -> bool:
    with suppress(OSError):
        lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
        return any(line.split(" ", 3)[2] == wanted for line in lines)
    return False
