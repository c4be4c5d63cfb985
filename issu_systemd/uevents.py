"""Every uevent of an upgrade, on one socket that is never closed: what became of the devices.

issu-watch.service runs this program twice. Before the first unit stops it opens a netlink socket
and leaves it to PID 1 in the unit's file descriptor store (systemd.service(5)
FileDescriptorStoreMax=), which crosses the change of roots. When all is over the unit is restarted,
gets the socket back and reads what the kernel has queued. So there is no moment at which nobody
listens, and nothing of ours runs meanwhile. pyudev opens its sockets itself and cannot take one.
Source of the format: kobject-uevent in the kernel, udev(7).
"""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import stat
import sys
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from . import record
from .errors import IssuError
from .record import Record
from .run import run
from .systemd import Manager

UNIT = "issu-watch.service"
DEVICES = record.DIRECTORY / "devices"  # those that were there before, a path in /sys each
FOUND = record.DIRECTORY / "uevents.json"
NAME = "uevents"
KOBJECT_UEVENT = 15  # netlink(7); not in Python's socket module
KERNEL_GROUP = 1  # udev's own is 2
QUEUE_BYTES = 32 << 20  # some ten thousand events
LARGEST = 8192  # bytes of one event
FIRST_FD = 3  # sd_listen_fds(3)
FORBIDDEN = ("add", "remove", "bind", "unbind")
OF_MOUNTS = ("bdi",)  # come and go with the mount of a file system
# Subsystems whose devices, and what is told of them, are seen in their own network namespace only.
OF_NETWORKS = ("net", "ieee80211")
WAIT_SEC = 60.0  # a machine whose services all start at once is slow
SO_RCVBUFFORCE = 33  # socket(7); nor is this


class Uevent(NamedTuple):
    """What the kernel says of one device."""

    action: str
    device: str  # path below /sys
    subsystem: str


def parse(message: bytes) -> Uevent | None:
    """One message of the kernel: "action@device", then KEY=VALUE, ended by NUL each."""
    head, *rest = message.decode(errors="replace").split("\0")
    action, at, device = head.partition("@")
    keys = dict(word.partition("=")[::2] for word in rest)
    return Uevent(action, device, keys.get("SUBSYSTEM", "")) if at else None


def forbidden(events: Iterable[Uevent], before: set[str]) -> Iterator[Uevent]:
    """Those that tell that a device which was there before was taken away or made again."""
    for event in events:
        if event.action not in FORBIDDEN or event.subsystem in OF_MOUNTS:
            continue
        if event.device in before:
            yield event


def devices(sysroot: Path = Path("/sys")) -> list[str]:
    """The path below /sys of every device and module there is."""
    tops = (sysroot / "devices", sysroot / "module")
    found = [os.path.relpath(p, sysroot) for t in tops for p, _, f in os.walk(t) if "uevent" in f]
    return sorted(f"/{path}" for path in found)


class Number(NamedTuple):
    """A device number, as the file `dev` in sysfs has it."""

    block: bool
    number: str


def of_container(
    everything: Iterable[str], nodes: Collection[Number], sysroot: Path = Path("/sys")
) -> list[str]:
    """The devices that a container can have to do with: the kernel shows and tells it all of them.

    They have a node in its /dev, or are of its network namespace, or one of these hangs on them.
    Looked for beforehand, for a node may stay when its device goes. Modules are the host's.
    """
    own = {d for d in everything if belongs(sysroot / d.lstrip("/"), nodes)}
    above = {str(place) for device in own for place in PurePosixPath(device).parents}
    return [device for device in everything if device in own | above]


def belongs(place: Path, nodes: Collection[Number]) -> bool:
    """Whether a device has a node among these, or is seen by its network namespace alone."""
    try:
        subsystem = (place / "subsystem").readlink().name
        if subsystem in OF_NETWORKS:
            return True
        return Number(subsystem == "block", (place / "dev").read_text().strip()) in nodes
    except OSError:  # it has none, or has gone
        return False


def nodes_below(top: Path) -> set[Number]:
    """The device numbers of all the nodes in a directory."""
    found = set()
    for place, _, names in os.walk(top):
        for name in names:
            with suppress(OSError):  # it has gone
                status = Path(place, name).lstat()
                if (block := stat.S_ISBLK(status.st_mode)) or stat.S_ISCHR(status.st_mode):
                    major, minor = os.major(status.st_rdev), os.minor(status.st_rdev)
                    found.add(Number(block, f"{major}:{minor}"))
    return found


def in_container() -> bool:
    """As systemd-detect-virt(1) knows; without it every device counts."""
    try:
        asked = run(["systemd-detect-virt", "--quiet", "--container"], check=False)
    except IssuError:
        return False
    return asked.returncode == 0


def watched() -> list[str]:
    """The devices of which nothing may be heard that is forbidden."""
    everything = devices()
    return of_container(everything, nodes_below(Path("/dev"))) if in_container() else everything


def open_socket() -> socket.socket:
    """A socket on which the kernel queues every uevent from now on; raises OSError."""
    watch = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, KOBJECT_UEVENT)
    watch.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, QUEUE_BYTES)
    watch.bind((0, KERNEL_GROUP))
    return watch


def leave_to_pid1(watch: socket.socket) -> None:
    """Put the socket into our unit's store, and wait until PID 1 has it (sd_notify(3))."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.connect(re.sub("^@", "\0", os.environ["NOTIFY_SOCKET"]))
        words = f"FDSTORE=1\nFDNAME={NAME}\nFDPOLL=0"  # an overflow must not close it
        socket.send_fds(notify, [words.encode()], [watch.fileno()])
        ours, theirs = os.pipe()
        socket.send_fds(notify, [b"BARRIER=1"], [theirs])
        os.close(theirs)
        os.read(ours, 1)  # ends when PID 1 has closed its end
        os.close(ours)


def drain(watch: socket.socket) -> tuple[list[Uevent], bool]:
    """The events that are queued, and whether some were lost because there were too many.

    Raises OSError.
    """
    events, lost = list[Uevent](), False
    watch.setblocking(False)
    while True:
        try:
            event = parse(watch.recv(LARGEST))
        except BlockingIOError:
            return events, lost
        except OSError as error:
            if error.errno != errno.ENOBUFS:  # netlink(7)
                raise
            lost = True
        else:
            events += [event] if event else []


def main() -> int:
    """ExecStart= of issu-watch.service: the first time leave the socket, then read it."""
    if os.environ.get("LISTEN_FDNAMES") != NAME:
        record.write_atomically(DEVICES, "".join(f"{device}\n" for device in watched()))
        leave_to_pid1(open_socket())
        return 0
    events, lost = drain(socket.socket(fileno=FIRST_FD))
    before = set(DEVICES.read_text().splitlines())
    found = [event._asdict() for event in forbidden(events, before)]
    document = {"devices": len(before), "seen": len(events), "lost": lost, "forbidden": found}
    record.write_atomically(FOUND, json.dumps(document) + "\n")
    return 0


def begin(manager: Manager) -> None:
    """Listen from now on; raises IssuError if that cannot be."""
    deadline = time.monotonic() + WAIT_SEC
    manager.wait_job(manager.stop(UNIT), deadline)  # with the socket of one that was cut off
    if manager.wait_job(manager.start(UNIT), deadline) != "done":
        raise IssuError(f"{UNIT} did not start", hint=f"journalctl -u {UNIT}")


def collect(manager: Manager, story: Record) -> dict[str, Any] | None:
    """What was seen since `begin`, a finding for each forbidden event; None if nobody listened."""
    if not DEVICES.exists():
        return None
    deadline = time.monotonic() + WAIT_SEC
    try:
        manager.wait_job(manager.restart(UNIT), deadline)
        document: dict[str, Any] = json.loads(FOUND.read_text())
    except (IssuError, OSError, ValueError) as error:
        story.find("uevents", "warn", f"what became of the devices was not seen: {error}",
                   f"journalctl -u {UNIT}")  # fmt: skip
        return None
    finally:
        with suppress(IssuError):  # what is late would fail without its files, and stay failed
            manager.wait_job(manager.stop(UNIT), time.monotonic() + WAIT_SEC)
            manager.call("ResetFailedUnit", "s", UNIT)
        for path in (DEVICES, FOUND):
            path.unlink(missing_ok=True)
    if document["lost"]:
        story.find("uevents", "warn", "there were more uevents than the kernel could queue",
                   "see the kernel's log for what became of the devices")  # fmt: skip
    for action, device, subsystem in map(dict.values, document["forbidden"]):
        story.find("uevent", "warn", f"{action} of {device} ({subsystem}) during the upgrade",
                   "find the unit that did it, for [release] keep or [arrive] skip")  # fmt: skip
    return document


if __name__ == "__main__":
    sys.exit(main())
