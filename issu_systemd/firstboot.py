"""Do the new root's first-boot work before anything is stopped, so that the outage does not pay.

A unit with ConditionNeedsUpdate= runs once after /usr changed (systemd.unit(5)): ldconfig, hwdb,
sysusers, journal catalog and what a vendor adds. Each is asked of the new root's own systemd.
"""

from __future__ import annotations

import logging
import shlex
from pathlib import Path

from .errors import IssuError
from .run import run_inside

log = logging.getLogger(__name__)

WANTS = ("usr/lib/systemd/system", "etc/systemd/system")
LAST = "systemd-update-done.service"  # stamps /etc/.updated and /var/.updated
ANY = ("ConditionNeedsUpdate=|/etc", "ConditionNeedsUpdate=|/var")
TIMEOUT_SEC = 300.0


def work(root: Path) -> list[str]:
    """Run the work that is due in the tree at `root`; the units whose work was done."""
    done = [unit for unit in due(root) if perform(root, unit)]
    if done:
        log.info("stage: did the new root's first-boot work: %s", ", ".join(done))
    return done


def due(root: Path) -> list[str]:
    """The units that wait for an update and whose conditions hold, the one that stamps it last."""
    units = {
        link.name
        for place in WANTS
        for link in (root / place).glob("*.target.wants/*.service")
        if "ConditionNeedsUpdate=" in text_of(root, link.name)
    }
    if not units or not conditions_hold(root, *ANY):
        return []
    ordered = sorted(units, key=lambda unit: (unit == LAST, unit))
    return [unit for unit in ordered if conditions_hold(root, f"--unit={unit}")]


def text_of(root: Path, unit: str) -> str:
    """The unit file, the administrator's before the vendor's, "" if there is none."""
    for place in reversed(WANTS):
        path = root / place / unit
        if path.is_file() and not path.is_symlink():
            return path.read_text(errors="replace")
    return ""


def conditions_hold(root: Path, *what: str) -> bool:
    """What `systemd-analyze condition` of the new root says of conditions, or of a --unit=."""
    return run_inside(root, ["systemd-analyze", "condition", *what], check=False).returncode == 0


def perform(root: Path, unit: str) -> bool:
    """Run the unit's commands in the tree; one that fails is left to the new root's boot."""
    for line in text_of(root, unit).splitlines():
        if line.startswith("ExecStart="):
            argv = shlex.split(line.partition("=")[2].lstrip("-@:+!|"))
            try:
                failed = run_inside(root, argv, check=False, timeout=TIMEOUT_SEC).returncode != 0
            except IssuError:
                failed = True
            if failed:
                log.warning("stage: %s: %s failed in the new root", unit, argv[0])
                return False
    return True
