"""What is mounted where, and mounting. The only reader of mountinfo. See proc_pid_mountinfo(5)."""

from __future__ import annotations

import ctypes
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .errors import IssuError
from .run import run

_OCTAL = re.compile(r"\\([0-7]{3})")


class Mount(NamedTuple):
    """One line of mountinfo; `dev` is st_dev of the file system."""

    dev: int
    root: str
    point: str
    options: frozenset[str]
    fstype: str
    source: str
    read_only: bool


def parse(text: str) -> list[Mount]:
    """The mounts of a mountinfo file, in order."""
    found = []
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        words, tail = left.split(" "), right.split(" ")
        major, _, minor = words[2].partition(":")
        options = frozenset(words[5].split(","))
        found.append(
            Mount(
                dev=os.makedev(int(major), int(minor)),
                root=_plain(words[3]),
                point=_plain(words[4]),
                options=options,
                fstype=tail[0],
                source=_plain(tail[1]),
                read_only="ro" in options or "ro" in tail[2].split(","),
            )
        )
    return found


def _plain(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)


def mounts(process: str = "self") -> list[Mount]:
    """The mounts that a process sees; raises OSError if it is gone."""
    return parse(Path(f"/proc/{process}/mountinfo").read_text(errors="replace"))


def mount_at(point: str) -> Mount | None:
    """The topmost mount exactly at `point`."""
    return next((m for m in reversed(mounts()) if m.point == point), None)


def device_number(point: str) -> int:
    """The number of the block device below a mount; st_dev is another one on btrfs."""
    found = mount_at(point)
    number = os.stat(point).st_dev  # noqa: PTH116
    if os.major(number) or found is None:
        return number
    return block_number(found.source) or number


def on_device(number: int) -> list[Mount]:
    """The mounts of a block device."""
    return [m for m in mounts() if m.dev == number or block_number(m.source) == number]


def block_number(node: str) -> int | None:
    """The device number of a block device's node, None if it is no such thing."""
    try:
        status = os.stat(node)  # noqa: PTH116
    except (OSError, ValueError):
        return None
    return status.st_rdev if stat.S_ISBLK(status.st_mode) else None


def below(point: str) -> Iterator[Mount]:
    """The mounts at and below `point`, deepest first."""
    inside = [m for m in mounts() if m.point == point or m.point.startswith(point + "/")]
    return reversed(inside)


def mount(source: str, point: Path, *, options: str = "rw", fstype: str = "auto") -> None:
    """Mount a device, as mount(8); raises IssuError with its words."""
    run(["mount", "-t", fstype, "-o", options, source, point])


def remount(point: Path, options: str) -> None:
    """Change the options of a mount; raises IssuError."""
    run(["mount", "-o", f"remount,{options}", point])


def bind(source: str, point: Path) -> None:
    """Bind a mount, with all below it, to a second place; raises IssuError.

    A slave, so that to unmount it there leaves the first place alone.
    """
    run(["mount", "--rbind", "--make-rslave", source, point])


def sync(point: Path) -> None:
    """Write the file system that holds `point` to its device, as syncfs(2); raises IssuError."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(point, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.syncfs(fd) != 0:
            raise IssuError(f"{point} cannot be synced: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(fd)


def unmount_all(point: Path) -> None:
    """Unmount everything at and below `point`; a busy mount is detached. Raises IssuError."""
    for found in list(below(str(point))):
        if run(["umount", found.point], check=False).returncode != 0:
            run(["umount", "--lazy", found.point])
    if mount_at(str(point)):
        raise IssuError(f"{point} is still mounted", hint=f"umount -R {point}")
