"""Release System V shared memory, semaphores and message queues. Patent: operation 411, [0059].

An object goes when no process that made or used it last is alive; see sysvipc(7) and, for the
columns of /proc/sysvipc, proc_sysvipc(5).
"""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from .errors import IssuError

log = logging.getLogger(__name__)

PROC = Path("/proc")
_IPC_RMID, _GETPID = 0, 11
_PIDS = {"shm": ("cpid", "lpid"), "msg": ("lspid", "lrpid"), "sem": ()}
_ID = {"shm": "shmid", "msg": "msqid", "sem": "semid"}


class Object(NamedTuple):
    """One System V object and the processes it knows of."""

    kind: str
    key: int
    id: int
    pids: tuple[int, ...]
    size: int  # of semaphores in a set; 0 for other kinds
    attached: int = 0  # processes that have a shared memory segment mapped


def parse(kind: str, text: str) -> list[Object]:
    """The objects of one file of /proc/sysvipc."""
    head, *lines = text.splitlines()
    names = head.split()
    rows = [dict(zip(names, map(int, line.split()), strict=False)) for line in lines]
    return [
        Object(
            kind, row["key"] & 0xFFFFFFFF, row[_ID[kind]],
            tuple(row[p] for p in _PIDS[kind]), row.get("nsems", 0), row.get("nattch", 0),
        )
        for row in rows
    ]  # fmt: skip


def keys(names: Iterable[str]) -> set[tuple[str, int]]:
    """The keep-list, "kind:key" each, as pairs."""
    pairs = (name.split(":") for name in names)
    return {(kind, int(key, 0) & 0xFFFFFFFF) for kind, key in pairs}


def release(keep: Iterable[str]) -> list[Object]:
    """Remove every object that is not to be kept and whose processes are gone; those removed."""
    libc = ctypes.CDLL(None, use_errno=True)
    kept = keys(keep)
    removed = []
    for kind in _ID:
        for found in parse(kind, (PROC / "sysvipc" / kind).read_text()):
            in_use = found.attached or any(map(alive, users(libc, found)))
            if in_use or (found.kind, found.key) in kept:
                continue
            remove(libc, found)
            removed.append(found)
    return removed


def users(libc: ctypes.CDLL, found: Object) -> list[int]:
    """The processes an object knows; a semaphore set's last users are asked of semctl(2)."""
    last = (libc.semctl(found.id, index, _GETPID) for index in range(found.size))
    return [pid for pid in (*found.pids, *last) if pid > 0]


def alive(pid: int) -> bool:
    """Whether a process exists."""
    return (PROC / str(pid)).exists()


def remove(libc: ctypes.CDLL, found: Object) -> None:
    """IPC_RMID; raises IssuError with the errno's text."""
    calls = {
        "shm": lambda: libc.shmctl(found.id, _IPC_RMID, None),
        "msg": lambda: libc.msgctl(found.id, _IPC_RMID, None),
        "sem": lambda: libc.semctl(found.id, 0, _IPC_RMID),
    }
    if calls[found.kind]() != 0 and (errno := ctypes.get_errno()) not in (22, 43):  # gone already
        raise IssuError(f"{found.kind} {found.key:#x} cannot be removed: {os.strerror(errno)}")
