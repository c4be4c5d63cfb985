"""Make the new root ready while every service still runs. The inverse of all of it is `unstage`."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

from . import carry, firstboot, modules, mounts, unfinished, warm
from .settings import Settings

log = logging.getLogger(__name__)


def stage(root: Path, chosen: Settings) -> None:
    """Carry, copy modules, do first-boot work and warm the cache in the target mounted at `root`.

    Raises IssuError naming what could not be done.
    """
    mounts.remount(root, "rw")
    for path in carry.files(chosen.carry_files, root):
        log.info("stage: carried %s", path)
    unfinished.sweep(root)
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
