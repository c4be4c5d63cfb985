"""Paths in the tree of another root, as a process in that root would see them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

MAX_LINKS = 40  # as path_resolution(7)


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
