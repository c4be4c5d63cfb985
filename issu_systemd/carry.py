"""What goes along to the new root: files, mounts, and the journal of this boot.

Patent [0065], operation 415, for the file systems that the element itself calls critical.
"""

from __future__ import annotations

import glob
import logging
import os
import shutil
from pathlib import Path

from . import mounts, record
from .errors import IssuError
from .run import run

log = logging.getLogger(__name__)

JOURNAL = Path("/var/log/journal")
HISTORY = record.HISTORY


def inside(root: Path, path: str) -> Path:
    """Where `path` lies in the tree at `root`; raises IssuError if a link leads out of the tree."""
    place = root / path.lstrip("/")
    parent = Path(os.path.realpath(place.parent))
    if parent != root and root not in parent.parents:
        raise IssuError(f"{path} in the new root leads out of it, to {parent}")
    return parent / place.name


def files(patterns: tuple[str, ...], root: Path) -> list[str]:
    """Copy what matches into the new root with mode, owner, times and attributes; the paths."""
    carried = []
    for path in sorted({found for pattern in patterns for found in glob.glob(pattern)}):  # noqa: PTH207
        try:
            copy(Path(path), inside(root, path))
        except OSError as error:
            raise IssuError(f"{path} cannot be carried to the new root: {error}") from error
        carried.append(path)
    return carried


def copy(source: Path, place: Path) -> None:
    """Copy a file, link or directory so that `place` is never half written; raises OSError."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir() and not source.is_symlink():
        if place.is_symlink():  # it may lead out of the new root, to the running one
            place.unlink()
        place.mkdir(exist_ok=True)
        for child in source.iterdir():
            copy(child, place / child.name)
        own(source, place)
        shutil.copystat(source, place)
        return
    draft = place.with_name(f".{place.name}.issu")
    try:
        shutil.copyfile(source, draft, follow_symlinks=False)
        own(source, draft)  # before the mode and attributes, some of which a chown clears
        shutil.copystat(source, draft, follow_symlinks=False)
        draft.replace(place)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def own(source: Path, place: Path) -> None:
    """Give `place` the owner and group of `source`, by number."""
    status = source.lstat()
    os.chown(place, status.st_uid, status.st_gid, follow_symlinks=False)


def bind_mounts(points: tuple[str, ...], root: Path) -> None:
    """Bind each mount into the new root, where the new PID 1 finds it mounted."""
    for point in points:
        place = inside(root, point)
        if place.is_symlink():
            raise IssuError(f"{point} is a link in the new root, nothing can be mounted there")
        place.mkdir(parents=True, exist_ok=True)
        mounts.bind(point, place)


def journal(root: Path, boot_time: float) -> None:
    """Copy the persistent journal of this boot, so that one journal holds both sides of the switch.

    journald goes on writing below /run, which crosses the switch; the new journald moves that to
    /var. `boot_time` is the boot's wall clock time in seconds.
    """
    if not JOURNAL.is_dir() or not any(JOURNAL.glob("*/*.journal")):
        return  # volatile: all of it is on /run
    run(["journalctl", "--relinquish-var"])
    for path in sorted(JOURNAL.glob("*/*.journal")):
        if path.stat().st_mtime < boot_time:
            continue
        place = inside(root, str(path.with_name(archive_name(path))))
        if not place.exists():
            copy(path, place)


def archive_name(path: Path) -> str:
    """The name under which journald would archive an online journal file.

    Source: systemd's "Journal File Format", section Header: seqnum_id at byte 72, head_entry_seqnum
    at 168, head_entry_realtime at 184, little-endian.
    """
    if "@" in path.name:
        return path.name
    with path.open("rb") as file:
        head = file.read(192)
    seqnum = int.from_bytes(head[168:176], "little")
    realtime = int.from_bytes(head[184:192], "little")
    return f"{path.stem}@{head[72:88].hex()}-{seqnum:016x}-{realtime:016x}.journal"


def keep_journal() -> None:
    """The inverse of `journal` in the old root: journald goes back to /var."""
    if JOURNAL.is_dir():
        run(["journalctl", "--flush"], check=False)


def history(root: Path) -> None:
    """Copy the reports of earlier upgrades that the new root does not have."""
    place = inside(root, str(HISTORY))
    for path in sorted(HISTORY.glob("*.json")):
        if not (place / path.name).exists():
            copy(path, place / path.name)
        (place / path.name).with_suffix(record.UNFINISHED).unlink(missing_ok=True)
