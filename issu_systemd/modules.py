"""The running kernel's modules in the new root, so that it can still load them.

A bind mount would keep the old root in use for good; so they are copied ([stage] modules).
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from . import carry
from .errors import IssuError
from .tree import resolve

log = logging.getLogger(__name__)

PLACE = "usr/lib/modules"  # of every root, a directory a kernel release
INDEX = "modules.dep"  # depmod(8) makes it; without it modprobe(8) finds nothing
MAKE_ROOM = "make room there"


def release() -> str:
    """The running kernel's, as uname(2) names it."""
    return os.uname().release


def ours() -> Path:
    """Where the running root has them."""
    return Path("/", PLACE, release()).resolve()


def kernels(root: Path) -> tuple[str, ...]:
    """The releases of the kernels that the tree at `root` has modules for."""
    try:
        names = [p.name for p in resolve(root, PLACE).iterdir() if not p.name.startswith(".")]
    except OSError:
        return ()
    return tuple(name for name in sorted(names) if are_in(root, name))


def are_in(root: Path, kernel: str = "") -> bool:
    """Whether the tree has modules for a kernel, by default for the one that runs."""
    try:
        return resolve(root, f"{PLACE}/{kernel or release()}/{INDEX}").is_file()
    except OSError:
        return False


def obstacle(root: Path) -> tuple[str, str] | None:
    """Why the modules cannot be copied to the tree at `root`, and the way out; None if they can."""
    try:
        top = resolve(root, PLACE)
        place = top / release()
        if place.exists() or place.is_symlink():
            shown = f"/{place.relative_to(root)}"
            return f"{shown} is there without {INDEX}", f"remove {shown} from it"
        there = os.statvfs(root)
        need, files = size_of(ours(), there.f_frsize)
        left, _ = size_of(draft_in(top), there.f_frsize)  # of one who was killed: it will go
    except OSError as error:
        return f"they cannot be copied: {error}", "mend that"
    have = there.f_bavail * there.f_frsize + left
    if have < need:
        return f"they take {-(-need >> 20)} MiB and {have >> 20} MiB are free", MAKE_ROOM
    if there.f_files and there.f_favail < files:  # some file systems make inodes as they go
        return f"they are {files} files and {there.f_favail} inodes are free", MAKE_ROOM
    return None


def size_of(top: Path, block: int) -> tuple[int, int]:
    """The bytes that a copy of the tree takes in whole blocks, and the files it makes."""
    sizes = [path.lstat().st_size for path in walk(top)]
    return sum(-(-size // block) * block for size in sizes), len(sizes)


def walk(top: Path) -> Iterator[Path]:
    """What is there and all below it; no link is followed. Raises OSError."""
    if top.is_symlink() or top.exists():
        yield top
    if top.is_dir() and not top.is_symlink():
        for path in top.iterdir():
            yield from walk(path)


def draft_in(top: Path) -> Path:
    """The name of the copy until it is whole, beside the one that it will have."""
    return top / f".{release()}.issu"


def copy(root: Path) -> bool:
    """Copy them to the tree at `root` if it lacks them; whether it did.

    They appear there as a whole or not at all. Raises IssuError, and nothing is left then.
    """
    if not are_in(Path("/")) or are_in(root):
        return False
    if found := obstacle(root):
        raise IssuError(f"the running kernel's modules: {found[0]}", hint=found[1])
    top = resolve(root, PLACE)
    draft = draft_in(top)
    try:
        remove(draft)  # of one who was killed
        top.mkdir(parents=True, exist_ok=True)
        carry.copy(ours(), draft)
        os.sync()  # a name must not be there before what it names
        draft.rename(top / release())
    except OSError as error:
        with suppress(OSError):
            remove(draft)
        raise IssuError(
            f"the running kernel's modules cannot be copied to the new root: {error}",
            hint=f"{MAKE_ROOM}, or install the running kernel's package in the new root",
        ) from error
    log.info("stage: copied the modules of kernel %s", release())
    return True


def remove(path: Path) -> None:
    """Remove a tree, or a file or link in its place, if it is there; raises OSError."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
