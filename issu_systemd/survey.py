"""The running units as plan.py wants them, and what the new root must account for besides units."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from . import gate, mounts, newroot, plan, reap
from .errors import IssuError
from .evidence import SYSCTL_SINCE, version
from .settings import Settings
from .systemd import Manager, escape_path

DROPINS = Path("/usr/lib/systemd/system")
MEMORY = ("tmpfs", "ramfs")
KERNEL_VIEWS = ("/proc", "/sys", "/dev", "/run")


class Wanted(NamedTuple):
    """What the settings of both roots say of the new one's start."""

    skip: list[str]
    lifted: list[str]


def wanted(chosen: Settings, own: Settings, issu_says: str) -> Wanted:
    """[arrive] of the running root and of the new one, as far as that one's `issu` knows it."""
    lifts = (chosen.sysctl or own.sysctl) and version(issu_says) >= SYSCTL_SINCE
    return Wanted(sorted({*chosen.skip, *own.skip}), [gate.SYSCTL] if lifts else [])


def plan_for(
    manager: Manager, root: Path, chosen: Settings, wanted: Wanted, strategy: str
) -> plan.Plan:
    """The plan for the new root mounted at `root`; changes nothing.

    Raises IssuError when that root's systemd cannot foresee its start-up.
    """
    carried = {*KERNEL_VIEWS, *chosen.carry_mounts}
    wishes = plan.Wishes(
        keep={*chosen.keep, *gate.held()}, gated=gated(root), lifted=wanted.lifted,
        skip=wanted.skip, sessions=chosen.sessions,
    )  # fmt: skip
    staged = {f"{escape_path(mount.point)}.mount" for mount in mounts.below(str(root))}
    units = [unit for unit in running(manager, carried) if unit.name not in staged]
    offer = newroot.ask(root)
    if not offer.dry:
        raise IssuError(
            "the new root's systemd does not tell what it would start",
            hint=f"mount it and try in it, by chroot: {' '.join(newroot.DRY)}",
        )
    return plan.make(units, offer, wishes, strategy)


def gated(root: Path) -> list[str]:
    """The units whose start the package of the root at `root` forbids during an upgrade."""
    place = root / DROPINS.relative_to("/")
    return sorted(path.parent.name.removesuffix(".d") for path in place.glob("*.d/50-issu.conf"))


def running(manager: Manager, carried: set[str]) -> list[plan.Running]:
    """Every active unit."""
    busy = {reap.unit_of(pid) for pid in reap.processes()}
    names = [u.name for u in manager.units() if u.active in ("active", "reloading")]
    return [describe(manager, name, busy, carried) for name in names]


def describe(manager: Manager, name: str, busy: set[str], carried: set[str]) -> plan.Running:
    """One unit as PID 1 tells it."""
    if not name.endswith(plan.COUNTED):
        return plan.Running(name, busy=name in busy)
    found = manager.properties(name)
    kind, oneshot, listens, goes = name.rpartition(".")[2], False, (), False
    if kind == "service":
        service = manager.properties(name, "Service")
        oneshot = service["Type"] == b"oneshot" and bool(service["RemainAfterExit"])
    elif kind == "socket":
        listens = tuple(b.decode() for _, b in manager.properties(name, "Socket")["Listen"])
    elif kind == "mount":
        where = manager.properties(name, "Mount")["Where"].decode()
        goes = any(where == c or where.startswith(f"{c}/") for c in carried)
    return plan.Running(
        name=name, oneshot=oneshot, busy=name in busy, listens=listens, carried=goes,
        transient=bool(found["Transient"]), runtime=found["FragmentPath"].startswith(b"/run/"),
        connection=kind == "service" and is_connection(manager, name, found["TriggeredBy"]),
    )  # fmt: skip


def is_connection(manager: Manager, name: str, sockets: list[bytes]) -> bool:
    """Whether a service is the instance for one connection, see systemd.socket(5) Accept=."""
    by = [unit.decode() for unit in sockets if unit.endswith(b".socket")] if "@" in name else []
    return any(manager.properties(unit, "Socket")["Accept"] for unit in by)


def stray_mounts(offer: newroot.Offer, carried: tuple[str, ...], stage: Path) -> tuple[str, ...]:
    """The mounts that neither go along nor come again with the new root's own fstab or units.

    Source: systemd-fstab-generator(8). What hangs below such a mount goes or stays with it.
    """
    spared = (*KERNEL_VIEWS, *carried, str(stage), *offer.mounts)
    return tuple(
        mount.point
        for mount in mounts.mounts()
        if mount.point != "/"
        and mount.fstype not in MEMORY
        and not any(mount.point == s or mount.point.startswith(f"{s}/") for s in spared)
    )


def both_have(offer: newroot.Offer, stage: Path) -> list[str]:
    """The mounts that go along: the new root would mount the same there, or only memory is.

    What is in memory is nowhere else, and the services may need it until they are restarted.
    """
    return [
        mount.point
        for mount in mounts.mounts()
        if not mount.point.startswith((*KERNEL_VIEWS, str(stage))) and mount.point != "/"
        and (mount.fstype in MEMORY or same(mount, offer.mounts.get(mount.point, "")))
    ]  # fmt: skip


def same(mount: mounts.Mount, what: str) -> bool:
    """Whether a mount is what a mount unit of the new root asks for, "" if there is none."""
    if what and mount.source == what:
        return True
    number = mounts.block_number(what)
    return number is not None and number == mounts.block_number(mount.source)


def swap_files(dev: int) -> tuple[str, ...]:
    """The swap files on the file system with st_dev `dev`, see proc_swaps(5)."""
    try:
        lines = Path("/proc/swaps").read_text().splitlines()[1:]
    except OSError:
        return ()
    names = [line.split()[0] for line in lines if line.split()[1] == "file"]
    return tuple(n for n in names if os.path.exists(n) and os.stat(n).st_dev == dev)  # noqa: PTH110, PTH116
