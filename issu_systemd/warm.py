"""Read into the page cache what the new root's default target starts, so that nothing is read cold.

Which programs that are says the new root's own PID 1, see newroot.py.
"""

from __future__ import annotations

import logging
import re
from functools import cache
from pathlib import Path

from . import newroot
from .run import run_inside
from .tree import resolve

log = logging.getLogger(__name__)

# Read as a whole: PID 1, its helpers and generators, unit files, settings, and what maps names.
ALWAYS = ("usr/lib/systemd", "usr/lib/udev/rules.d", "usr/lib/tmpfiles.d", "etc")
LIBRARIES = "usr/lib/*/libnss_*.so*"
# Of what arrives there, and goes back if the disk is gone.
PYTHON = ("usr/lib/python3*/**/*.pyc", "usr/lib/python3*/lib-dynload/*.so", "usr/lib/issu/*")
SHELLS = ("/usr/bin/sh", "/usr/bin/python3", "/usr/bin/journalctl", "/usr/bin/systemd-tmpfiles")
_LIBRARY = re.compile(r"(/\S+) \(0x")


def warm(root: Path) -> int:
    """Read the files; returns how many bytes are in the page cache now because of it."""
    size = sum(read(path) for path in files(root))
    log.info("stage: read %d MiB of the new root into memory", size >> 20)
    return size


def needs(root: Path) -> int:
    """How many bytes `warm` would read, by the sizes of the files."""
    return sum(path.lstat().st_size for path in files(root) if is_plain(path))


def files(root: Path) -> list[Path]:
    """What the start of the new root reads."""
    programs = {*SHELLS, *newroot.commands(root)}
    paths = {resolve(root, path) for path in {*programs, *libraries(root, frozenset(programs))}}
    paths |= {p for name in ALWAYS for p in (root / name).rglob("*")}
    paths |= {path for pattern in (LIBRARIES, *PYTHON) for path in root.glob(pattern)}
    return sorted(paths)


@cache  # preflight asks, and stage: some processes a program
def libraries(root: Path, programs: frozenset[str]) -> list[str]:
    """The shared libraries that the programs load, as the tree's own ldd(1) says."""
    there = [p for p in sorted(programs) if resolve(root, p).is_file()]
    done = run_inside(root, ["ldd", *there], check=False)
    return sorted(set(_LIBRARY.findall(done.stdout)))


def forget() -> None:
    """Ask again next time: another tree may be mounted at the same place."""
    newroot.forget()
    libraries.cache_clear()


def read(path: Path) -> int:
    """Read a regular file of the tree once; its size in bytes, 0 for anything else."""
    try:
        if not is_plain(path):
            return 0
        with path.open("rb") as file:
            size = 0
            while chunk := file.read(1 << 20):
                size += len(chunk)
            return size
    except OSError:
        return 0


def is_plain(path: Path) -> bool:
    """Whether it is a regular file, and no link to one."""
    return not path.is_symlink() and path.is_file()
