"""Paths below a root that is not ours."""

import errno
import os
from pathlib import Path, PurePosixPath

MOST_LINKS = 40  # as in path_resolution(7)


def resolve(root: Path, path: str | Path, *, follow: bool = True) -> Path:
    """Where `path` leads for a process whose root is `root`: absolute links stay inside.

    `follow` is whether the last component is followed if it is a symbolic link. What is
    missing is taken as it is. Raises OSError ELOOP.
    """
    todo = list(PurePosixPath("/", path).parts[:0:-1])
    done: list[str] = []
    links = 0
    while todo:
        part = todo.pop()
        here = root.joinpath(*done, part)
        if part == "..":
            del done[-1:]
        elif here.is_symlink() and (todo or follow):
            links += 1
            if links > MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
            target = PurePosixPath(here.readlink())
            if target.is_absolute():
                done = []
                target = target.relative_to("/")
            todo += reversed(target.parts)
        else:
            done.append(part)
    return root.joinpath(*done)
