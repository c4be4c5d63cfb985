"""An upgrade as it goes, told by org.issu1, while the bus and the service come and go."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from .client import JOB, Client, job_path
from .errors import NoSuchJob, Unreachable

LOOK_SEC = 1.0  # read again after so long even if no signal came
AWAY_SEC = 900.0  # a bus may be away as long as every deadline of an upgrade allows
UNKNOWN_SEC = 15.0  # a service that has just come may not have found the job yet


class State(NamedTuple):
    """Where an upgrade stands; `result` is empty while it runs, `away`: as it was last seen."""

    id: str
    phase: str = ""
    percent: int = -1
    result: str = ""
    error: str = ""
    away: bool = False


def follow(client: Client, id: str) -> Iterator[State]:
    """Each state of an upgrade once, the last with its result.

    Raises Unreachable when the bus or the service stays away, NoSuchJob when there is no such job.
    """
    path, state, told = job_path(id), State(id), State(id)
    seen = time.monotonic()
    while not state.result:
        client.signals.clear()
        try:
            state = read(id, client.properties(path, JOB))
            seen = time.monotonic()
        except (Unreachable, NoSuchJob) as error:
            limit = AWAY_SEC if isinstance(error, Unreachable) else UNKNOWN_SEC
            if time.monotonic() - seen > limit:
                raise
            state = told._replace(away=True)
        if state != told:
            told = state
            yield state
        if not state.result:
            client.wait(LOOK_SEC)


def read(id: str, job: dict[str, Any]) -> State:
    """A job's properties as a state."""
    percent = (job.get("Progress") or [-1])[0]
    return State(id, job["Phase"], percent, job["Result"], job["Error"])
