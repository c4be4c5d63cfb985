"""Is the old root gone, and if not, who holds it? Proof for patent operation 314.

Free means: no process has it in its mountinfo and open(2) with O_EXCL succeeds on its device, which
the kernel allows only while nobody has it mounted or otherwise claimed.
"""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

from . import reap

PROC = Path("/proc")
POLL_SEC = 0.01  # the kernel tells nobody when a detached file system lets go of its device
WAIT_SEC = 2.0


def is_free(node: str) -> bool:
    """Whether the device can be opened exclusively; raises OSError if it is not there."""
    try:
        os.close(os.open(node, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        if error.errno == errno.EBUSY:
            return False
        raise
    return True


def wait_free(node: str, *, wait_sec: float = WAIT_SEC) -> bool:
    """Give a lazily detached file system time to end; whether the device is free then."""
    deadline = time.monotonic() + wait_sec
    while not is_free(node):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SEC)
    return True


def mounted_by(dev: int) -> list[int]:
    """The processes whose mountinfo names the file system with this st_dev."""
    mark = f" {os.major(dev)}:{os.minor(dev)} "
    found = []
    for pid in pids():
        try:
            text = (PROC / str(pid) / "mountinfo").read_text(errors="replace")
        except OSError:
            continue
        if mark in text:
            found.append(pid)
    return found


def holders(dev: int) -> list[str]:
    """Who pins the file system with this st_dev, and by what: "NAME[PID] of UNIT (WHAT)"."""
    found = []
    for pid, held in holding(dev).items():
        unit = reap.unit_of(pid)
        of = f" of {unit}" if unit else ""
        found.append(f"{name_of(pid)}[{pid}]{of} ({', '.join(dict.fromkeys(held))})")
    return found


def standing_on(dev: int) -> list[int]:
    """The processes, but for PID 1 and this one, that pin the file system with this st_dev."""
    return [pid for pid in holding(dev) if pid not in (1, os.getpid())]


def holding(dev: int) -> dict[int, list[str]]:
    """What each process that pins the file system with this st_dev holds of it."""
    found = {}
    mounted = set(mounted_by(dev))
    for pid in pids():
        held = ["a mount"] if pid in mounted else []
        held += [what for what, path in links(pid) if device_of(path) == dev]
        if held:
            found[pid] = held
    return found


def pids() -> list[int]:
    """Every process."""
    return [int(path.name) for path in PROC.iterdir() if path.name.isdigit()]


def links(pid: int) -> list[tuple[str, Path]]:
    """What a process may hold files by: program, directories, open files, mapped files."""
    base = PROC / str(pid)
    found = [("its program", base / "exe"), ("its directory", base / "cwd"),
             ("its root", base / "root")]  # fmt: skip
    for kind, place in (("an open file", "fd"), ("a mapped file", "map_files")):
        try:
            found += [(kind, path) for path in (base / place).iterdir()]
        except OSError:
            continue
    return found


def device_of(path: Path) -> int | None:
    """st_dev of what a link of /proc leads to."""
    try:
        return path.stat().st_dev
    except OSError:
        return None


def name_of(pid: int) -> str:
    """The program's name."""
    try:
        return (PROC / str(pid) / "comm").read_text().strip()
    except OSError:
        return "?"
