"""/run/issu/record.json: the baton handed from the old root's code to the new root's.

A wire format between two versions of this package: SCHEMA counts changes that an older reader could
not bear, unknown keys are ignored, missing ones take their default. Golden files are in the tests.
All times are CLOCK_MONOTONIC microseconds, which a switch of roots does not disturb.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
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
SKIP = DIRECTORY / "skip"  # units the new root must not start; read by data/issu-generator


def now_usec() -> int:
    """CLOCK_MONOTONIC in microseconds, the clock of PID 1's unit timestamps."""
    return time.monotonic_ns() // 1000


@dataclass
class Record:
    """One upgrade, from its request to its report."""

    id: str
    started: str
    unit: str = ""
    phase: Phase | None = None
    phases: list[dict[str, Any]] = field(default_factory=list)  # name, start_usec, end_usec
    source: dict[str, Any] = field(default_factory=dict)  # device, fstype, os, version, systemd
    target: dict[str, Any] = field(default_factory=dict)
    old_dev: int = 0  # st_dev of the root we leave
    new_dev: int = 0  # st_dev of the root we go to
    stage: str = ""  # where the new root is mounted in the old one
    stage_made: bool = False  # that directory was ours to make
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

    def find(self, id: str, severity: str, text: str, way_out: str = "") -> None:
        """Add a finding for the report; one sentence is told once."""
        found = {"id": id, "severity": severity, "text": text, "way_out": way_out}
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
        raise RecordError(f"{name} cannot be read: {error}") from error
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


def write_atomically(path: Path, text: str) -> None:
    """Replace `path` by a file holding `text`, on disk before it is seen; raises OSError."""
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


@contextmanager
def lock(*, wait: bool = False) -> Iterator[None]:
    """Hold the one lock of all upgrades; raises Busy when it is taken and `wait` is false.

    The lock is on the directory itself, so it leaves no trace and ends with its holder.
    """
    DIRECTORY.mkdir(mode=0o755, exist_ok=True)
    fd = os.open(DIRECTORY, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        take(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(fd)
