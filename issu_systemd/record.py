"""/run/issu/record.json: the baton handed from the old root's code to the new root's.

A wire format between two versions of this package: SCHEMA counts changes that an older reader could
not bear, unknown keys are ignored, missing ones take their default. Golden files are in the tests.
Times are CLOCK_MONOTONIC microseconds if nothing else is said; a switch does not disturb it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .errors import Busy, RecordError
from .phase import Phase, check_edge

SCHEMA = 1
DIRECTORY = Path("/run/issu")
RECORD = DIRECTORY / "record.json"
IN_PROGRESS = DIRECTORY / "in-progress"  # patent [0055]: the indication, operation 211
REACHED = DIRECTORY / "reached"  # FIFO: issu-reached.service tells that the services are up
HISTORY = Path("/var/lib/issu/history")  # a report an upgrade, ID.json
UNFINISHED = ".unfinished"  # and of one that has not ended, see unfinished.py
WAY_BACK = DIRECTORY / "way-back.json"  # an upgrade to the old root is asked for, see wayback.py
VERDICT = DIRECTORY / "verdict.json"  # what is to become of an upgrade that waits, see verdict.py
SKIP = DIRECTORY / "skip"  # units the new root must not start; read by data/issu-generator


def now_usec() -> int:
    """CLOCK_MONOTONIC in microseconds, the clock of PID 1's unit timestamps."""
    return time.monotonic_ns() // 1000


def new_id() -> str:
    """An id that sorts by time, to the microsecond, and may stand in a D-Bus object path."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S_%f}"


@dataclass
class Record:
    """One upgrade, from its request to its report."""

    id: str
    started: str
    unit: str = ""
    uid: int = 0  # who asked
    force: list[str] = field(default_factory=list)  # ids of findings to go on in spite of
    phase: Phase | None = None
    phases: list[dict[str, Any]] = field(default_factory=list)  # name, start_usec, end_usec
    source: dict[str, Any] = field(default_factory=dict)  # device, fstype, os, version, systemd
    target: dict[str, Any] = field(default_factory=dict)
    old_dev: int = 0  # st_dev of the root we leave
    new_dev: int = 0  # st_dev of the root we go to
    stage: str = ""  # where the new root is mounted in the old one
    stage_made: bool = False  # that directory was ours to make
    rehearses: bool = False  # a rehearsal runs that is to end with the upgrade
    strategy: str = "halt"
    mechanism: str | None = None
    default_target: str = ""
    before: list[str] = field(default_factory=list)  # units active before release
    mounts: dict[str, int] = field(default_factory=dict)  # st_dev by mount point, before release
    carried: list[str] = field(default_factory=list)  # the mount points that go along
    kept: list[str] = field(default_factory=list)
    skip: list[str] = field(default_factory=list)
    lifted: list[str] = field(default_factory=list)  # started although the package forbids it
    verify_units: list[str] = field(default_factory=list)
    verify_timeout_usec: int = 120_000_000
    verify_settle_usec: int = 5_000_000
    verify_program_timeout_usec: int = 30_000_000
    verify_continuity: str = "report"
    failed_before: list[str] = field(default_factory=list)  # units, before release
    accept_mode: str = "auto"
    accept_timeout_usec: int = 2_700_000_000
    deadline_usec: int | None = None  # of a manual acceptance, CLOCK_BOOTTIME
    settings: dict[str, Any] = field(default_factory=dict)  # all that it goes by
    way_back: dict[str, Any] = field(default_factory=dict)  # of, reason, reboot: see wayback.py
    plan: list[list[str]] = field(default_factory=list)  # unit, action, reason
    moved: list[str] = field(default_factory=list)  # live: the mount points both roots have
    hold_made: bool = False  # live: the old root's directory in the new root was ours to make
    parallel: int = 1
    sessions: str = "keep"
    restart_timeout_usec: int = 120_000_000
    settle_usec: int = 1_000_000
    steps: dict[str, int] = field(default_factory=dict)  # live: microseconds of pivot and reexec
    watchdog: dict[str, Any] = field(default_factory=dict)  # device, seconds, before, armed
    boot_loader: str = "none"
    hook_timeout_usec: int = 30_000_000
    continuity: dict[str, Any] = field(default_factory=dict)
    compared: dict[str, Any] = field(default_factory=dict)  # with the state at the end of verify
    findings: list[dict[str, str]] = field(default_factory=list)
    error: str | None = None
    result: str | None = None

    def enter(self, phase: Phase) -> None:
        """End the phase that runs and begin `phase`; raises IssuError on a wrong edge."""
        check_edge(self.phase, phase)
        now = now_usec()
        self.end_phase(now)
        self.phase = phase
        self.phases.append({"name": phase.value, "start_usec": now, "end_usec": None})

    def end_phase(self, now: int | None = None) -> None:
        """Note the end of the phase that runs."""
        if self.phases and self.phases[-1]["end_usec"] is None:
            self.phases[-1]["end_usec"] = now or now_usec()

    def find(
        self, id: str, severity: str, text: str, way_out: str = "", *, note: str = ""
    ) -> None:
        """Add a finding for the report; one sentence is told once."""
        found = {"id": id, "severity": severity, "text": text, "way_out": way_out}
        found |= {"note": note} if note else {}
        if found not in self.findings:
            self.findings.append(found)

    def start_of(self, phase: Phase) -> int | None:
        """When `phase` first began, or None."""
        return next((p["start_usec"] for p in self.phases if p["name"] == phase.value), None)


def dumps(record: Record) -> str:
    """The record as it stands on the wire."""
    return json.dumps({"schema": SCHEMA, **asdict(record)}, indent=1)


def loads(text: str, name: str = str(RECORD)) -> Record:
    """Read a record written by this or another version; raises RecordError naming the file."""
    try:
        data = json.loads(text)
        if data["schema"] > SCHEMA:
            raise RecordError(f"{name} has schema {data['schema']}, newer than {SCHEMA}")
        known = {f.name for f in fields(Record)}
        record = Record(**{key: value for key, value in data.items() if key in known})
        record.phase = Phase(record.phase) if record.phase else None
    except (ValueError, KeyError, TypeError) as error:
        raise RecordError(f"{name} cannot be read: {error}",
                          hint="issu@.service(8), RECOVERY") from error  # fmt: skip
    return record


def load(path: Path = RECORD) -> Record:
    """The record of the upgrade that runs; raises RecordError if there is none."""
    try:
        return loads(path.read_text(errors="replace"), str(path))
    except OSError as error:
        raise RecordError(f"{path}: {error.strerror}", hint="no upgrade runs") from error


def save(record: Record, path: Path = RECORD) -> None:
    """Write the record so that a reader sees the old one or the new one, never half of one."""
    write_atomically(path, dumps(record) + "\n")


def write_atomically(path: Path, text: str, *, spare: Path | None = None) -> None:
    """Replace `path` by a file holding `text`, on disk before it is seen; raises OSError.

    On a full disk `spare` goes first to make room, by default what is kept on /run.
    """
    while True:
        try:
            return replace(path, text)
        except OSError as error:
            if error.errno != errno.ENOSPC or not make_room(spare):
                raise


def make_room(spare: Path | None) -> bool:
    """Give up `spare`, or some of what is kept on /run; whether there was any."""
    from . import room  # only where a disk is full

    if spare is None:
        return room.give()
    there = spare.exists()
    spare.unlink(missing_ok=True)
    return there


def replace(path: Path, text: str) -> None:
    """Replace `path` by a file holding `text` if there is room for both; raises OSError."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.new")
    try:
        with draft.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def take(fd: int, how: int) -> None:
    """flock(2) an open file; raises Busy when somebody else has it."""
    try:
        fcntl.flock(fd, how)
    except BlockingIOError:
        raise Busy("another upgrade runs", hint="`issu status` shows it") from None


def lock_directory() -> Path:
    """What is locked; only root may open it, since to lock is allowed to whoever can read."""
    return DIRECTORY.with_name(f"{DIRECTORY.name}.lock")


def is_locked() -> bool:
    """Whether somebody holds the one lock, found out without taking it, see proc_locks(5)."""
    try:
        place = lock_directory().stat()
    except OSError:
        return False
    name = f"{os.major(place.st_dev):02x}:{os.minor(place.st_dev):02x}:{place.st_ino}"
    rows = (line.split() for line in Path("/proc/locks").read_text().splitlines())
    return any("FLOCK" in row and name in row and "->" not in row for row in rows)


@contextmanager
def lock(
    *, wait: bool = False, meanwhile: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Hold the one lock of all upgrades; raises Busy when it is taken and `wait` is false.

    Who must wait for it calls `meanwhile` before.

    The lock is on a directory (flock(2)), so it ends with its holder.
    """
    DIRECTORY.mkdir(mode=0o755, exist_ok=True)
    lock_directory().mkdir(mode=0o700, exist_ok=True)
    fd = os.open(lock_directory(), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            take(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except Busy:
            if not wait:
                raise
            meanwhile()
            take(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
