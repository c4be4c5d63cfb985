"""What preflight.py judges: the facts of the machine and of the target, as plain values."""

from __future__ import annotations

from dataclasses import dataclass


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


@dataclass(frozen=True)
class Facts:
    """Everything the checks look at. Sizes are bytes; devices are st_dev numbers."""

    pid1: str = "systemd"
    uid: int = 0
    mechanism: str | None = "soft-reboot"
    strategy: str = "halt"
    accept_mode: str = "auto"
    machine: int = 62
    run_free: int = 1 << 30
    run_inodes: int = 1 << 20  # files that may still be made there
    memory_free: int = 1 << 30
    in_progress: bool = False
    target: str = ""
    target_dev: int = 0
    target_fstype: str = "ext4"
    target_read_only: bool = False
    root_dev: int = 0
    root_device: str | None = None
    mounted_rw: tuple[str, ...] = ()  # where the target is mounted read-write already
    claimed: bool = False  # somebody we do not see has it: LVM, RAID, swap, another namespace
    mount_error: str = ""
    not_mounts: tuple[str, ...] = ()  # carried mounts that are none
    not_loaded: tuple[str, ...] = ()  # kept units that are not active
    kept_running: tuple[str, ...] = ()  # kept units that have processes
    tree: Tree | None = None  # None while the target is not mounted
