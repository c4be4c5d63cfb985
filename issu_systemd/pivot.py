"""Change the root below the running processes: strategy live. See pivot_root(2).

The new root is mounted at a place in the old one; after the swap the old root is mounted at the
same place in the new one, so the swap is its own inverse. What must be seen in both roots is bound
into the other before, and taken out of the old one after: so the only instant that touches anybody
is one system call, and a process killed at any point leaves one whole root or the other.

The caller must be in PID 1's mount namespace. Patent: operations 414 and 415.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from . import mounts, record
from .errors import IssuError

KERNEL = ("/proc", "/sys", "/dev", "/run")  # patent [0056]


def prepare(place: Path, points: Iterable[str]) -> bool:
    """Bind each mount, with all below it, into the root at `place`. Inverse: `mounts.strip`.

    Returns whether the directory was made there that the old root will be mounted at.
    Raises IssuError naming the mount; what was bound by then is left for that.
    """
    bound = {mount.point for mount in mounts.below(str(place))}
    for point in mounts.tops(points):
        inside = place / point.lstrip("/")
        if str(inside) in bound:
            continue
        if inside.is_symlink():
            raise IssuError(f"{point} is a link in the other root, nothing can be mounted there")
        inside.mkdir(parents=True, exist_ok=True)
        mounts.bind_peer(point, inside)
    hold = place / place.relative_to("/")
    made = not hold.is_dir()
    hold.mkdir(exist_ok=True)
    return made


def swap(place: Path) -> int:
    """Make the root at `place` the root of every process; the microseconds that this took.

    Every process whose root or working directory was the old root's / stands on the new one then,
    PID 1 included. Raises IssuError with the step and its errno, nothing being changed then.
    """
    top = mounts.mount_at("/")
    shared = top is not None and top.shared
    # The kernel changes no roots between which mounts are passed on.
    mounts.change(None, Path("/"), mounts.PRIVATE)
    try:
        mounts.change(None, place, mounts.PRIVATE)
        begin = record.now_usec()
        mounts.pivot_root(place, place / place.relative_to("/"))
        took = record.now_usec() - begin
        os.chdir("/")
        # As systemd has it, but for a soft-reboot in a container (mount_setup() in mount-setup.c).
        # What is unmounted then goes away in the mount namespaces of services too.
        shared = True
    finally:
        if shared:
            mounts.change(None, Path("/"), mounts.SHARED)
    return took


def drop(place: Path, *, made: bool) -> None:
    """Unmount the root at `place`, in every mount namespace that sees ours; raises IssuError."""
    mounts.strip(place)
    if mounts.mount_at(str(place)):
        mounts.detach(str(place))
    if made and place.is_dir() and not any(place.iterdir()):
        place.rmdir()
