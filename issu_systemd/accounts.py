"""Users and groups that own what is carried, and what their numbers mean in the target.

Files go along with the numbers of their owners; passwd(5) and group(5) of each root say whose
numbers those are.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from .evidence import Owner
from .tree import text

MAX_FILES = 20_000  # looked at, in all
MAX_OWNERS = 20
FILES = {"user": "etc/passwd", "group": "etc/group"}


def numbers(root: Path, kind: str) -> dict[str, int]:
    """The numbers of the tree's users or groups by name; the first of two counts."""
    found: dict[str, int] = {}
    for line in text(root, FILES[kind]).splitlines():
        fields = line.split(":")
        if len(fields) > 2 and fields[2].isdecimal() and fields[2].isascii():
            found.setdefault(fields[0], int(fields[2][:10]))
    return found


def owners(patterns: Iterable[str], points: Iterable[str]) -> dict[tuple[str, int], str]:
    """Kind and number of each owner of carried files and mounts, with one path that it owns."""
    found: dict[tuple[str, int], str] = {}
    tops = [path for pattern in patterns for path in glob.glob(pattern)]  # noqa: PTH207
    left = MAX_FILES
    for top in sorted({*tops, *points}):
        for path in walk(top):
            left -= 1
            if left < 0:
                return found
            with suppress(OSError):
                status = path.lstat()
                found.setdefault(("user", status.st_uid), str(path))
                found.setdefault(("group", status.st_gid), str(path))
    return found


def walk(top: str) -> Iterator[Path]:
    """A path and all below it on the same file system; no link is followed."""
    yield Path(top)
    if Path(top).is_symlink():  # os.walk would follow it
        return
    with suppress(OSError):
        device = os.lstat(top).st_dev
        for place, directories, names in os.walk(top):
            directories[:] = [d for d in directories if is_on(Path(place, d), device)]
            yield from (Path(place, name) for name in (*directories, *names))


def is_on(path: Path, device: int) -> bool:
    """Whether a directory is on the file system with this st_dev."""
    try:
        return path.lstat().st_dev == device
    except OSError:
        return False


def clashes(
    here: Path, there: Path, owned: dict[tuple[str, int], str]
) -> tuple[Owner, ...]:
    """The owners whose name has another number in the tree at `there`, or none."""
    found = []
    for kind in FILES:
        ours, theirs = numbers(here, kind), numbers(there, kind)
        names = {number: name for name, number in reversed(ours.items())}
        for (of, number), path in owned.items():
            name = names.get(number) if of == kind else None
            if name is not None and theirs.get(name) != number:
                found.append(Owner(kind, name, number, theirs.get(name), path))
    return tuple(sorted(found)[:MAX_OWNERS])
