"""Built once, shared by every process: files and directories below $ISSU_CACHE."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from . import sh

KEEP = 3  # newest entries of one kind that pruning leaves


def directory() -> Path:
    """$ISSU_CACHE, or /var/cache/issu-systemd."""
    path = Path(os.environ.get("ISSU_CACHE", "/var/cache/issu-systemd"))
    path.mkdir(parents=True, exist_ok=True)
    return path


def digest(*parts: str | bytes) -> str:
    """Short content hash for the name of a cache entry."""
    state = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        state.update(b"%d:" % len(data) + data)
    return state.hexdigest()[:16]


@contextmanager
def locked(path: Path, *, shared: bool = False, wait: bool = True) -> Iterator[None]:
    """Hold the lock file beside `path`; it goes with the process that holds it.

    Raises BlockingIOError if somebody else has it and `wait` is off.
    """
    name = Path(f"{path}.lock")
    how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    while True:
        with name.open("a") as lock:
            fcntl.flock(lock, how)
            if _is(lock, name):  # and not one that `prune` has removed meanwhile
                yield
                return


def _is(file: IO[str], name: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), name.stat())
    return False


def discard(path: Path) -> None:
    """Remove a file or a tree, whether it is there or not."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def entry(name: str, build: Callable[[Path], None]) -> Path:
    """Path of the cache entry `name`; `build(temporary)` makes it when it is missing.

    Two processes that ask at once: one builds, the other waits. An interrupted build leaves
    no entry. Of names equal up to the last "-" only the newest KEEP stay.
    """
    path = directory() / name
    with locked(path):
        if not path.exists():
            part = directory() / f"{name}.part"
            discard(part)
            try:
                build(part)
                part.rename(path)
            finally:
                discard(part)
            prune(path)
        os.utime(path)
    return path


def prune(newest: Path) -> None:
    """Drop all but the last used KEEP entries of the kind of `newest`, unless in use."""
    kind = newest.name.rpartition("-")[0]
    same = [
        p
        for p in newest.parent.iterdir()
        if p.name.rpartition("-")[0] == kind and p.suffix == newest.suffix
    ]
    same.sort(key=lambda p: p.stat().st_mtime, reverse=True)
    for old in same[KEEP:]:
        with suppress(BlockingIOError), locked(old, wait=False):
            discard(old)
            Path(f"{old}.lock").unlink()


def copy(source: Path, dest: Path) -> Path:
    """Copy a cache entry, holes and all, sharing its blocks where the file system can."""
    with locked(source, shared=True):
        sh.run(["cp", "--sparse=always", "--reflink=auto", source, dest])
    return dest
