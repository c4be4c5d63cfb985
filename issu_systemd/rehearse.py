"""The rehearsal: the target is booted in a container, and what does not come up there is found.

sandbox.py makes the container. What fails in it may be the container's fault, for it has neither
hardware nor network. So the running root, which is known to work, is booted in the same way then,
and what fails in both is no reason to refuse.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Set
from contextlib import suppress
from pathlib import Path

from . import record
from .errors import Busy, IssuError
from .finding import BLOCK, INFO, WARN, Finding
from .observe import (
    INIT,
    LIMIT,
    MARGIN_SEC,
    NAMED,
    TARGET,
    Outcome,
    Over,
    Scene,
    attend,
    lines_of,
)
from .record import Record
from .sandbox import NSPAWN, RUNNING
from .settings import Settings
from .systemd import Manager, escape_path

CGROUPS = (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"))
BUILD_SEC = 60.0  # to mount it, and to carry files
END_SEC = 60.0
CONSOLE = "`journalctl -u 'issu-rehearsal@*'` shows its console"
SKIP = "mend it; if it cannot run in a container, name it in [stage] rehearse-skip"


def rehearse(target: Path, units: Iterable[str], timeout: float) -> list[Finding]:
    """Boot the root on the device `target` in a container; what is wrong with it.

    Its default target must be reached and `units` come up within `timeout` seconds. The target is
    not changed: what the root writes stays in memory. `timeout` is [stage] rehearse-timeout, by
    which the container ends itself. Raises Busy while another one runs.
    """
    if not Path(NSPAWN).exists():
        return [Finding("rehearsal", INFO, "no rehearsal: systemd-nspawn is not installed",
                        "install systemd-container")]  # fmt: skip
    wanted = tuple(units)
    with Manager() as manager:
        outcome = play(manager, target, wanted, timeout)
        control = play(manager, RUNNING, wanted, timeout) if outcome.troubles else Outcome()
        active = {unit.name for unit in manager.units() if unit.active == "active"}
    return judge(str(target), outcome, control, active)


def for_upgrade(story: Record, chosen: Settings) -> list[Finding]:
    """The rehearsal of an upgrade; its record tells meanwhile that it is to end with it.

    Raises Busy while another one runs.
    """
    story.rehearses = True
    record.save(story)
    try:
        return rehearse(Path(story.target["device"]), story.verify_units, seconds(chosen))
    finally:
        story.rehearses = False
        record.save(story)


def seconds(chosen: Settings) -> float:
    """How long the root may take to come up."""
    return chosen.rehearse_timeout_usec / 1_000_000


def most_seconds(chosen: Settings) -> float:
    """How long `rehearse` may take: two rehearsals, from their begin to their end."""
    return 2 * (BUILD_SEC + seconds(chosen) + MARGIN_SEC + END_SEC)


def judge(
    target: str, outcome: Outcome, control: Outcome, active: Set[str] = frozenset()
) -> list[Finding]:
    """The findings; trouble of the container alone is none of the target's.

    `active` are the units that are up in the running root, whatever its rehearsal `control` says.
    """
    if outcome.impossible or INIT in control.troubles:
        why = outcome.impossible or f"no root boots in a container here, {control.troubles[INIT]}"
        return [Finding("rehearsal", INFO, f"no rehearsal: {why}", "")]
    about, found = f"rehearsal of {target}", []
    for key, text in outcome.troubles.items():
        if is_of_container(key, outcome, control, active):
            text += "; in the running root's rehearsal too, so it may be the container"
            found.append(Finding("rehearsal", WARN, f"{about}: {text}", ""))
        else:
            way_out = CONSOLE if key in (INIT, TARGET, LIMIT) else SKIP
            found.append(Finding("rehearsal", BLOCK, f"{about}: {text}", way_out))
    if outcome.failed:
        names = ", ".join(outcome.failed[:NAMED]) + (", ..." if outcome.failed[NAMED:] else "")
        found.append(Finding("rehearsal", WARN, f"{about}: {names} failed there",
                             "see whether that is because they ran in a container"))  # fmt: skip
    if not outcome.troubles:
        text = f"{about}: up after {outcome.seconds:.1f} s"
        found.append(Finding("rehearsal", INFO, text, ""))
    return found


def is_of_container(key: str, outcome: Outcome, control: Outcome, active: Set[str]) -> bool:
    """Whether the running root has the same trouble in a container, and none outside of one."""
    if key not in control.troubles:
        return False
    if key == TARGET:
        return set(outcome.failed) <= set(control.failed)
    return key == LIMIT or key in active


def play(manager: Manager, source: Path, wanted: tuple[str, ...], timeout: float) -> Outcome:
    """One rehearsal from its begin to its end, of which nothing is left; raises Busy."""
    unit = f"issu-rehearsal@{escape_path(str(source))}.service"
    if any(u.name.startswith("issu-rehearsal@") and u.active != "inactive" and u.active != "failed"
           for u in manager.units()):  # fmt: skip
        raise Busy("another rehearsal runs", hint="systemctl list-units 'issu-rehearsal@*'")
    begun = time.time()
    try:
        if manager.wait_job(manager.start(unit), time.monotonic() + BUILD_SEC) != "done":
            said = lines_of(RUNNING, unit, begun) or [f"journalctl -u {unit}"]
            return Outcome(impossible=said[-1])
        found = manager.properties(unit, "Service")
        group = found["ControlGroup"].decode().lstrip("/")
        where = next((str(top / group) for top in CGROUPS if (top / group).is_dir()), "")
        now = time.monotonic()
        return attend(Scene(unit, found["MainPID"], where, begun, now + timeout), wanted)
    except Over as over:
        words = "; ".join(lines_of(RUNNING, unit, begun))
        return Outcome({over.key: f"{over}: {words}" if words else str(over)})
    finally:
        end(manager, unit)


def end(manager: Manager, unit: str) -> None:
    """Kill everything in the container at once, however fast it multiplies; then it is gone."""
    with suppress(IssuError):
        group = manager.properties(unit, "Service")["ControlGroup"].decode().lstrip("/")
        for top in CGROUPS:
            with suppress(OSError):  # cgroup.kill: Linux 5.14
                if group:
                    (top / group / "cgroup.kill").write_text("1")
        manager.wait_job(manager.stop(unit), time.monotonic() + END_SEC)
