"""An upgrade attended from its start, or from now, to its end, and what that end means."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from . import history, show
from .client import Client
from .errors import IssuError, NoSuchJob, Refused, RolledBack
from .follow import State, follow
from .progress import display

OK = 0
BEFORE = ("", "preflight", "stage")  # every service still runs
STOPS = """\
When the new root is ready every service stops, and this session with them. The upgrade goes on.
  look again with: issu monitor"""
STOPPING = """\
release: every service stops now, and this session with them
  look again with: issu monitor; issu report"""


@dataclass(frozen=True)
class Manner:
    """How an upgrade is followed: from start, rollback and monitor alike."""

    quiet: bool = False
    halts: bool = False  # this session is about to end: say so
    leave: bool = False  # return when services are about to stop
    json: str = "off"
    elapsed: float = 0.0


def attend(client: Client, id: str, manner: Manner) -> int:
    """Show an upgrade as it goes; raises what its end means if that is not good."""
    state, warned = State(id), manner.quiet
    with display(quiet=manner.quiet or manner.json != "off", elapsed=manner.elapsed) as tell:
        for state in follow(client, id):
            if manner.json != "off":
                print(show.as_json(state._asdict(), manner.json), flush=True)
            stops = state.phase not in BEFORE or (state.away and state.phase == "stage")
            if manner.leave and stops and not state.result:
                break
            if manner.halts and state.phase == "stage" and not warned:
                warned = True
                show.printed([STOPS])
            tell(state)
    if not state.result:
        if not manner.quiet:
            print(STOPPING, flush=True)
        return OK
    return ended(client, state, quiet=manner.quiet or manner.json != "off")


def ended(client: Client, state: State, *, quiet: bool) -> int:
    """Say how an upgrade ended; raises Refused, RolledBack or IssuError if not well."""
    hint = f"issu report {state.id}"
    match state.result:
        case "accepted":
            if not quiet:
                print(history.one_line(report_of(client, state)))
            return OK
        case "refused":
            raise Refused(f"refused: {state.error}", hint=hint)
        case "rolled-back":
            raise RolledBack(f"rolled back to the old root: {state.error}", hint=hint)
    raise IssuError(f"the upgrade failed: {state.error}", hint=hint)


def report_of(client: Client, state: State) -> dict[str, Any]:
    """The report of an upgrade, or as much of one as its state tells."""
    try:
        return get_report(client, state.id)
    except IssuError:
        return {"id": state.id, "result": state.result, "error": state.error}


def get_report(client: Client, id: str) -> dict[str, Any]:
    """The report of an upgrade, "" for the last; raises NoSuchJob with the ids that there are."""
    try:
        [text] = client.call("GetReport", "s", id)
    except NoSuchJob as error:
        known = [str(row["id"]) for row in client.call("ListHistory", "u", 5)[0]]
        hint = f"the last ones: {', '.join(reversed(known)) or 'none'}"
        raise NoSuchJob(str(error), hint=hint) from error
    try:
        document: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise IssuError(f"the report {id} is not JSON: {error}") from error
    return document


def phases_of(client: Client, id: str) -> list[dict[str, Any]]:
    """The phases that an upgrade has been through, from its report or the record; maybe none."""
    try:
        document = get_report(client, id)
    except IssuError:  # it has none before its end
        document = history.current() or {}
    return list(document.get("phases", ())) if document.get("id") == id else []
