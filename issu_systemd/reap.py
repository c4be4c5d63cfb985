"""End every process that PID 1's stop jobs left: sessions, strays, scopes. Patent: operation 410.

Spared are PID 1, kernel threads, this process, and the processes of kept units.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")
_KERNEL_THREAD = 0x00200000  # PF_KTHREAD, field 9 of proc_pid_stat(5)


def processes() -> list[int]:
    """Every process but PID 1, this one and kernel threads."""
    spared = (1, os.getpid())
    pids = (int(path.name) for path in PROC.iterdir() if path.name.isdigit())
    return [pid for pid in pids if pid not in spared and not is_kernel_thread(pid)]


def is_kernel_thread(pid: int) -> bool:
    """Whether the process has no user space: a thread of the kernel, or one that has ended."""
    try:
        stat = (PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return True
    fields = stat.rpartition(")")[2].split()
    return fields[0] in "ZX" or bool(int(fields[6]) & _KERNEL_THREAD)


def unit_of(pid: int) -> str:
    """The unit or scope that a process belongs to, by its cgroup; "" if none or gone."""
    try:
        lines = (PROC / str(pid) / "cgroup").read_text().splitlines()
    except OSError:
        return ""
    ours = [line for line in lines if line.startswith("0::") or ":name=systemd:" in line]
    parts = [part for line in ours for part in line.split(":", 2)[2].split("/")]
    units = [p for p in parts if p.endswith((".service", ".scope", ".socket", ".mount"))]
    return units[0] if units else ""


def name_of(pid: int) -> str:
    """The program's name, "" if it is gone."""
    try:
        return (PROC / str(pid) / "comm").read_text().strip()
    except OSError:
        return ""


def reap(spare: Callable[[str], bool], *, grace_sec: float) -> list[str]:
    """SIGTERM, then after `grace_sec` SIGKILL, until none is left; the names of those killed hard.

    `spare` is asked with the unit of a process. A process that even SIGKILL does not end is named
    too: the caller sees it among the holders of the old root.
    """
    hard: list[str] = []
    for sign, grace in ((signal.SIGTERM, grace_sec), (signal.SIGKILL, grace_sec)):
        left = [pid for pid in processes() if not spare(unit_of(pid))]
        if not left:
            break
        if sign is signal.SIGKILL:
            hard = [f"{name_of(pid)}[{pid}] of {unit_of(pid) or 'no unit'}" for pid in left]
        signal_and_wait(left, sign, grace)
    return hard


def signal_and_wait(pids: list[int], sign: signal.Signals, grace_sec: float) -> None:
    """Send a signal to all, then wait until all are gone or the time is over."""
    poll = select.poll()
    fds: set[int] = set()
    for pid in pids:
        with suppress(ProcessLookupError):
            fd = os.pidfd_open(pid)
            fds.add(fd)
            poll.register(fd, select.POLLIN)
            signal.pidfd_send_signal(fd, sign)
    deadline = time.monotonic() + grace_sec
    while fds and (left := deadline - time.monotonic()) > 0:
        for fd, _ in poll.poll(left * 1000):
            poll.unregister(fd)
            os.close(fd)
            fds.discard(fd)
    for fd in fds:
        os.close(fd)
