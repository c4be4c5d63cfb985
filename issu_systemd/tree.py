"""Paths in the tree of another root, as a process in that root would see them."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

MAX_LINKS = 40  # as path_resolution(7)
MAX_TEXT = 1 << 20  # bytes; no settings file of a system is that long


def resolve(root: Path, path: str) -> Path:
    """Where `path` leads in the tree at `root`; no link and no ".." leads out of the tree.

    What does not exist is taken as it stands. Raises OSError (ELOOP) for a loop of links.
    """
    left, done, links = path.split("/"), root, 0
    while left:
        name = left.pop(0)
        if name == "..":
            done = done.parent if done != root else root
        elif name not in ("", "."):
            done = done / name
            if done.is_symlink():
                links += 1
                if links > MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                link = str(done.readlink())
                left = link.split("/") + left
                done = root if link.startswith("/") else done.parent
    return done


def text(root: Path, path: str, *, limit: int = MAX_TEXT) -> str:
    """The start of a regular file of the tree, at most `limit` bytes; "" if there is none.

    What else may stand there, a FIFO for instance, is not waited for.
    """
    try:
        fd = os.open(resolve(root, path), os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except (OSError, ValueError):
        return ""
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        return ""
    with os.fdopen(fd, "rb") as file:
        try:
            return file.read(limit).decode(errors="replace")
        except OSError:  # a torn disk
            return ""
