"""The evidence that may be missing: how each fact is read. facts.py asks; see evidence.py."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from . import (
    accounts,
    bystanders,
    devices,
    fstab,
    mounts,
    plan,
    stopactions,
    storage,
    targetconf,
    unitset,
    warm,
)
from .evidence import Facts, Tree, systemd_major
from .systemd import Manager, inhibitors

Values = dict[str, Any]

# The running machine.
MACHINE: Mapping[str, Callable[[Manager, devices.Device], Any]] = {
    "systemd": lambda manager, _: systemd_major(manager.version()),
    "default_target": lambda manager, _: manager.default_target(),
    "file_system_state": lambda _, to: storage.file_system_state(to.node, to.fstype),
    "layers": lambda _, to: storage.layers("target", to.dev)
    + storage.layers("root", mounts.device_number("/"))
    + storage.network_root(mounts.mount_at("/")),
    "battery": lambda *_: bystanders.battery(),
    "package_managers": lambda *_: bystanders.package_managers(Path("/")),
    "locks": lambda manager, _: blocking(manager),
    "jobs": lambda manager, _: bystanders.foreign_jobs(manager.jobs()),
    "network_namespaces": lambda *_: bystanders.network_namespaces(),
    "strays": lambda *_: bystanders.strays(),
}
# The mounted target.
TARGET: Mapping[str, Callable[[Path, Facts, Tree], Any]] = {
    "oldest_kernel": lambda root, f, _: targetconf.oldest_kernel(root, f.machine),
    "default_target": lambda root, *_: targetconf.default_target(root),
    "command_line": lambda root, *_: targetconf.command_line(root),
    "policies": lambda root, *_: targetconf.policies(root),
    "crypttab": lambda root, *_: storage.crypttab(root),
    "fstab_missing": lambda root, *_: fstab.missing(fstab.entries(root)),
    "no_room": lambda root, f, tree: storage.no_room(
        root, f.carry_files, journal=f.carry_journal,
        copies=tree.lacks_modules and f.modules == "bind" and tree.no_copy is None,
    ),
    "package_managers": lambda root, *_: bystanders.package_managers(root),
    "faults": lambda root, _, tree: unitset.faults(root) if tree.init_says else (),
}  # fmt: skip
# What goes along at the mount points that both roots share.
SHARED: Mapping[str, Callable[[Path, tuple[str, ...], Facts], Any]] = {
    "fstab_hides": lambda root, points, _: fstab.hiding(fstab.entries(root), points),
    "owners": lambda root, points, f: accounts.clashes(
        Path("/"), root, accounts.owners(f.carry_files, points)
    ),
}
# What the plan makes of the units.
PLANNED: Mapping[str, Callable[[Manager, Path, plan.Plan, Facts], Any]] = {
    "jobs": lambda manager, _root, _plan, f: tuple(
        job for job in bystanders.foreign_jobs(manager.jobs()) if job in f.jobs
    ),
    "pins": lambda _manager, _root, steps, _: bystanders.pins(steps, os.stat("/").st_dev),  # noqa: PTH116
    "lost": lambda manager, root, steps, _: unitset.lost(manager, root, steps),
    "actions": lambda manager, root, steps, _: stopactions.scan(manager, root, steps),
    "warm_bytes": lambda _manager, root, *_: warm.needs(root),
}


def read_all(table: Mapping[str, Callable[..., Any]], *given: object) -> tuple[Values, list[str]]:
    """What each reader of a table says, and a sentence for each that could not.

    The machine and the target may be odd in any way: what cannot be read must not end an upgrade.
    """
    values, unread = Values(), []
    for name, read in table.items():
        try:
            values[name] = read(*given)
        except Exception as error:
            unread.append(f"{name.replace('_', ' ')}: {error or type(error).__name__}")
    return values, unread


def blocking(manager: Manager) -> tuple[str, ...]:
    """Who blocks a shutdown by an inhibitor lock of logind, if that runs: "WHO: WHY"."""
    runs = any(u.name == "systemd-logind.service" and u.active == "active" for u in manager.units())
    locks = inhibitors() if runs else []
    return tuple(
        f"{who} ({why})" for what, who, why, mode in locks
        if mode == "block" and "shutdown" in what.split(":")
    )  # fmt: skip
