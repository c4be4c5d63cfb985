"""Release the old root: the indication, the stop of everything, the processes and IPC left over.

Patent: operations 211 (indication), 212 and 410 (terminate), 411 (de-allocate), 412 and 413 (leave
file systems and modules alone). The inverse is `settle.undo`.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from . import gate, ipc, looping, mounts, netgate, reap, record, room
from .errors import IssuError
from .record import Record
from .settings import Settings
from .systemd import Job, Manager, Unit, escape_path

log = logging.getLogger(__name__)

CRITICAL = ("/proc", "/sys", "/dev")  # patent [0056]; PID 1 takes them along with all below
STOPPABLE = (".service", ".socket", ".timer", ".path")
KILL_GRACE_SEC = 10.0  # for what was sent SIGKILL
KILL_AGAIN_SEC = 0.5  # a unit may have several stop commands, each killed in turn
REAP_GRACE_SEC = 2.0  # for processes outside any unit


def note(manager: Manager, story: Record) -> list[Unit]:
    """Keep in the record what is active and mounted before anything changes; the active units."""
    every = manager.units()
    units = [unit for unit in every if unit.active in ("active", "reloading")]
    if not story.way_back:  # there it is what had failed before the upgrade that is taken back
        story.failed_before = looping.ill(manager)
    passing = {"-.mount", *own_mounts(story)}
    story.default_target = manager.default_target()
    story.before = sorted(unit.name for unit in units if unit.name not in passing)
    story.mounts = {mount.point: mount.dev for mount in mounts.mounts()}
    return units


def prepare(manager: Manager, story: Record, chosen: Settings) -> None:
    """Everything that can be done while every service still runs, up to PID 1's reload."""
    units = note(manager, story)
    keep = {*chosen.keep, *gate.held()}
    story.kept = sorted(unit.name for unit in units if gate.is_among(unit.name, keep))
    story.carried = [*CRITICAL, *chosen.carry_mounts]
    if story.mechanism == "switch-root":  # SoftReboot takes /run along without its mounts
        story.carried.append("/run")
    record.save(story)
    record.write_atomically(record.SKIP, "".join(f"{unit}\n" for unit in story.skip))
    survive = b"SurviveFinalKillSignal" in property_names(manager)
    gate.close(story.kept, to_stop(units, story), survive=survive)
    netgate.close(Path(story.stage))
    if netgate.NETWORKD_UNIT in {unit.name for unit in units} - {*story.kept}:
        netgate.stop_as_restart()
    gate.lift(story.lifted)
    record.write_atomically(record.IN_PROGRESS, f"{story.id}\n")
    room.reload(manager)


def own_mounts(story: Record) -> set[str]:
    """The mount units that exist only because the new root is staged."""
    points = (mount.point for mount in mounts.below(story.stage))
    return {f"{escape_path(point)}.mount" for point in points}


def property_names(manager: Manager) -> set[bytes]:
    """The properties that PID 1 has for a unit: how a capability of its settings is known."""
    return {name.encode() for name in manager.properties("init.scope")}


def to_stop(units: Iterable[Unit], story: Record) -> list[str]:
    """What the isolate is going to stop."""
    spared = {*story.kept, story.unit}
    return [u.name for u in units if u.name.endswith(STOPPABLE) and u.name not in spared]


def release(manager: Manager, story: Record, chosen: Settings) -> None:
    """Stop everything; raises IssuError when something cannot be stopped."""
    stop_units(manager, story, chosen.stop_timeout_usec / 1_000_000)
    kept = {*story.kept, story.unit}  # of ours: the child that tends the watchdog
    for name in reap.reap(lambda unit: unit in kept, grace_sec=REAP_GRACE_SEC):
        story.find("killed", "warn", f"{name} ignored SIGTERM and was killed")
    for found in ipc.release(chosen.keep_ipc):
        log.info("release: removed System V %s %#x", found.kind, found.key)


def stop_units(manager: Manager, story: Record, timeout_sec: float) -> None:
    """Isolate issu-halt.target; what is late after `timeout_sec` gets SIGKILL."""
    job = manager.start(gate.HALT, "isolate")
    result = manager.wait_job(job, time.monotonic() + timeout_sec)
    last = time.monotonic() + KILL_GRACE_SEC
    while result is None and time.monotonic() < last:
        kill_late(manager, story, timeout_sec)
        result = manager.wait_job(job, time.monotonic() + KILL_AGAIN_SEC)
    if result != "done" or not manager.wait_until(lambda: not manager.jobs(), last):
        stopping = [job.unit for job in manager.jobs() if is_stopping(job)]
        late = ", ".join(sorted(stopping)) or gate.HALT
        raise IssuError(
            f"{late} did not stop, not even by SIGKILL ({result or 'timeout'})",
            hint="see its log: journalctl -u",
        )


def kill_late(manager: Manager, story: Record, timeout_sec: float) -> None:
    """SIGKILL to every unit that is still stopping."""
    for late in manager.jobs():
        if is_stopping(late):
            tell_killed(story, late.unit, timeout_sec)
            manager.kill(late.unit, signal.SIGKILL)


def tell_killed(story: Record, unit: str, timeout_sec: float) -> None:
    """Keep as a finding that a unit was killed because it did not stop."""
    text = f"{unit} did not stop within {timeout_sec:g} s and was killed"
    story.find("stop-timeout", "warn", text, "raise [release] stop-timeout, or mend it")


def is_stopping(job: Job) -> bool:
    """Whether a unit is being stopped now; others wait for it."""
    return job.type == "stop" and job.state == "running"


def undo_files() -> bool:
    """Remove indication and drop-ins; whether PID 1 must reload."""
    for path in (record.IN_PROGRESS, record.SKIP):
        Path(path).unlink(missing_ok=True)
    return gate.open_again()


def keep_gated() -> bool:
    """Remove them but for what gates units; whether PID 1 must reload.

    For as long as the old root's units start again, where the kernel needs no start either. The
    indication without a word in it meets conditions as before, and data/issu-generator heeds it no
    more: nothing arrives here. It takes no room on /run.
    """
    with suppress(FileNotFoundError):  # then nothing was stopped
        os.truncate(record.IN_PROGRESS, 0)
    record.SKIP.unlink(missing_ok=True)
    return gate.let_go()
