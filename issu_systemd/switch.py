"""Hand the machine to the new root: one function a mechanism, chosen by what PID 1 offers.

Patent: operations 414 (move the root), 415 (move the critical file systems), 213, 214. PID 1 does
all four in one call and answers before it acts, so a good answer proves nothing; arrive.py does.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from . import mounts, record, release, room, tree
from .errors import IssuError
from .phase import Phase
from .record import Record
from .settings import Settings
from .systemd import Manager

INIT = "/usr/lib/systemd/systemd"  # what PID 1 executes when it switches roots
DEADLINE_SEC = 90.0


def soft_reboot(manager: Manager, root: Path) -> None:
    """systemd 254 and later, org.freedesktop.systemd1(5) SoftReboot: stops nothing by itself.

    PID 1 syncs before it detaches the old root.
    """
    manager.call("SoftReboot", "s", str(root))


def switch_root(manager: Manager, root: Path) -> None:
    """systemd up to 254; with the empty INIT the state is handed over, see systemctl(1).

    systemd before 254 detaches the old root without a sync.
    """
    for place in (Path("/"), root):
        mounts.sync(place)
    manager.call("SwitchRoot", "ss", str(root), "")


MECHANISMS = {"soft-reboot": soft_reboot, "switch-root": switch_root}
METHODS = {"soft-reboot": "SoftReboot", "switch-root": "SwitchRoot"}


def mechanism_of(manager: Manager) -> str | None:
    """The mechanism of strategy halt: SoftReboot where PID 1 has it, else SwitchRoot."""
    return next((name for name, method in METHODS.items() if manager.offers(method)), None)


def check_root(root: Path, dev: int) -> None:
    """Raise IssuError unless `root` still is the root with st_dev `dev`, and its device answers.

    SoftReboot does not look before it has ended everything, and PID 1 without an init halts. All
    that is looked at may be in memory while the device is gone.
    """
    init, mount = tree.resolve(root, INIT), mounts.mount_at(str(root))
    if root.stat().st_dev != dev or not os.access(init, os.X_OK):
        raise IssuError(f"{root} does not hold the other root any more", hint="who unmounted it?")
    if mount and mount.source.startswith("/dev/"):
        try:
            mounts.read_device(mount.source)
        except OSError as error:
            raise IssuError(f"{mount.source} cannot be read any more: {error.strerror}",
                            hint="dmesg tells why") from error  # fmt: skip


def leave(manager: Manager, story: Record, chosen: Settings) -> None:
    """Strategy halt: stop everything, then switch; it returns in no case but by an IssuError."""
    release.release(manager, story, chosen)
    check_root(Path(story.stage), story.new_dev)
    story.enter(Phase.SWITCH)
    record.save(story)
    switch(manager, Path(story.stage), story.mechanism or "")


def switch(manager: Manager, root: Path, mechanism: str) -> None:
    """Ask PID 1 to go on from `root` and wait for its SIGTERM; raises IssuError if none comes."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    room.shrink(room.OURS_BYTES)  # the new root needs it to come up
    MECHANISMS[mechanism](manager, root)
    time.sleep(DEADLINE_SEC)  # PID 1's SIGTERM ends us here
    raise IssuError(f"PID 1 did not act on {METHODS[mechanism]} within {DEADLINE_SEC:g} s")
