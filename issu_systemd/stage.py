"""Make the new root ready while every service still runs. The inverse of all of it is `unstage`."""

from __future__ import annotations

import logging
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

from . import carry, firstboot, modules, mounts, unfinished, warm
from .settings import Settings
from .tree import resolve

log = logging.getLogger(__name__)

PRIVATE = ("tmp", "var/tmp")  # where PrivateTmp= of systemd.exec(5) has its directories


def stage(root: Path, chosen: Settings) -> None:
    """Carry, copy modules, do first-boot work and warm the cache in the target mounted at `root`.

    Raises IssuError naming what could not be done.
    """
    mounts.remount(root, "rw")
    for path in carry.files(chosen.carry_files, root):
        log.info("stage: carried %s", path)
    unfinished.sweep(root)
    forget_private(root)
    carry.history(root)
    if chosen.modules == "bind":
        modules.copy(root)
    if chosen.strategy == "halt":  # live binds them as it binds /proc, right before the pivot
        carry.bind_mounts(chosen.carry_mounts, root)
    firstboot.work(root)
    warm.warm(root)
    if chosen.carry_journal:
        carry.journal(root, time.time() - time.clock_gettime(time.CLOCK_BOOTTIME))
    os.sync()  # now, so that the sync within the outage finds little to do


def forget_private(root: Path) -> None:
    """Remove the private /tmp of services that ran when `root` was left: nobody else ever would.

    With live they stop when / is the other root, where PID 1 does not find it; and systemd-tmpfiles
    takes what has the boot id of this kernel for something in use.
    """
    for name in PRIVATE:
        with suppress(OSError):
            for path in resolve(root, name).glob("systemd-private-*"):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
