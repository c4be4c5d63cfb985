"""The target's units against the running ones: what is enabled here and lost or broken there."""

from __future__ import annotations

import re
from pathlib import Path

from . import newroot, plan
from .run import run_inside
from .systemd import Manager
from .tree import resolve, text

KINDS = (".service", ".socket", ".timer", ".path")
MAX_UNITS, MAX_FAULTS = 300, 20
VERIFY_SEC = 20.0
# Where units and their drop-ins lie, systemd.unit(5).
PLACES = ("etc/systemd/system", "usr/lib/systemd/system")
# Its commands are not of this tree (systemd.exec(5)), and systemd-analyze does not know it.
_OWN_ROOT = re.compile(r"^\s*Root(?:Directory|Image)\s*=\s*\S", re.MULTILINE)
# What keeps a unit from starting; that a key is unknown, say, does not.
_FAULT = re.compile(
    r"^(\S+\.\w+): (Command .* is not executable: .*|Failed to create \S+/start: .*)$", re.MULTILINE
)


def lost(manager: Manager, root: Path, steps: plan.Plan) -> tuple[tuple[str, str], ...]:
    """The units that are enabled and active here and that the tree lacks or masks; and which."""
    files = newroot.unit_files(root)
    states = dict(row[:2] for line in files.splitlines() if len(row := line.split()) > 1)
    offer = newroot.ask(root)
    found = []
    for unit, action, _ in steps:
        if action in (plan.NEW, plan.SKIPPED) or not unit.endswith(KINDS) or offer.has(unit):
            continue
        if manager.properties(unit).get("UnitFileState") == b"enabled":
            is_masked = states.get(unit, "").startswith("masked")
            found.append((unit, "masks it" if is_masked else "does not have it"))
    return tuple(found)


def faults(root: Path) -> tuple[tuple[str, str], ...]:
    """The units that the tree enables and that its own systemd-analyze(1) says cannot start.

    Raises IssuError when that takes too long.
    """
    rows = (line.split() for line in newroot.unit_files(root).splitlines())
    enabled = [row[0] for row in rows if len(row) > 1 and row[1] == "enabled" and "@" not in row[0]]
    named = [unit for unit in enabled if unit.endswith(KINDS)][:MAX_UNITS]
    if not named:
        return ()
    argv = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=one", "--", *named]
    done = run_inside(root, argv, check=False, timeout=VERIFY_SEC, unprivileged=True)
    found = dict.fromkeys(_FAULT.findall(done.stderr))
    return tuple(
        (unit, why) for unit, why in found
        if not (why.startswith("Command ") and has_own_root(root, unit))
    )[:MAX_FAULTS]  # fmt: skip


def has_own_root(root: Path, unit: str) -> bool:
    """Whether a unit of the tree runs its commands below another directory, or in an image."""
    names = [f"{place}/{unit}" for place in PLACES]
    for place in PLACES:
        there = resolve(root, f"{place}/{unit}.d")
        names += [f"{place}/{unit}.d/{path.name}" for path in sorted(there.glob("*.conf"))]
    return any(_OWN_ROOT.search(text(root, name)) for name in names)
