"""The reports of past upgrades, and the state of the one that runs: what `issu status` reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from . import record
from .errors import IssuError, RecordError

PLACE = record.HISTORY


def current() -> dict[str, Any] | None:
    """The upgrade that runs, as far as it got; None if none does."""
    try:
        story = record.load()
    except RecordError:
        return None
    return {
        "id": story.id, "result": None, "phase": str(story.phase), "source": story.source,
        "target": story.target, "phases": story.phases, "findings": story.findings,
    }  # fmt: skip


def last() -> dict[str, Any]:
    """The newest report; raises IssuError if there is none."""
    if known := ids():
        return find(known[-1])
    raise IssuError(f"no upgrade is recorded in {PLACE}", hint="issu start DEVICE")


def ids() -> list[str]:
    """The ids of the reports there are, oldest first."""
    return sorted(path.stem for path in PLACE.glob("*.json"))


def find(id: str) -> dict[str, Any]:
    """The report of one upgrade; raises IssuError if there is none or it cannot be read."""
    path = PLACE / f"{Path(id).name}.json"
    try:
        document: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        known = ", ".join(ids()[-5:]) or "none"
        raise IssuError(f"no upgrade {id}", hint=f"the last ones: {known}") from None
    except (OSError, ValueError) as error:
        raise IssuError(f"{path}: {error}") from error
    return document


def one_line(document: dict[str, Any]) -> str:
    """The state of an upgrade in one line, its error in a second."""
    target = document.get("target", {})
    where = " on ".join(target[key] for key in ("os", "device") if target.get(key)) or "?"
    if not document.get("result"):
        return f"{document['id']}: {document['phase']}, going to {where}"
    outage = document.get("outage_usec")
    away = f", outage {outage / 1_000_000:.3f} s" if outage else ""
    error = f"\n  {document['error']}" if document.get("error") else ""
    return f"{document['id']}: {document['result']}, {where}{away}{error}"
