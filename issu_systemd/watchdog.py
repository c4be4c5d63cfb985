"""The dead man's switch: a watchdog device resets the machine if nothing of ours lives to stop it.

Before the first unit stops the agent opens a device and arms it. Whoever of ours is at work, on
either root, has it open, and a child writes to it meanwhile; the end of every upgrade disarms it,
but that of one whose way back is another upgrade, which goes on with it. When the kernel closes it
for one that has died, it goes on (magic close, watchdog-api.rst), and the next has [switch]
watchdog to open it again. If nobody comes, the boot loader starts the old root.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import select
import signal
import struct
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from . import record
from .errors import IssuError
from .evidence import Watchdog
from .record import Record
from .run import run
from .settings import Settings

log = logging.getLogger(__name__)

CLASS = Path("/sys/class/watchdog")
DEV = Path("/dev")
PID1_FILES = Path("/proc/1/fd")
SOFTDOG = "softdog"
SOFTWARE = "Software Watchdog"  # what softdog calls itself
WAIT_SEC = 5.0  # for a device to appear
POLL_SEC = 0.02
PETS = 10  # in the time of the watchdog: some may come late
ALIVE = "RS"  # states in proc_pid_stat(5): neither stopped, nor dead, nor stuck in the kernel
# linux/watchdog.h; where the numbers of ioctl(2) are asm-generic's, as on x86, Arm and RISC-V
GETSUPPORT, SETTIMEOUT = 0x80285700, 0xC0045706
MAGICCLOSE = 0x0100
MAGIC = b"V"


class Held(NamedTuple):
    """The open device, and the child that writes to it."""

    fd: int
    child: int


_held: dict[str, Held] = {}  # by device; a process has one at most


def devices() -> tuple[Watchdog, ...]:
    """Every watchdog of this machine that has a node, as sysfs tells; none is opened."""
    found = []
    for place in sorted(CLASS.glob("watchdog*")):
        told = {name: text(place / name) for name in ("identity", "state", "nowayout", "timeout")}
        if (DEV / place.name).exists():  # a container sees the host's sysfs
            found.append(Watchdog(
                str(DEV / place.name), told["identity"], told["state"] == "active",
                told["nowayout"] == "1", int(told["timeout"] or 0),
            ))  # fmt: skip
    return tuple(found)


def text(path: Path) -> str:
    """What a file in sysfs says, "" if it is not there."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def choose(found: tuple[Watchdog, ...]) -> Watchdog | None:
    """The one to take: at rest, and such as can be stopped; hardware before softdog."""
    free = [dog for dog in found if not dog.active and not dog.nowayout]
    return min(free, key=lambda dog: dog.identity == SOFTWARE, default=None)


def is_loadable() -> bool:
    """Whether softdog is there for the running kernel, see modprobe(8) --dry-run."""
    try:
        return run(["modprobe", "--dry-run", "--quiet", SOFTDOG], check=False).returncode == 0
    except IssuError:
        return False


def prepare(story: Record, chosen: Settings) -> None:
    """In staging: choose the device, and load softdog if there is no other; raises IssuError.

    Preflight has told why, if there is none even so.
    """
    if not chosen.watchdog_usec:
        return
    dog = choose(devices())
    if dog is None and is_loadable():
        run(["modprobe", SOFTDOG])
        deadline = time.monotonic() + WAIT_SEC
        while (dog := choose(devices())) is None:
            if time.monotonic() > deadline:
                raise IssuError("softdog was loaded, and there is no free watchdog even so",
                                hint="wdctl")  # fmt: skip
            time.sleep(POLL_SEC)
    if dog:
        seconds = -(-chosen.watchdog_usec // 1_000_000)
        story.watchdog = {"device": dog.node, "seconds": seconds, "before": dog.timeout,
                          "armed": False}  # fmt: skip


def arm(story: Record) -> None:
    """From now on the machine is reset if nobody writes to the watchdog; raises IssuError."""
    if not story.watchdog:
        return
    if story.watchdog["armed"]:  # this is the way back: who asked for it ends now that we are ready
        take_over(story)
        return
    story.watchdog["armed"] = True
    record.save(story)  # first: who is killed in between leaves something to disarm
    node, seconds = story.watchdog["device"], story.watchdog["seconds"]
    fd = open_device(node)
    try:
        check(node, fd, seconds)
    except IssuError:
        stop(fd, story.watchdog["before"])
        story.watchdog["armed"] = False
        raise
    _held[node] = Held(fd, tend(fd, seconds))
    log.info("%s is armed: it resets the machine after %d s without us", node, seconds)


def check(node: str, fd: int, seconds: int) -> None:
    """Set the time; raises IssuError unless the device takes it, and goes on when it is closed."""
    try:
        options, *_ = struct.unpack("II32s", fcntl.ioctl(fd, GETSUPPORT, bytes(40)))
        (got,) = struct.unpack("i", fcntl.ioctl(fd, SETTIMEOUT, struct.pack("i", seconds)))
    except OSError as error:
        raise IssuError(f"{node} does not take {seconds} s: {error.strerror}",
                        hint="choose another [switch] watchdog") from error  # fmt: skip
    if not options & MAGICCLOSE:
        raise IssuError(f"{node} stops when it is closed, so it cannot see us through the switch",
                        hint='set [switch] watchdog = "0s"')  # fmt: skip
    if got < seconds:
        raise IssuError(f"{node} takes no more than {got} s", hint="lower [switch] watchdog")


def take_over(story: Record) -> None:
    """Go on with an armed watchdog that a process before this one had; a finding if it is gone.

    That one may take a while to end on a busy machine, and has it written to until then.
    """
    node = story.watchdog.get("device", "")
    if not story.watchdog.get("armed") or node in _held:
        return
    try:
        fd = open_device(node, story.watchdog["seconds"] / 2)
    except IssuError as error:
        log.error("%s", error)
        story.watchdog["armed"] = False  # not by us
        story.find("watchdog-lost", "warn", f"{error}; it was armed for this upgrade",
                   "see who has it: wdctl; has systemd here RuntimeWatchdogSec=?")  # fmt: skip
        return
    _held[node] = Held(fd, tend(fd, story.watchdog["seconds"]))


def open_device(node: str, wait_sec: float = 0.0) -> int:
    """Open a watchdog, which starts it, as soon as the process before us has closed it.

    Raises IssuError; at once if PID 1 has it, which does not let go of it.
    """
    deadline = time.monotonic() + wait_sec
    while True:
        try:
            return os.open(node, os.O_WRONLY | os.O_CLOEXEC)
        except OSError as error:
            late = time.monotonic() > deadline
            if error.errno != errno.EBUSY or late or is_of_pid1(node):
                raise IssuError(f"{node} cannot be opened: {error.strerror}") from error
        time.sleep(POLL_SEC)


def is_of_pid1(node: str) -> bool:
    """Whether PID 1 has a watchdog open, by one of its names: the first of them has two."""
    names = {node, node.removesuffix("0")}
    for place in PID1_FILES.glob("*"):
        with suppress(OSError):
            if str(place.readlink()) in names:
                return True
    return False


def tend(fd: int, seconds: int) -> int:
    """Have a child of this process write to the watchdog; its id.

    pystemd keeps Python's lock while it waits for PID 1: no thread of ours would run, and no
    handler of a signal.
    """
    me = os.getpid()
    watched = os.pidfd_open(me)
    child = os.fork()
    if child == 0:
        try:
            close_all_but(fd, watched)  # the lock of all upgrades, connections to PID 1
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            pet(fd, me, watched, seconds / PETS)
        finally:
            os._exit(0)
    os.close(watched)
    return child


def close_all_but(*spared: int) -> None:
    """Close every other file of this process but the three standard ones."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        if int(name) > 2 and int(name) not in spared:
            with suppress(OSError):
                os.close(int(name))


def pet(fd: int, pid: int, watched: int, every: float) -> None:
    """Write to the watchdog every so many seconds until the process has ended.

    Not while it is stopped or stuck in the kernel: then nobody of ours is at work.
    """
    while not select.select([watched], [], [], every)[0]:
        if state(pid) in ALIVE:
            os.write(fd, b"\0")


def state(pid: int) -> str:
    """What a process does, as proc_pid_stat(5) has it in one letter; X if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return "X"
    return stat.rpartition(")")[2].split()[0]


def disarm(story: Record) -> None:
    """Leave the watchdog as it was found, if it is armed; a finding if that cannot be."""
    take_over(story)
    node = story.watchdog.get("device", "")
    if node not in _held:
        return
    fd, child = _held.pop(node)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)  # it has the device open too
    stop(fd, story.watchdog["before"])
    story.watchdog["armed"] = False
    if text(CLASS / Path(node).name / "state") == "active":
        story.find("watchdog-runs", "warn", f"{node} could not be stopped",
                   f"have it written to, or the machine is reset: wdctl {node}")  # fmt: skip
    log.info("%s is disarmed", node)


def stop(fd: int, seconds: int) -> None:
    """Close a watchdog for good, with its time as it was."""
    try:
        with suppress(OSError):  # some know only one time
            fcntl.ioctl(fd, SETTIMEOUT, struct.pack("i", seconds))
        os.write(fd, MAGIC)
    finally:
        os.close(fd)
