"""What is mounted where, and mounting. The only reader of mountinfo. See proc_pid_mountinfo(5)."""

from __future__ import annotations

import ctypes
import errno
import mmap  # not only where it is used: the disk may be gone by then
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

from .errors import IssuError
from .run import run

# mount(2), umount(2), unshare(2)
BIND, RECURSIVE, PRIVATE, SHARED = 0x1000, 0x4000, 0x40000, 0x100000
MNT_DETACH = 2
CLONE_NEWNS = 0x20000
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
    shared: bool = False  # it passes mounts on to its peers, see mount_namespaces(7)
    id: int = 0
    parent: int = 0  # the id of the mount that it lies on


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
                shared=any(word.startswith("shared:") for word in words[6:]),
                id=int(words[0]),
                parent=int(words[1]),
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


def bind_peer(source: str, point: Path) -> None:
    """Bind a mount, with all below it, so that either place sees what is mounted at the other."""
    change(source, point, BIND | RECURSIVE)


def change(source: str | None, point: Path, flags: int) -> None:
    """mount(2) without a file system; raises IssuError naming the step and the errno."""
    what = source.encode() if source else None
    if _libc().mount(what, os.fsencode(point), None, ctypes.c_ulong(flags), None) != 0:
        raise _failed(f"mount({source or 'none'}, {point}, {flags:#x})")


def detach(point: str) -> None:
    """umount2(2) with MNT_DETACH: the mount is gone from sight at once; raises IssuError."""
    if _libc().umount2(os.fsencode(point), MNT_DETACH) != 0:
        raise _failed(f"umount2({point})")


def pivot_root(new: Path, old: Path) -> None:
    """pivot_root(2): `new` becomes /, the old root is mounted at `old`; raises IssuError."""
    if _libc().pivot_root(os.fsencode(new), os.fsencode(old)) != 0:
        raise _failed(f"pivot_root({new}, {old})")


def apart() -> None:
    """Go on in a mount namespace of one's own, which ends with the process; raises IssuError."""
    if _libc().unshare(CLONE_NEWNS) != 0:
        raise _failed("unshare(CLONE_NEWNS)")
    change(None, Path("/"), PRIVATE | RECURSIVE)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _failed(step: str) -> IssuError:
    code = ctypes.get_errno()
    return IssuError(f"{step}: {os.strerror(code)} ({errno.errorcode.get(code, code)})")


def sync(point: Path) -> None:
    """Write the file system that holds `point` to its device, as syncfs(2); raises IssuError."""
    fd = os.open(point, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc().syncfs(fd) != 0:
            raise _failed(f"syncfs({point})")
    finally:
        os.close(fd)


def read_device(node: str) -> None:
    """Read the start of a block device past the page cache, see open(2); raises OSError."""
    fd = os.open(node, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    try:
        with mmap.mmap(-1, mmap.PAGESIZE) as page:
            os.preadv(fd, [page], 0)
    finally:
        os.close(fd)


def tops(points: Iterable[str]) -> list[str]:
    """Those of the mount points that lie below no other."""
    known = {*points}
    return sorted(p for p in known if not any(p.startswith(f"{other}/") for other in known))


def strip(point: Path) -> None:
    """Detach everything that is mounted below `point`, and only there; raises IssuError.

    One call for each tree; a mount that another one hides is named only when that one is gone.
    """
    top = mount_at(str(point))
    if top is None:
        return
    change(None, point, PRIVATE | RECURSIVE)  # or it would go from where it was bound from too
    left: list[Mount] = []
    while (found := [mount for mount in mounts() if mount.parent == top.id]) != left:
        left = found
        for mount in found:
            with suppress(IssuError):
                detach(mount.point)
    if left:
        detach(left[0].point)


def unmount_all(point: Path) -> None:
    """Unmount everything at and below `point`; a busy mount is detached. Raises IssuError.

    What is bound there from elsewhere stays mounted elsewhere.
    """
    strip(point)
    while mount_at(str(point)):
        if run(["umount", point], check=False).returncode != 0:
            detach(str(point))
