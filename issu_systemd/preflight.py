"""Whether an upgrade may begin: a table of small pure checks over Facts.

To add a check, write one function that takes Facts and yields findings, and put it into CHECKS.
Patent [0064]: the new software must stand ready on the other root before the trigger.
"""

from __future__ import annotations

from collections.abc import Iterator

from .evidence import SYSCTL_SINCE, Facts, by_age, version
from .finding import BLOCK, INFO, WARN, Check, Finding
from .preflight_live import LIVE
from .preflight_watchdog import WATCHDOG

# PID 1 refuses to reload with less on /run/systemd (RELOAD_DISK_SPACE_MIN, dbus-manager.c).
RUN_MIN_BYTES = 16 * 1024 * 1024
RUN_MIN_INODES = 1024  # a drop-in a unit, and what the start of the new root makes there
MEMORY_MIN_BYTES = 64 * 1024 * 1024
PACKAGE = "the running kernel's package in the new root"
READ_ONLY_TYPES = ("squashfs", "erofs", "cramfs", "iso9660")


def pid1_is_systemd(f: Facts) -> Iterator[Finding]:
    if f.pid1 != "systemd":
        yield Finding("pid1", BLOCK, f"PID 1 is {f.pid1}, not systemd", "boot with systemd")


def we_are_root(f: Facts) -> Iterator[Finding]:
    if f.uid != 0:
        yield Finding("root", BLOCK, f"user id {f.uid} may not do this", "run it as root")


def mechanism_exists(f: Facts) -> Iterator[Finding]:
    if f.mechanism is None:
        yield Finding(
            "mechanism", BLOCK, "PID 1 offers neither SoftReboot nor SwitchRoot",
            "systemd 252 or newer is needed",
        )  # fmt: skip


def accept_mode_exists(f: Facts) -> Iterator[Finding]:
    if f.accept_mode != "auto":
        yield Finding(
            "accept-mode", BLOCK, f"[accept] mode {f.accept_mode} is not available in this version",
            'set [accept] mode = "auto"',
        )  # fmt: skip


def nothing_else_runs(f: Facts) -> Iterator[Finding]:
    if f.in_progress:
        yield Finding(
            "busy", BLOCK, "another upgrade is in progress",
            "`issu status` shows it; if it is stuck: systemctl restart issu-arrive.service",
        )  # fmt: skip


def run_has_room(f: Facts) -> Iterator[Finding]:
    if f.run_free < RUN_MIN_BYTES:
        yield Finding(
            "run-space", BLOCK,
            f"/run has {f.run_free >> 20} MiB free, {RUN_MIN_BYTES >> 20} MiB are needed",
            "free some: `du -x /run | sort -n`",
        )  # fmt: skip


def run_has_inodes(f: Facts) -> Iterator[Finding]:
    if f.run_inodes < RUN_MIN_INODES:
        yield Finding(
            "run-inodes", BLOCK,
            f"/run has {f.run_inodes} inodes free, {RUN_MIN_INODES} are needed",
            "remove files: `find /run -xdev -type f`",
        )  # fmt: skip


def memory_is_there(f: Facts) -> Iterator[Finding]:
    if f.memory_free < MEMORY_MIN_BYTES:
        yield Finding(
            "memory", BLOCK,
            f"{f.memory_free >> 20} MiB of memory are available, "
            f"{MEMORY_MIN_BYTES >> 20} MiB are needed",
            "stop something large",
        )  # fmt: skip


def target_is_not_root(f: Facts) -> Iterator[Finding]:
    if f.target_dev == f.root_dev:
        yield Finding(
            "running-root", BLOCK, f"{f.target} holds the running root", "name the other root"
        )


def target_has_file_system(f: Facts) -> Iterator[Finding]:
    if not f.target_fstype:
        yield Finding(
            "no-file-system", BLOCK, f"{f.target} holds no file system that blkid knows",
            "write the new root to it, or name its partition (lsblk -f)",
        )  # fmt: skip


def target_is_writable(f: Facts) -> Iterator[Finding]:
    why = "is read-only" if f.target_read_only else f"is {f.target_fstype}, which is read-only"
    if f.target_read_only or f.target_fstype in READ_ONLY_TYPES:
        yield Finding(
            "read-only", BLOCK, f"{f.target} {why}; files must be carried to it",
            f"blockdev --setrw {f.target}, or use another file system",
        )  # fmt: skip


def target_is_not_in_use(f: Facts) -> Iterator[Finding]:
    for point in f.mounted_rw:
        yield Finding(
            "mounted", BLOCK, f"{f.target} is mounted read-write at {point}", f"umount {point}"
        )


def target_is_not_pinned(f: Facts) -> Iterator[Finding]:
    for holder in f.held_by:
        yield Finding("pinned", BLOCK, f"{f.target} is in use by {holder}",
                      "log out and in again, or end that process")  # fmt: skip


def target_is_unclaimed(f: Facts) -> Iterator[Finding]:
    if f.claimed and not f.held_by and not f.mounted_rw and f.target_dev != f.root_dev:
        yield Finding(
            "claimed", BLOCK, f"{f.target} is in use: by LVM, RAID, swap, a container, or one of "
            "its partitions is", f"lsblk {f.target} shows by what",
        )  # fmt: skip


def target_mounts(f: Facts) -> Iterator[Finding]:
    if f.mount_error:
        yield Finding(
            "mount", BLOCK, f"{f.target} does not mount: {f.mount_error}", f"fsck {f.target}"
        )


def target_holds_an_os(f: Facts) -> Iterator[Finding]:
    if f.tree and not f.tree.os:
        yield Finding(
            "no-os", BLOCK, f"{f.target} holds no operating system: no os-release in it",
            "install the new root on it",
        )  # fmt: skip


def target_has_init(f: Facts) -> Iterator[Finding]:
    if f.tree and f.tree.os and not f.tree.init:
        yield Finding(
            "no-init", BLOCK, f"{f.target} has no /usr/lib/systemd/systemd",
            "install systemd and systemd-sysv in the new root",
        )  # fmt: skip


def target_init_is_ours(f: Facts) -> Iterator[Finding]:
    if f.tree and f.tree.init and f.tree.machine != f.machine:
        yield Finding(
            "architecture", BLOCK,
            f"{f.tree.init} in {f.target} is for another machine "
            f"(ELF machine {f.tree.machine}, this one is {f.machine})",
            "build the new root for this architecture",
        )  # fmt: skip


def target_init_runs(f: Facts) -> Iterator[Finding]:
    t = f.tree
    if t and t.init and t.machine == f.machine and not t.init_says.startswith("systemd "):
        yield Finding(
            "init-runs", BLOCK, f"{t.init} in {f.target} does not run: {t.init_error}",
            f"chroot into it and try `{t.init} --version`",
        )  # fmt: skip


def target_is_merged(f: Facts) -> Iterator[Finding]:
    if f.tree and f.tree.os and not f.tree.merged_usr:
        yield Finding(
            "merged-usr", BLOCK, f"/lib or /bin in {f.target} is not a link into /usr",
            "install usrmerge in the new root",
        )  # fmt: skip


def target_has_us(f: Facts) -> Iterator[Finding]:
    if f.tree and f.tree.init_says and not f.tree.issu_says:
        yield Finding(
            "issu-missing", BLOCK, f"issu-systemd is not installed in {f.target}",
            "install its package in the new root",
        )  # fmt: skip


def target_settings_are_right(f: Facts) -> Iterator[Finding]:
    if f.tree and f.tree.settings_error:
        yield Finding(
            "target-settings", BLOCK, f"in {f.target}: {f.tree.settings_error}", "mend the file"
        )


def carried_mounts_are_mounts(f: Facts) -> Iterator[Finding]:
    for point in f.not_mounts:
        yield Finding(
            "carry-mount", BLOCK, f"{point} is to be carried but nothing is mounted there",
            "mount it, or take it out of [carry] mounts",
        )  # fmt: skip


def kept_units_are_active(f: Facts) -> Iterator[Finding]:
    for unit in f.not_loaded:
        yield Finding(
            "keep-inactive", WARN, f"{unit} is to be kept but is not active",
            "start it, or take it out of [release] keep",
        )  # fmt: skip


def kept_processes_survive(f: Facts) -> Iterator[Finding]:
    ends = "this systemd ends them when it switches, and it stays down"
    pins = "they keep the old root in use until they end"
    for unit in f.kept_running:
        yield Finding(
            "keep-running", WARN,
            f"{unit} is kept with its processes: {ends if f.mechanism == 'switch-root' else pins}",
            "keep only units without processes",
        )  # fmt: skip


def target_has_modules(f: Facts) -> Iterator[Finding]:
    if not f.tree or not f.tree.lacks_modules:
        return
    what, install = f"{f.target} holds no modules for the running kernel", f"install {PACKAGE}"
    if f.modules != "bind":
        yield Finding(
            "modules", BLOCK, f"{what}; none that is not loaded yet could be",
            f'set [stage] modules = "bind" to have them copied, or {install}',
        )  # fmt: skip
    elif f.tree.no_copy:
        why, way_out = f.tree.no_copy
        yield Finding("modules", BLOCK, f"{what}; {why}", f"{way_out}, or {install}")
    else:
        yield Finding("modules", INFO, f"{what}; they will be copied to it", "")


def kernel_of_target_waits(f: Facts) -> Iterator[Finding]:
    others = [release for release in f.tree.kernels if release != f.kernel] if f.tree else []
    if others:
        yield Finding(
            "kernel-waits", INFO, f"kernel {max(others, key=by_age)} of the new root waits for "
            f"the next reboot; {f.kernel} runs on", "",
        )  # fmt: skip


def target_knows_sysctl(f: Facts) -> Iterator[Finding]:
    says = f.tree.issu_says if f.tree else ""
    asked = f.sysctl or bool(f.tree and f.tree.sysctl)
    if asked and says and version(says) < SYSCTL_SINCE:
        yield Finding(
            "sysctl", WARN, f"{says} in {f.target} does not know [arrive] sysctl; the kernel's "
            "settings stay as they are", "install a newer issu-systemd there",
        )  # fmt: skip


def root_is_a_device(f: Facts) -> Iterator[Finding]:
    if f.root_device is None:
        yield Finding(
            "no-root-device", INFO,
            "the running root is not on a block device; that it is free afterwards cannot be shown",
            "",
        )  # fmt: skip


CHECKS: tuple[Check, ...] = (
    pid1_is_systemd, we_are_root, mechanism_exists, accept_mode_exists,
    nothing_else_runs, run_has_room, run_has_inodes, memory_is_there, target_is_not_root,
    target_has_file_system, target_is_writable, target_is_not_in_use, target_is_not_pinned,
    target_is_unclaimed, target_mounts, target_holds_an_os, target_has_init, target_init_is_ours,
    target_init_runs, target_is_merged, target_has_us, target_has_modules,
    kernel_of_target_waits, target_knows_sysctl, target_settings_are_right,
    carried_mounts_are_mounts, kept_units_are_active, kept_processes_survive, root_is_a_device,
    *LIVE,
    *WATCHDOG,
)  # fmt: skip


def judge(facts: Facts) -> list[Finding]:
    """Every finding of every check, the blocking ones first."""
    found = [finding for check in CHECKS for finding in check(facts)]
    return sorted(found, key=lambda finding: (BLOCK, WARN, INFO).index(finding.severity))


def blocks(findings: list[Finding]) -> list[Finding]:
    """Those that forbid the upgrade."""
    return [finding for finding in findings if finding.severity == BLOCK]
