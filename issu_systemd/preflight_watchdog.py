"""Checks for [switch] watchdog: which device will watch, or why none can."""

from __future__ import annotations

from collections.abc import Iterator

from .evidence import Facts
from .finding import BLOCK, INFO, WARN, Check, Finding
from .watchdog import SOFTWARE, choose

OFF = 'set [switch] watchdog = "0s"'


def a_watchdog_is_idle(f: Facts) -> Iterator[Finding]:
    dog = choose(f.watchdogs)
    if dog and dog.identity != SOFTWARE and not f.watchdog_usec:
        yield Finding(
            "watchdog-idle", INFO, f"{dog.node} ({dog.identity}) could reset the machine if the "
            "new root hangs; now nobody does", 'set [switch] watchdog = "60s"',
        )  # fmt: skip


def a_watchdog_is_there(f: Facts) -> Iterator[Finding]:
    if not f.watchdog_usec:
        return
    own, dog = f.watchdog_of_pid1, choose(f.watchdogs)
    told = f"PID 1 has {own} for itself and closes it while it changes roots"
    if dog or f.softdog:
        if own:
            yield Finding("watchdog", INFO, f"{told}; {dog.node if dog else 'softdog'} watches", "")
    elif own:
        yield Finding(
            "watchdog", WARN, f"{told}; there is no other. It resets a machine whose PID 1 hangs, "
            "but not one whose new root does not come up",
            f"make softdog available, or {OFF}",
        )  # fmt: skip
    else:
        busy = ", ".join(
            f"{d.node} {'is in use' if d.active else 'cannot be stopped (nowayout)'}"
            for d in f.watchdogs
        )
        yield Finding(
            "watchdog", BLOCK, "[switch] watchdog is set and there is none to take: "
            f"{busy or 'no device'}, and softdog is not there for kernel {f.kernel}",
            f"free one, install the kernel's modules and kmod, or {OFF}",
        )  # fmt: skip


def target_knows_watchdog(f: Facts) -> Iterator[Finding]:
    if f.watchdog_usec and f.tree and f.tree.issu_says and not f.tree.watchdog:
        yield Finding(
            "watchdog-target", BLOCK, f"{f.tree.issu_says} in {f.target} does not know [switch] "
            "watchdog; nobody there would disarm it",
            f"install a newer issu-systemd there, or {OFF}",
        )  # fmt: skip


WATCHDOG: tuple[Check, ...] = (a_watchdog_is_idle, a_watchdog_is_there, target_knows_watchdog)
