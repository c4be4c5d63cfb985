"""Who else is at work on the machine: package managers, processes without a unit, other namespaces.

Nothing here is told to end; it is named, so that the operator decides.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from . import mounts, plan, reap
from .systemd import Job
from .tree import resolve

PROC = Path("/proc")
SESSIONS = Path("/run/systemd/sessions")  # of systemd-logind; LEADER= is a session's first process
POWER = Path("/sys/class/power_supply")
NETNS = "/run/netns/"  # ip-netns(8)
LOCKS = ("var/lib/dpkg/lock-frontend", "var/lib/dpkg/lock")  # dpkg(1), apt-get(8)
SHOWN = 10
_FLOCK = "hhqqi"  # struct flock, fcntl(2)


def package_managers(root: Path) -> tuple[str, ...]:
    """Who holds a lock of the package manager in the tree: "NAME[PID] holds PATH"."""
    found = []
    for name in LOCKS:
        path = resolve(root, name)
        if path.is_file() and (pid := lock_holder(path)) is not None:
            who = f"{reap.name_of(pid) or '?'}[{pid}]" if pid > 0 else "somebody"
            found.append(f"{who} holds {path}")
    return tuple(found)


def lock_holder(path: Path) -> int | None:
    """Who holds a record lock on a file, None if nobody; 0 or less: out of sight."""
    asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(fd, fcntl.F_GETLK, asked))
    finally:
        os.close(fd)
    return None if kind == fcntl.F_UNLCK else int(pid)


def strays() -> tuple[str, ...]:
    """The processes that no unit started and nobody's terminal holds: "NAME[PID] in CGROUP"."""
    leaders = session_leaders()
    found = [
        f"{reap.name_of(pid)}[{pid}] in {group}"
        for pid in sorted(reap.processes())
        if (group := group_of(pid)) and is_stray(pid, group, leaders)
    ]
    return shortened(found)


def is_stray(pid: int, group: str, leaders: set[int]) -> bool:
    """Whether a process was left outside of any unit, or left behind in a login session.

    A cgroup above PID 1's own is none of its business: nsenter(1) into a container comes from one.
    """
    name = reap.name_of(pid)
    if group.startswith("/..") or name.startswith("(") or not name:  # "(...)" is PID 1's own fork
        return False
    unit = reap.unit_of(pid)
    if plan.is_session(unit):
        return pid not in leaders and is_daemon(pid)
    return unit in ("", "init.scope") and name != "systemd"


def group_of(pid: int) -> str:
    """The cgroup of a process as PID 1 sees it, "" if it is gone."""
    try:
        lines = (PROC / str(pid) / "cgroup").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    ours = [line for line in lines if line.startswith("0::") or ":name=systemd:" in line]
    # The unified hierarchy stands last; a host's own name=systemd beside it is of no concern.
    return ours[-1].split(":", 2)[2] if ours else ""


def is_daemon(pid: int) -> bool:
    """Whether PID 1 has adopted the process and no terminal controls it, proc_pid_stat(5)."""
    try:
        stat = (PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return False
    fields = stat.rpartition(")")[2].split()
    return fields[1] == "1" and fields[4] == "0"


def session_leaders() -> set[int]:
    """The first process of each login session."""
    found = set()
    for path in SESSIONS.glob("*"):
        try:
            lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
        except OSError:
            continue
        found |= {int(line[7:]) for line in lines if line.startswith("LEADER=")}
    return found


def pins(steps: plan.Plan, root_dev: int) -> tuple[str, ...]:
    """The processes of kept units that have the running root mounted in their own namespace."""
    kept, first = {*plan.of(steps, plan.KEPT)}, namespace("1")
    found = [
        f"{reap.name_of(pid)}[{pid}] of {unit}"
        for pid in sorted(reap.processes())
        if (unit := reap.unit_of(pid)) in kept and namespace(str(pid)) not in (first, "")
        and sees(pid, root_dev)
    ]  # fmt: skip
    return shortened(found)


def namespace(process: str) -> str:
    """The mount namespace of a process, as namespaces(7) names it; "" if it is gone."""
    try:
        return os.readlink(PROC / process / "ns/mnt")  # noqa: PTH115
    except OSError:
        return ""


def sees(pid: int, dev: int) -> bool:
    """Whether a process has the file system with this st_dev mounted."""
    try:
        return any(mount.dev == dev for mount in mounts.mounts(str(pid)))
    except (OSError, ValueError, IndexError):
        return False


def shortened(found: list[str]) -> tuple[str, ...]:
    """The first ten, and how many more there are."""
    more = [f"{len(found) - SHOWN} more"] if len(found) > SHOWN else []
    return (*found[:SHOWN], *more)


def network_namespaces() -> tuple[str, ...]:
    """The names of the named network namespaces, ip-netns(8)."""
    points = {m.point for m in mounts.mounts("1") if m.fstype == "nsfs"}
    return tuple(sorted(p.removeprefix(NETNS) for p in points if p.startswith(NETNS)))


def battery() -> int | None:
    """Percent of the emptiest battery that discharges; None without one.

    Source: Documentation/ABI/testing/sysfs-class-power. A mouse's battery has scope Device.
    """
    levels = [level for supply in POWER.glob("*") for level in discharging(supply)]
    return min(levels, default=None)


def discharging(supply: Path) -> Iterator[int]:
    """The level of a supply that is a battery of this machine and discharges."""
    told = {}
    for name in ("type", "scope", "status", "capacity"):
        try:
            told[name] = (supply / name).read_text(errors="replace").strip()
        except OSError:
            continue
    mine = told.get("type") == "Battery" and told.get("scope") != "Device"
    if mine and told.get("status") == "Discharging" and told.get("capacity", "").isdecimal():
        yield int(told["capacity"])


def foreign_jobs(jobs: list[Job]) -> tuple[tuple[str, str], ...]:
    """Unit and kind of each job of PID 1 that is not of an upgrade."""
    return tuple((j.unit, j.type) for j in jobs if not j.unit.startswith(plan.OWN))
