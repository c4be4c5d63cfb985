"""What the jobs on the bus are: one upgrade each, seen from its request, its record or its report.

Pure: values in, values out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .contract import Typed, job_path
from .phase import Phase
from .record import Record
from .report import SCHEMA
from .request import Request

IDLE = "idle"
NO_PROGRESS = (-1, "", 0)
DEPTH = 1
END = 100
# Percent at which a phase begins, and what is told of it. It says what is behind, not how long the
# rest will take. The way back may follow on any of the three before it.
PERCENT = {
    "halt": {
        Phase.PREFLIGHT: 0, Phase.STAGE: 10, Phase.RELEASE: 50, Phase.SWITCH: 65,
        Phase.ARRIVE: 70, Phase.VERIFY: 80, Phase.ACCEPT: 95, Phase.BACK: 97,
    },
    "live": {
        Phase.PREFLIGHT: 0, Phase.STAGE: 10, Phase.RELEASE: 30, Phase.SWITCH: 40,
        Phase.ARRIVE: 45, Phase.VERIFY: 85, Phase.ACCEPT: 95, Phase.BACK: 97,
    },
}  # fmt: skip
MESSAGES = {
    Phase.PREFLIGHT: "checking the target", Phase.STAGE: "making the new root ready",
    Phase.RELEASE: "stopping services", Phase.SWITCH: "changing roots",
    Phase.ARRIVE: "starting services on the new root", Phase.VERIFY: "verifying the new root",
    Phase.ACCEPT: "ending, or waiting to be accepted", Phase.BACK: "going back to the old root",
}  # fmt: skip
CANCELLABLE = (Phase.PREFLIGHT, Phase.STAGE, Phase.RELEASE)
FINDING = ("id", "severity", "text", "way_out")
_ID = re.compile(r"[A-Za-z0-9_]{1,128}")


@dataclass(frozen=True)
class Job:
    """One upgrade; `result` is "" while it runs, `unit` is known while it does."""

    id: str
    target: str
    phase: str
    strategy: str = "halt"
    unit: str = ""
    uid: int = 0
    findings: tuple[dict[str, str], ...] = ()
    result: str = ""
    error: str = ""
    left: bool = False  # services were stopped or restarted for it
    deadline_usec: int = 0  # of its acceptance


def is_id(id: str) -> bool:
    """Whether an id can be part of an object path."""
    return bool(_ID.fullmatch(id))


def of_request(asked: Request) -> Job:
    """One that no agent has taken on yet."""
    return Job(asked.id, asked.target, Phase.PREFLIGHT, asked.strategy or "halt", asked.unit,
               asked.uid)  # fmt: skip


def of_record(story: Record) -> Job:
    """One that runs."""
    return Job(
        id=story.id, target=text(story.target.get("device")),
        phase=str(story.phase or Phase.PREFLIGHT), strategy=story.strategy, unit=story.unit,
        uid=story.uid, findings=findings(story.findings), error=story.error or "",
        left=story.start_of(Phase.RELEASE) is not None,
        deadline_usec=getattr(story, "deadline_usec", None) or 0,
    )  # fmt: skip


def of_report(document: Mapping[str, Any]) -> Job:
    """One that has ended, from its report as any version wrote it."""
    phases = [text(p.get("name")) for p in document.get("phases") or () if isinstance(p, dict)]
    target, uid = document.get("target"), document.get("uid")
    return Job(
        id=text(document.get("id")),
        target=text(target.get("device")) if isinstance(target, dict) else "",
        phase=phases[-1] if phases else Phase.PREFLIGHT,
        strategy=text(document.get("strategy")) or "halt",
        uid=uid if isinstance(uid, int) and 0 <= uid < 1 << 32 else 0,
        findings=findings(document.get("findings") or ()),
        result=text(document.get("result")) or "failed", error=text(document.get("error")),
        left=Phase.RELEASE in phases,
    )  # fmt: skip


def findings(found: Any) -> tuple[dict[str, str], ...]:
    """Findings with the keys of the contract and no other."""
    return tuple(
        {key: text(one.get(key)) for key in FINDING} for one in found if isinstance(one, dict)
    )


def text(value: object) -> str:
    """A string, "" for what is not known."""
    return "" if value is None else str(value)


def progress(job: Job | None) -> tuple[int, str, int]:
    """Percent, message and depth. In one job the percent never falls."""
    if job is None:
        return NO_PROGRESS
    if job.result:
        return END, job.result, DEPTH
    table = PERCENT.get(job.strategy, PERCENT["halt"])
    if job.phase not in MESSAGES:
        return 0, job.phase, DEPTH
    phase = Phase(job.phase)
    return table[phase], MESSAGES[phase], DEPTH


def allow_cancel(job: Job) -> bool:
    """Whether everything is still as it was, or can be made so: up to the change of roots."""
    return not job.result and job.phase in CANCELLABLE


def lost(job: Job, started: str, error: str) -> dict[str, Any]:
    """The report of a job whose agent ended without one."""
    return {
        "schema": SCHEMA, "id": job.id, "result": "failed", "strategy": job.strategy,
        "mechanism": None, "source": {}, "target": {"device": job.target}, "started": started,
        "phases": [], "outage_usec": 0, "units": [], "continuity": {}, "findings": [],
        "error": error, "uid": job.uid,
    }  # fmt: skip


def row(document: Mapping[str, Any]) -> dict[str, Typed]:
    """An upgrade as ListHistory tells it; what is not known is left out."""
    job = of_report(document)
    source = document.get("source")
    outage = document.get("outage_usec")
    found = {
        key: Typed("s", value)
        for key, value in {
            "id": job.id, "result": job.result, "strategy": job.strategy,
            "started": text(document.get("started")),
            "source": text(source.get("device")) if isinstance(source, dict) else "",
            "target": job.target, "error": job.error,
        }.items() if value
    }  # fmt: skip
    if isinstance(outage, int) and not isinstance(outage, bool) and 0 <= outage < 1 << 64:
        found["outage_usec"] = Typed("t", outage)
    if is_id(job.id):
        found["job"] = Typed("o", job_path(job.id))
    return found


def values(job: Job) -> dict[str, Any]:
    """The properties of a job's object."""
    return {
        "Id": job.id, "Target": job.target, "Phase": str(job.phase), "Progress": progress(job),
        "AllowCancel": allow_cancel(job), "Uid": job.uid, "Findings": told(job.findings),
        "Result": job.result, "Error": job.error,
    }  # fmt: skip


def told(found: Any) -> list[dict[str, Typed]]:
    """Findings as Check and Findings tell them."""
    return [{key: Typed("s", value) for key, value in one.items()} for one in findings(found)]
