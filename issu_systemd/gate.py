"""Run-time drop-ins of one upgrade: what stays active, and the order of the stop.

They lie below /run/systemd/system: they cross the switch and cannot outlive a real boot. What the
new root must not start is gated by the package's own drop-ins and by data/issu-generator.
Patent: operations 401, 412 and 413 (what the halt must leave alone).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from . import record

PLACE = Path("/run/systemd/system")
NAME = "50-issu-hold.conf"
HOLD = Path("/usr/lib/issu/hold")  # for stock units whose stop action would cut traffic
HALT = "issu-halt.target"
# A drop-in of the package forbids the start of a unit; one of the same name here wins over it
# (systemd.unit(5)).
GATE = "50-issu.conf"
LIFTED = "# [arrive] of issu.toml(5): this unit starts during the upgrade all the same.\n"
SYSCTL = "systemd-sysctl.service"

# IgnoreOnIsolate alone does not keep a unit: its implied Requires=sysinit.target pulls it down.
KEEP = "[Unit]\nDefaultDependencies=no\nIgnoreOnIsolate=yes\n"
SURVIVE = "SurviveFinalKillSignal=yes\n"  # systemd 255 and later


def held() -> list[str]:
    """The stock units that the package holds, templates among them."""
    return sorted(path.name.removesuffix(".conf") for path in HOLD.glob("*.conf"))


def is_among(unit: str, keep: Iterable[str]) -> bool:
    """Whether a unit, or the template it is made from, is in the list."""
    prefix, at, rest = unit.partition("@")
    template = f"{prefix}@.{rest.rpartition('.')[2]}" if at else unit
    return unit in keep or template in keep


def close(keep: Iterable[str], stop: Iterable[str], *, survive: bool) -> None:
    """Write the drop-ins: `keep` stays active, issu-halt.target is reached after `stop` stopped.

    Both are units active now, never templates: another instance must start as it always does.
    `survive` says whether PID 1 can spare processes from its last signal. Raises OSError.
    """
    for unit in keep:
        stock = next((HOLD / f"{name}.conf" for name in held() if is_among(unit, [name])), None)
        text = stock.read_text() if stock else KEEP
        drop_in(unit, text.replace("[Unit]\n", "[Unit]\n" + SURVIVE, 1) if survive else text)
    # Conflicts= also stops what ignores an isolate, as the journal does. Both keep the stopped
    # units loaded, and with them the time they stopped.
    drop_in(HALT, "[Unit]\n" + "".join(f"After={unit}\nConflicts={unit}\n" for unit in stop))


def drop_in(unit: str, text: str) -> None:
    """Write one drop-in of ours."""
    record.write_atomically(PLACE / f"{unit}.d" / NAME, text)


def lift(units: Iterable[str]) -> None:
    """Let units start that the package forbids in the new root; raises OSError."""
    for unit in units:
        record.write_atomically(PLACE / f"{unit}.d" / GATE, LIFTED)


def let_go() -> bool:
    """Remove what `close` wrote; whether there was any, so that PID 1 must reload."""
    return remove(NAME)


def open_again() -> bool:
    """Remove every drop-in of ours; whether there was one, so that PID 1 must reload."""
    return remove(NAME, GATE)


def remove(*names: str) -> bool:
    """Remove the drop-ins of these names, and directories that are empty then; whether any was."""
    found = [path for name in names for path in PLACE.glob(f"*.d/{name}")]
    for path in found:
        path.unlink(missing_ok=True)
        if not any(path.parent.iterdir()):
            shutil.rmtree(path.parent, ignore_errors=True)
    return bool(found)
