"""The checks of preflight that concern the machine as it runs."""

from __future__ import annotations

from collections.abc import Iterator

from . import room
from .evidence import Facts
from .finding import BLOCK, INFO, WARN, Check, Finding

RUN_MIN_BYTES = room.SIZE + (8 << 20)  # what is kept, and what services take when they start
RUN_MIN_INODES = 1024  # a drop-in a unit, and what the start of the new root makes there
MEMORY_MIN_BYTES = 64 * 1024 * 1024
BATTERY_MIN = 20  # percent
SHUTDOWN = tuple(
    f"{name}.target"
    for name in ("shutdown", "reboot", "poweroff", "halt", "kexec", "soft-reboot", "exit", "final")
)


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


def nothing_else_runs(f: Facts) -> Iterator[Finding]:
    if f.in_progress:
        yield Finding(
            "busy", BLOCK, "another upgrade is in progress",
            "`issu status` shows it; if it is stuck: systemctl restart issu-arrive.service",
        )  # fmt: skip


def nobody_forbids_it(f: Facts) -> Iterator[Finding]:
    for who_and_why in f.inhibitors:
        yield Finding(
            "inhibited", BLOCK, f"upgrades are inhibited by {who_and_why}",
            "wait for its end, or end that process",
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
    free, wanted = f.memory_free >> 20, (MEMORY_MIN_BYTES + f.warm_bytes) >> 20
    if f.memory_free < MEMORY_MIN_BYTES:
        yield Finding(
            "memory", BLOCK,
            f"{free} MiB of memory are available, {MEMORY_MIN_BYTES >> 20} MiB are needed",
            "stop something large",
        )  # fmt: skip
    elif f.memory_free < MEMORY_MIN_BYTES + f.warm_bytes:
        yield Finding(
            "memory", WARN,
            f"{free} MiB of memory are available; {wanted} MiB would hold what the new root reads "
            "when it starts, so the outage grows", "stop something large",
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


def battery_lasts(f: Facts) -> Iterator[Finding]:
    if f.battery is not None and f.battery < BATTERY_MIN:
        yield Finding(
            "battery", WARN, f"the machine runs on a battery at {f.battery} %", "connect mains"
        )


def no_package_manager_runs(f: Facts) -> Iterator[Finding]:
    for holder in (*f.package_managers, *(f.tree.package_managers if f.tree else ())):
        yield Finding(
            "package-manager", BLOCK, f"a package manager is at work: {holder}",
            "wait until it has ended; unattended-upgrades: journalctl -u apt-daily-upgrade",
        )  # fmt: skip


def nobody_blocks_shutdown(f: Facts) -> Iterator[Finding]:
    for who in f.locks:
        yield Finding(
            "inhibitor", BLOCK, f"{who} inhibits a shutdown",
            "wait for it; `systemd-inhibit --list` shows it",
        )  # fmt: skip


def no_job_is_stuck(f: Facts) -> Iterator[Finding]:
    for unit, kind in f.jobs:
        if unit in SHUTDOWN and kind == "start":
            yield Finding(
                "jobs", BLOCK, f"{unit} is being started: the machine goes down",
                "`systemctl cancel` takes it back",
            )  # fmt: skip
        else:
            yield Finding(
                "jobs", WARN, f"the job to {kind} {unit} does not end",
                f"`systemctl list-jobs`; `systemctl cancel`, or mend {unit}",
            )  # fmt: skip


def every_process_has_a_unit(f: Facts) -> Iterator[Finding]:
    becomes = "the upgrade ends it" if f.strategy == "halt" else "it goes on with the old root"
    for process in f.strays:
        yield Finding(
            "stray-process", WARN, f"{process} belongs to no unit; {becomes}",
            "make it a service, or end it",
        )  # fmt: skip


def nobody_pins_the_old_root(f: Facts) -> Iterator[Finding]:
    for process in f.pins:
        yield Finding(
            "namespace-pin", WARN,
            f"{process} stays, and its mount namespace keeps the old root in use",
            "end it before or after the upgrade; `issu status` then says that the old root is free",
        )  # fmt: skip


def all_was_read(f: Facts) -> Iterator[Finding]:
    for what in f.unread:
        yield Finding("not-checked", INFO, f"this could not be looked at: {what}", "")


MACHINE: tuple[Check, ...] = (
    pid1_is_systemd, we_are_root, mechanism_exists, nothing_else_runs, nobody_forbids_it,
    run_has_room, run_has_inodes, memory_is_there, kept_units_are_active, kept_processes_survive,
    battery_lasts, no_package_manager_runs, nobody_blocks_shutdown, no_job_is_stuck,
    every_process_has_a_unit, nobody_pins_the_old_root, all_was_read,
)  # fmt: skip
