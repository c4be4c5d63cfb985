"""Ways to replace or restart the system of a machine with two equal roots."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.container.element import Element, write_settings

from .echoes import UNITS

BOOT_SEC = 120.0
CACHES = Path("/proc/sys/vm/drop_caches")
NEXT_ROOT = "/run/nextroot"  # systemd-soft-reboot.service(8)
# What systemd-update-done.service leaves, and what it is compared with (systemd.unit(5)
# ConditionNeedsUpdate=): after this the work of a new image's first boot is due.
AS_NEW = 'mount "$1" /mnt; rm -f /mnt/etc/.updated /mnt/var/.updated; touch /mnt/usr; umount /mnt'
EACH = 'for unit in "$@"; do systemctl restart "$unit"; done'


@dataclass(frozen=True)
class Rival:
    """A way from a running system to a running system; `run` gives a report if it makes one."""

    key: str
    title: str
    run: Callable[[Element], dict[str, Any]]
    blocks: bool = True  # when `run` returns everything is over


def root_of(e: Element) -> str:
    """The device whose root runs now."""
    dev = Path(f"/proc/{e.machine.pid}/root").stat().st_dev
    return next(d for d in (e.source, e.target) if Path(d).stat().st_rdev == dev)


def other_root(e: Element) -> str:
    """The device whose root does not run now."""
    return e.target if root_of(e) == e.source else e.source


def issu(strategy: str, e: Element) -> dict[str, Any]:
    """systemctl start issu@OTHER; raises AssertionError if it is not accepted."""
    write_settings(e.machine.path("/"), f'[switch]\nstrategy = "{strategy}"\n')
    e.upgrade(other_root(e))
    report = e.report()  # the newest: a soft-reboot between two of them carries no history
    assert report["result"] == "accepted", report["error"]
    return report


def plain(e: Element) -> dict[str, Any]:
    """systemctl restart of every service by itself: what no upgrade can be below."""
    listed = e.machine.systemctl("list-units", "--no-legend", "--plain", UNITS).splitlines()
    e.machine.run(["sh", "-c", EACH, "sh", *(line.split()[0] for line in listed)], timeout=300)
    return {}


def soft_reboot(e: Element) -> dict[str, Any]:
    """systemctl soft-reboot, which goes to /run/nextroot if there is a root."""
    e.machine.popen(["systemctl", "soft-reboot"]).communicate()
    return {}


def soft_reboot_other(e: Element) -> dict[str, Any]:
    """The other root on /run/nextroot, then systemctl soft-reboot."""
    e.machine.run(["mkdir", "-p", NEXT_ROOT])
    e.machine.run(["mount", other_root(e), NEXT_ROOT])
    return soft_reboot(e)


def restart(e: Element) -> dict[str, Any]:
    """Shut down, and boot again from the same root."""
    e.machine.reboot(Path(root_of(e)), BOOT_SEC)
    return {}


def restart_other(e: Element) -> dict[str, Any]:
    """Shut down, and boot from the other root."""
    e.machine.reboot(Path(other_root(e)), BOOT_SEC)
    return {}


LIVE = Rival("live", "this ISSU, live, other root", partial(issu, "live"))
HALT = Rival("halt", "this ISSU, halt, other root", partial(issu, "halt"))
PLAIN = Rival("plain", "systemctl restart, one by one", plain)
SOFT = Rival("soft-reboot", "soft-reboot, same root", soft_reboot, blocks=False)
SOFT_OTHER = Rival("soft-reboot-other", "soft-reboot, other root", soft_reboot_other, blocks=False)
RESTART = Rival("restart", "full restart, same root", restart)
RESTART_OTHER = Rival("restart-other", "full restart, other root", restart_other)

KNOWN_ROOT = (LIVE, PLAIN, HALT, SOFT, SOFT_OTHER, RESTART)
NEW_ROOT = (LIVE, HALT, SOFT_OTHER, RESTART_OTHER)
TITLES = {rival.key: rival.title for rival in (*KNOWN_ROOT, *NEW_ROOT)}


def make_new(e: Element) -> None:
    """The other root as after writing a new image to its disk: unread, first-boot work due."""
    e.machine.run(["sh", "-ec", AS_NEW, "sh", other_root(e)])
    os.sync()
    CACHES.write_text("3\n")
