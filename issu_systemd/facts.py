"""Reads from the machine and from the target what preflight.py judges. Changes nothing."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import (
    devices,
    gate,
    inhibit,
    modules,
    mounts,
    newroot,
    oldroot,
    plan,
    reap,
    record,
    room,
    settings,
    survey,
    warm,
    watchdog,
)  # fmt: skip
from .elf import elf_machine
from .errors import IssuError, SettingsError
from .evidence import Facts, Tree
from .run import run_inside
from .settings import Settings
from .sources import MACHINE, PLANNED, SHARED, TARGET, read_all
from .switch import INIT, mechanism_of
from .systemd import Manager
from .tree import resolve, text

# systemd 252 cannot switch to a root below /run (ELOOP), so it is mounted in the old root.
STAGES = (Path("/sysroot"), Path("/mnt"))
ISSU_VERSION = ["/usr/bin/issu", "--version"]
DISARMS = "usr/lib/python3/dist-packages/issu_systemd/watchdog.py"


def gather(manager: Manager, device: devices.Device, chosen: Settings) -> Facts:
    """The facts that can be had without mounting the target."""
    values, unread = read_all(MACHINE, manager, device)
    root, top = mounts.device_number("/"), mounts.mount_at("/")
    points = mounts.on_device(device.dev)
    active = {u.name for u in manager.units() if u.active == "active"}
    claimed = not points and not oldroot.is_free(device.node)
    return Facts(
        pid1=Path("/proc/1/comm").read_text().strip(),
        uid=os.geteuid(),
        mechanism="pivot" if chosen.strategy == "live" else mechanism_of(manager),
        strategy=chosen.strategy,
        accept_mode=chosen.accept_mode,
        machine=elf_machine(Path("/proc/self/exe")),
        kernel=modules.release(),
        modules=chosen.modules,
        sysctl=chosen.sysctl,
        run_free=free_bytes(Path("/run")) + room.kept(),
        run_inodes=free_inodes(Path("/run")),
        memory_free=available_memory(),
        in_progress=record.IN_PROGRESS.exists(),
        inhibitors=tuple(inhibitor.sentence() for inhibitor in inhibit.held()),
        target=device.node,
        target_dev=device.dev,
        target_fstype=device.fstype,
        target_read_only=device.read_only,
        root_dev=root,
        foreign_mounts=namespace("self") != namespace("1"),
        on_rootfs=top is not None and top.fstype in ("rootfs", "ramfs"),
        swap_files=survey.swap_files(os.stat("/").st_dev),  # noqa: PTH116
        root_device=devices.node_of(root),
        mounted_rw=tuple(m.point for m in points if not m.read_only and m.point != "/"),
        not_mounts=tuple(m for m in chosen.carry_mounts if mounts.mount_at(m) is None),
        claimed=claimed,
        held_by=tuple(oldroot.holders(device.dev)) if claimed else (),
        not_loaded=tuple(k for k in chosen.keep if not any(gate.is_among(u, [k]) for u in active)),
        kept_running=running(chosen.keep),
        watchdog_usec=chosen.watchdog_usec,
        **watching(manager, chosen),
        carry_files=chosen.carry_files,
        carry_journal=chosen.carry_journal,
        unread=tuple(unread),
        **values,
    )


def watching(manager: Manager, chosen: Settings) -> dict[str, Any]:
    """What there is to watch over the upgrade; what takes more than a look, only if asked for."""
    found: dict[str, Any] = {"watchdogs": watchdog.devices()}
    if chosen.watchdog_usec:
        found["softdog"] = watchdog.is_loadable()
        found["watchdog_of_pid1"] = manager.get("WatchdogDevice", "s").decode()
    return found


def namespace(process: str) -> str:
    """The mount namespace of a process, as namespaces(7) names it."""
    return os.readlink(f"/proc/{process}/ns/mnt")  # noqa: PTH115


def running(units: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the units that have processes."""
    busy = {reap.unit_of(pid) for pid in reap.processes()} if units else set()
    return tuple(sorted(unit for unit in busy if gate.is_among(unit, units)))


def stage_directory() -> tuple[Path, bool]:
    """The directory for the new root, and whether it was made now; raises IssuError."""
    for stage in STAGES:
        try:
            if stage.is_dir() and not any(stage.iterdir()) and not mounts.mount_at(str(stage)):
                return stage, False
            if not stage.exists():
                stage.mkdir(mode=0o755)
                return stage, True
        except OSError:
            continue  # a read-only root: the next one
    names = " or ".join(map(str, STAGES))
    raise IssuError(f"the new root cannot be mounted at {names}", hint="empty one of them")


def unstage(stage: Path, *, made: bool) -> None:
    """Unmount the new root and remove its directory if it was ours."""
    mounts.unmount_all(stage)
    if made and stage.is_dir() and not any(stage.iterdir()):
        stage.rmdir()


def look(facts: Facts, root: Path, carried: tuple[str, ...] = ()) -> Facts:
    """The facts completed by what the tree mounted at `root` holds; `carried` are mounts."""
    warm.forget()
    name = os_release(root)
    tree = Tree(os=name["os"], version=name["version"])
    if tree.os:
        merged = all((root / name).is_symlink() for name in ("bin", "sbin", "lib"))
        own, wrong = own_settings(root)
        lacks = modules.are_in(Path("/")) and not modules.are_in(root)
        tree = replace(
            tree,
            merged_usr=merged,
            settings_error=wrong,
            sysctl=own.sysctl,
            lacks_modules=lacks,
            no_copy=modules.obstacle(root) if lacks and facts.modules == "bind" else None,
            kernels=modules.kernels(root),
            watchdog=resolve(root, DISARMS).is_file(),
        )
    if tree.os and resolve(root, INIT).is_file():
        machine = elf_machine(resolve(root, INIT))
        tree = replace(tree, init=INIT, machine=machine)
        if machine == facts.machine:
            says, error = first_line(root, [INIT, "--version"])
            tree = replace(tree, init_says=says, init_error=error)
    if tree.init_says:
        tree = replace(tree, issu_says=first_line(root, ISSU_VERSION)[0])
    points = carried
    if tree.init_says and facts.strategy == "live":
        offer = newroot.ask(root)
        facts = replace(facts, stray_mounts=survey.stray_mounts(offer, carried, root))
        points = (*carried, *survey.both_have(offer, root))
    if not tree.os:
        return replace(facts, tree=tree)
    values, unread = read_all(TARGET, root, facts, tree)
    more, rest = read_all(SHARED, root, points, facts)
    tree = replace(tree, **values, **more)
    return replace(facts, tree=tree, unread=(*facts.unread, *unread, *rest))


def is_sound(facts: Facts) -> bool:
    """Whether the target can be asked what it would start."""
    tree = facts.tree
    return bool(tree and tree.init_says and tree.issu_says and not tree.settings_error)


def foresee(
    manager: Manager, facts: Facts, root: Path, chosen: Settings
) -> tuple[Facts, plan.Plan]:
    """The facts completed by what the plan for a sound target says, and the plan; else []."""
    if not is_sound(facts) or not facts.tree:
        return facts, []
    wanted = survey.wanted(chosen, settings.load(root), facts.tree.issu_says)
    try:
        steps = survey.plan_for(manager, root, chosen, wanted, facts.strategy)
    except IssuError as error:
        return replace(facts, no_plan=(str(error), error.hint)), []
    values, unread = read_all(PLANNED, manager, root, steps, facts)
    return replace(facts, unread=(*facts.unread, *unread), **values), steps


def os_release(root: Path) -> dict[str, str]:
    """`os` and `version` of the tree's os-release(5), empty without one."""
    for name in ("etc/os-release", "usr/lib/os-release"):
        try:
            if not resolve(root, name).is_file():
                continue
        except OSError:
            continue
        lines = text(root, name).splitlines()
        pairs = dict(line.split("=", 1) for line in lines if "=" in line)
        plain = {key: value.strip("\"'") for key, value in pairs.items()}
        return {
            "os": plain.get("PRETTY_NAME", plain.get("NAME", "Linux")),
            "version": plain.get("VERSION_ID", plain.get("BUILD_ID", "")),
        }
    return {"os": "", "version": ""}


def own_settings(root: Path) -> tuple[Settings, str]:
    """The tree's own settings, and what is wrong with them: "" if nothing is."""
    try:
        return settings.load(root), ""
    except SettingsError as error:
        return Settings(), str(error)


def first_line(root: Path, argv: list[str]) -> tuple[str, str]:
    """The first line a program of the tree prints, and why there is none."""
    try:
        done = run_inside(root, argv, check=False, timeout=30)
    except IssuError as error:
        return "", str(error)
    if done.returncode != 0:
        return "", (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
    return (done.stdout.splitlines() or [""])[0], ""


def free_bytes(path: Path) -> int:
    """Bytes that root may still write to the file system of `path`."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def free_inodes(path: Path) -> int:
    """How many files root may still make in the file system of `path`."""
    return os.statvfs(path).f_favail


def available_memory() -> int:
    """MemAvailable in bytes, see proc_meminfo(5)."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0
