"""What becomes of the jobs, seen from the files of upgrades, and what the bus is told of it.

The service need not have started a job to see it, nor have been there when it began.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple

from . import contract, devices, history, jobs, mounts, record, request
from .errors import IssuError, NoSuchJob, RecordError, Refused
from .jobs import Job
from .record import Record
from .request import Request

log = logging.getLogger(__name__)

SILENT = "the agent ended and left no report; journalctl -u "


class Signal(NamedTuple):
    """A signal of the Manager."""

    member: str
    args: tuple[Any, ...]


class Observer:
    """The jobs that run, as of the last look; all of it can be read again from disk."""

    def __init__(self) -> None:
        self.running: dict[str, Job] = {}
        self.ended: list[Job] = []  # since the bus was told
        self.asked: Request | None = request.peek()  # no record is seen of it yet
        self._stamp: tuple[int, int] | None = None
        self._story: Record | None = None
        self._past: tuple[int, dict[str, Any]] = 0, {}
        self.look()
        self.ended.clear()

    def look(self) -> None:
        """Look again at what runs and what has ended."""
        found: dict[str, Job] = {}
        if story := self._read():
            found[story.id] = jobs.of_record(story)
        if self.asked and self.asked.id not in found and not report_of(self.asked.id):
            found[self.asked.id] = jobs.of_request(self.asked)
        else:
            self.asked = None
        self.ended += [result_of(job) for id, job in self.running.items() if id not in found]
        self.running = found

    def find(self, id: str) -> Job:
        """A job that runs or has ended; raises NoSuchJob."""
        self.look()
        if not jobs.is_id(id):
            raise NoSuchJob(f"no upgrade {request.shown(id)}", hint="see ListHistory")
        return self.running.get(id) or jobs.of_report(history.find(id))

    def current(self) -> Job | None:
        """The one job that changes the machine, or is about to."""
        own = self.running.get(self._story.id) if self._story else None
        return own or next(iter(self.running.values()), None)

    def give_up(self, asked: Request, error: str) -> None:
        """No agent will take on what was asked for."""
        self.look()
        if self.asked is not asked:
            return
        request.take(asked.unit)
        self.asked = None
        if job := self.running.pop(asked.id, None):
            self.ended.append(result_of(job, error))

    def values(self) -> dict[str, Any]:
        """The properties of the Manager that change."""
        job = self.current()
        return {
            "Phase": str(job.phase) if job else jobs.IDLE,
            "Progress": jobs.progress(job),
            "InProgress": job is not None,
            "CurrentJob": contract.job_path(job.id) if job else "/",
            "AcceptDeadlineUSec": job.deadline_usec if job else 0,
            **self._of_past(),
        }  # fmt: skip

    def _read(self) -> Record | None:
        """The record, read again only if it has changed; one that cannot be read counts as none."""
        try:
            status = record.RECORD.stat()
        except OSError:
            self._stamp = self._story = None
            return None
        stamp = (status.st_mtime_ns, status.st_ino)
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._story = record.load(record.RECORD)
            except RecordError as error:
                log.error("%s", error)
                self._story = None
        return self._story

    def _of_past(self) -> dict[str, Any]:
        """What the reports say, read again only when there is another one."""
        try:
            stamp = history.PLACE.stat().st_mtime_ns
        except OSError:
            stamp = 0
        if stamp != self._past[0] or not self._past[1]:
            self._past = stamp, {"LastError": last_error(), "PreviousRoot": previous_root()}
        return self._past[1]


def report_of(id: str) -> Job | None:
    """A job that has ended; None if there is no report, or none that can be read."""
    try:
        return jobs.of_report(history.find(id))
    except IssuError:
        return None


def result_of(job: Job, error: str = "") -> Job:
    """How a job that is gone has ended; where its agent left no report, one is written."""
    if known := report_of(job.id):
        return known
    error = error or SILENT + job.unit
    document = jobs.lost(job, datetime.now(UTC).isoformat(timespec="seconds"), error)
    try:
        record.write_atomically(record.HISTORY / f"{job.id}.json", json.dumps(document) + "\n")
    except OSError as trouble:
        log.error("%s: %s, and this could not be kept: %s", job.id, error, trouble)
    return jobs.of_report(document)


def last_error() -> str:
    """Why the last upgrade ended as it did, "" if it was accepted or there is none."""
    known = history.ids()
    job = report_of(known[-1]) if known else None
    return job.error if job else ""


def previous_root() -> str:
    """The device of the root that was left last, "" if it is none that could be gone back to."""
    for id in reversed(history.ids()):
        with suppress(IssuError):
            document = history.find(id)
            if document.get("result") == "accepted":
                node = str((document.get("source") or {}).get("device") or "")
                return node if is_other_root(node) else ""
    return ""


def is_other_root(node: str) -> bool:
    """Whether a device is there and holds another root than the one that runs."""
    try:
        devices.find(node)
    except Refused:
        return False
    return node != running_root()


def running_root() -> str:
    """The device of the root that runs, "" if it is on none."""
    return devices.node_of(mounts.device_number("/")) or ""


def signals(before: dict[str, Job], after: dict[str, Job], ended: list[Job]) -> Iterator[Signal]:
    """What the bus is told between two looks; what began and ended in between is told too."""
    for job in (*after.values(), *(job for job in ended if job.id not in before)):
        place = contract.job_path(job.id)
        if job.id not in before:
            yield Signal("JobNew", (job.id, place))
        if job.id not in before or job.phase != before[job.id].phase:
            yield Signal("PhaseChanged", (job.id, place, str(job.phase)))
    for job in ended:
        if job.left:
            yield Signal("PrepareForUpgrade", (False,))
        yield Signal("JobRemoved", (job.id, contract.job_path(job.id), job.result))
