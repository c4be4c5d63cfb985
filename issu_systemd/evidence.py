"""What preflight.py judges: the facts of the machine and of the target, as plain values."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

SYSCTL_SINCE = (0, 3)  # [arrive] sysctl came with it
ACCEPT_SINCE = (0, 4)  # manual acceptance and the way back


class Layer(NamedTuple):
    """What lies below a root: `of` is "target" or "root"."""

    of: str
    kind: str  # LUKS, LVM, MD, MD with mdmon, multipath, device mapper, network
    name: str


class Owner(NamedTuple):
    """A user or group that owns something carried and has another number in the target."""

    kind: str
    name: str
    here: int
    there: int | None  # None if there is none of that name
    path: str


class Policy(NamedTuple):
    """A security module, and how the target differs from what is in force."""

    name: str
    differs: str


class Action(NamedTuple):
    """A command of a unit that breaks forwarding."""

    unit: str
    command: str
    culprit: str  # the line of a script that it names, "" if it is the command itself
    starts: bool  # of the new root's start, else of the old one's stop


class Watchdog(NamedTuple):
    """A watchdog device; `timeout` is in seconds."""

    node: str
    identity: str = ""
    active: bool = False  # somebody has it, or has left it running
    nowayout: bool = False  # once started it cannot be stopped
    timeout: int = 0


@dataclass(frozen=True)
class Tree:
    """What was found in the mounted target."""

    os: str = ""  # PRETTY_NAME of os-release, "" without one
    version: str = ""
    init: str = ""  # PID 1's program, "" when there is none
    init_says: str = ""  # first line of `systemd --version` run inside, "" if it did not run
    init_error: str = ""
    machine: int = 0  # ELF e_machine of init
    merged_usr: bool = True
    issu_says: str = ""  # `issu --version` run inside
    settings_error: str = ""
    lacks_modules: bool = False  # for the running kernel, which the running root has
    no_copy: tuple[str, str] | None = None  # why they cannot be copied there, and the way out
    kernels: tuple[str, ...] = ()  # the releases that it has modules for
    sysctl: bool = False  # [arrive] sysctl of its own settings
    oldest_kernel: tuple[int, ...] = ()  # that its libc runs on, () if unknown
    default_target: str = "graphical.target"  # "" if it leads nowhere
    command_line: tuple[str, ...] = ()  # what its boot configuration wants otherwise: "+a", "-b"
    policies: tuple[Policy, ...] = ()
    crypttab: tuple[str, ...] = ()  # the names in it
    fstab_missing: tuple[tuple[str, str], ...] = ()  # device that is not there, mount point
    fstab_hides: tuple[tuple[str, str], ...] = ()  # mount point, the carried mount below it
    no_room: str = ""  # why what is carried does not fit
    package_managers: tuple[str, ...] = ()  # that hold a lock in it
    owners: tuple[Owner, ...] = ()
    faults: tuple[tuple[str, str], ...] = ()  # unit, why it cannot start
    watchdog: bool = False  # its issu-systemd disarms a watchdog


@dataclass(frozen=True)
class Facts:
    """Everything the checks look at. Sizes are bytes; devices are st_dev numbers."""

    pid1: str = "systemd"
    uid: int = 0
    mechanism: str | None = "soft-reboot"
    strategy: str = "halt"
    accept_mode: str = "auto"
    machine: int = 62
    kernel: str = ""  # release of the running one, as uname(2) names it
    modules: str = "require"  # [stage] modules
    sysctl: bool = False  # [arrive] sysctl
    run_free: int = 1 << 30
    run_inodes: int = 1 << 20  # files that may still be made there
    memory_free: int = 1 << 30
    in_progress: bool = False
    inhibitors: tuple[str, ...] = ()  # who forbids upgrades, and why
    target: str = ""
    target_dev: int = 0
    target_fstype: str = "ext4"
    target_read_only: bool = False
    root_dev: int = 0
    root_device: str | None = None
    mounted_rw: tuple[str, ...] = ()  # where the target is mounted read-write already
    claimed: bool = False  # somebody we do not see has it: LVM, RAID, swap, another namespace
    held_by: tuple[str, ...] = ()  # processes that an earlier upgrade left on the target
    mount_error: str = ""
    verity: str = ""  # why the target is not what [stage] verity says
    verify_command: str = ""  # why the site's own program is not content with it
    carry_files: tuple[str, ...] = ()  # patterns
    carry_journal: bool = True
    not_mounts: tuple[str, ...] = ()  # carried mounts that are none
    not_loaded: tuple[str, ...] = ()  # kept units that are not active
    kept_running: tuple[str, ...] = ()  # kept units that have processes
    foreign_mounts: bool = False  # not in PID 1's mount namespace
    on_rootfs: bool = False  # the running root is the initramfs
    swap_files: tuple[str, ...] = ()  # on the running root
    stray_mounts: tuple[str, ...] = ()  # live: neither carried nor mounted by the new root
    systemd: int = 0  # major version of PID 1, 0 if unknown
    default_target: str = "graphical.target"
    file_system_state: str = ""  # what the target's superblock says is wrong
    layers: tuple[Layer, ...] = ()
    warm_bytes: int = 0  # that staging would read into memory
    battery: int | None = None  # percent while it discharges
    package_managers: tuple[str, ...] = ()  # that hold a lock in the running root
    locks: tuple[str, ...] = ()  # of logind: who blocks a shutdown, and why
    jobs: tuple[tuple[str, str], ...] = ()  # unit and kind, other than our own
    network_namespaces: tuple[str, ...] = ()  # that have a name
    strays: tuple[str, ...] = ()  # processes outside any unit
    pins: tuple[str, ...] = ()  # processes of kept units that have the old root mounted apart
    lost: tuple[tuple[str, str], ...] = ()  # unit enabled here, what the target does with it
    actions: tuple[Action, ...] = ()
    no_plan: tuple[str, str] | None = None  # why the start cannot be foreseen, and the way out
    unread: tuple[str, ...] = ()  # what could not be read, and why
    watchdog_usec: int = 0  # [switch] watchdog
    watchdogs: tuple[Watchdog, ...] = ()
    watchdog_of_pid1: str = ""  # the one that PID 1 has open
    softdog: bool = False  # could be loaded
    tree: Tree | None = None  # None while the target is not mounted


def systemd_major(says: str) -> int:
    """The major version in "systemd 257 (257.13-1)" or "252.39-1~deb12u1"; 0 if there is none."""
    found = re.match(r"(?:systemd )?(\d{1,6})", says)
    return int(found[1]) if found else 0


def version(says: str) -> tuple[int, ...]:
    """The numbers in what `issu --version` says."""
    found = re.match(r"\d+(\.\d+)*", (says.split() or [""])[-1])
    return tuple(map(int, found[0].split("."))) if found else ()


def by_age(release: str) -> list[str | int]:
    """A key that sorts kernel releases, the newest last: numbers as such, rc before the release."""
    plain = re.sub(r"[-~]rc", "\0", release) + "\1"
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", plain)]
