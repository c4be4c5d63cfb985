"""What becomes of a healthy upgrade: accepted at once, or as the operator says, or has not said.

The verdict is a file on /run, made once: of two that are given at the same time one wins, and who
is killed while it waits finds it when it is started again. The deadline is on CLOCK_BOOTTIME, which
goes on while the machine is suspended.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from . import mounts, oldroot, record, settle, systemd, wayback
from .errors import IssuError, NoSuchJob, RecordError
from .phase import Phase
from .record import Record

log = logging.getLogger(__name__)

ACCEPT, ROLL_BACK = "accept", "roll-back"
ARRIVE = "issu-arrive.service"
POLL_SEC = 0.2  # until a verdict is seen
LOOK_SEC = 5.0  # between two looks at the old root's device
ANSWER_SEC = 60.0  # for PID 1


class Verdict(NamedTuple):
    """What was decided, and why."""

    word: str
    reason: str


def now_usec() -> int:
    """CLOCK_BOOTTIME in microseconds, see clock_gettime(2)."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000


def waiting() -> Record | None:
    """The upgrade that waits for a verdict, if one does."""
    with suppress(RecordError):
        story = record.load()
        if story.phase is Phase.ACCEPT and story.deadline_usec is not None:
            return story
    return None


def give(word: str) -> None:
    """Accept or take back the upgrade that waits.

    Raises NoSuchJob if none waits, IssuError if the opposite was decided before.
    """
    story = waiting()
    if story is None:
        raise NoSuchJob("no upgrade waits to be accepted", hint="issu status")
    decided = decide(story.id, Verdict(word, "asked for by the operator"))
    with systemd.Manager() as manager:  # it runs, unless somebody has stopped it
        manager.start(ARRIVE)
    if decided.word != word:
        raise IssuError(f"{story.id}: {decided.word} was decided before", hint="issu status")


def decide(id: str, verdict: Verdict) -> Verdict:
    """Note the verdict on an upgrade unless there is one; the one that counts. Raises OSError."""
    draft = record.VERDICT.with_name(f".{record.VERDICT.name}.{threading.get_native_id()}")
    record.write_atomically(draft, json.dumps({"id": id, **verdict._asdict()}))
    try:
        with suppress(FileExistsError):
            os.link(draft, record.VERDICT)  # fails if there is one, see link(2)
    finally:
        draft.unlink(missing_ok=True)
    return decided(id) or verdict


def decided(id: str) -> Verdict | None:
    """The verdict on an upgrade, if there is one."""
    try:
        found = json.loads(record.VERDICT.read_text())
    except (OSError, ValueError):
        return None
    return Verdict(found["word"], found["reason"]) if found["id"] == id else None


def conclude(story: Record) -> None:
    """End an upgrade that is healthy, in phase accept: accept it, or begin the way back."""
    verdict = Verdict(ACCEPT, "") if story.accept_mode == "auto" else wait(story)
    with systemd.connect(time.monotonic() + ANSWER_SEC) as manager:
        if verdict.word == ACCEPT:
            settle.accept(manager, story, [])
        else:
            wayback.begin(manager, story, verdict.reason)


def wait(story: Record) -> Verdict:
    """Wait for the verdict, or for the deadline, which is one.

    Without a connection to PID 1, which would have to queue all its signals for us.
    """
    if story.deadline_usec is None:
        from . import outcome

        record.VERDICT.unlink(missing_ok=True)  # of one that was decided too late
        with systemd.connect(time.monotonic() + ANSWER_SEC) as manager:
            settle.clear_old_failures(manager, story)
        story.compared = story.compared or outcome.continuity_of(story)  # before life goes on
        story.deadline_usec = now_usec() + story.accept_timeout_usec
        record.save(story)
    log.info("waiting for `issu accept` for %s", span(story.deadline_usec - now_usec()))
    systemd.notify(status="waiting for `issu accept`")
    was_free = any(found["id"] == "old-root-free" for found in story.findings)
    look = time.monotonic()
    while (verdict := decided(story.id)) is None:
        if now_usec() >= story.deadline_usec:
            reason = f"not accepted within {span(story.accept_timeout_usec)}"
            return decide(story.id, Verdict(ROLL_BACK, reason))
        if time.monotonic() >= look:
            look = time.monotonic() + LOOK_SEC
            look_at_old_root(story, was_free=was_free)
        time.sleep(POLL_SEC)
    return verdict


def look_at_old_root(story: Record, *, was_free: bool) -> None:
    """Keep as a finding that somebody uses the old root's device, which the way back needs."""
    node = str(story.source.get("device") or "")
    number = mounts.block_number(node)
    if number is None:
        trouble = f"{node} is gone" if node and not Path(node).exists() else ""
    else:
        points = ", ".join(mount.point for mount in mounts.on_device(number))
        taken = was_free and not oldroot.is_free(node)
        trouble = f"{node} is mounted at {points}" if points else f"{node} is in use"
        trouble = trouble if points or taken else ""
    if trouble and trouble not in {found["text"] for found in story.findings}:
        log.warning("%s; a way back would need it", trouble)
        story.find("old-root-used", "warn", trouble, "let go of it: a way back would need it")
        record.save(story)


def span(usec: int) -> str:
    """A time as an operator says it, to the second: "45 min", "90 s"."""
    seconds = round(usec / 1_000_000)
    return f"{seconds // 60} min" if seconds and seconds % 60 == 0 else f"{seconds} s"
