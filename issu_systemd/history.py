"""The reports of past upgrades, and the state of the one that runs: what `issu status` reads."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from . import glance, record, unfinished
from .errors import IssuError, NoSuchJob, RecordError

PLACE = record.HISTORY


def current() -> dict[str, Any] | None:
    """The upgrade that runs, as far as it got; None if none does."""
    try:
        story = record.load()
    except RecordError:
        return None
    return {
        "id": story.id, "result": None, "phase": str(story.phase), "strategy": story.strategy,
        "source": story.source,
        "target": story.target, "phases": story.phases, "findings": story.findings,
        "accept_deadline_usec": story.deadline_usec, "way_back": story.way_back or None,
    }  # fmt: skip


def last() -> dict[str, Any]:
    """The newest report; raises NoSuchJob if there is none."""
    if known := ids():
        return find(known[-1])
    raise NoSuchJob(f"no upgrade is recorded in {PLACE}", hint="issu start DEVICE")


def ids() -> list[str]:
    """The ids of the reports there are, oldest first."""
    return sorted({path.stem for path in PLACE.glob("*.json")} | unfinished.ids(PLACE))


def rows(most: int) -> list[dict[str, Any]]:
    """Past upgrades as org.issu1's ListHistory gives them: the newest first, 0 for all."""
    found = []
    for id in ids()[::-1][: most or None]:
        document = find(id)
        row = {key: document.get(key) for key in ("result", "strategy", "started", "outage_usec")}
        row |= {key: (document.get(key) or {}).get("device") for key in ("source", "target")}
        row |= {"id": id, "job": f"/org/issu1/job/{id}", "error": document.get("error")}
        found.append({key: value for key, value in row.items() if value is not None})
    return found


def find(id: str) -> dict[str, Any]:
    """The report of one upgrade; raises NoSuchJob or, if it cannot be read, IssuError."""
    path = PLACE / f"{Path(id).name}.json"
    try:
        document: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        if cut_off := unfinished.find(PLACE, path.stem):
            return cut_off
        known = ", ".join(ids()[-5:]) or "none"
        raise NoSuchJob(f"no upgrade {id}", hint=f"the last ones: {known}") from None
    except (OSError, ValueError) as error:
        raise IssuError(f"{path}: {error}") from error
    return document


def one_line(document: dict[str, Any]) -> str:
    """The state of an upgrade in one line, its error in a second."""
    if not document.get("result") and document.get("accept_deadline_usec"):
        target = document.get("target", {})
        where = " on ".join(target[key] for key in ("os", "device") if target.get(key)) or "?"
        return f"{document['id']}: {where}, {deadline(document)}"
    return glance.one_line(document)


def deadline(document: dict[str, Any]) -> str:
    """Until when an upgrade waits to be accepted, and what comes else."""
    left = document["accept_deadline_usec"] / 1e6 - time.clock_gettime(time.CLOCK_BOOTTIME)
    until = datetime.now().astimezone() + timedelta(seconds=left)
    minutes = f"in {left // 60:.0f} min" if left >= 60 else f"in {max(left, 0):.0f} s"
    node = document.get("source", {}).get("device") or "the old root"
    return f"waits for `issu accept` until {until:%H:%M:%S} ({minutes}), else goes back to {node}"


def old_root(document: dict[str, Any]) -> list[str]:
    """Lines on who stands on the root that was left last, were there somebody at the time.

    `document` is the last upgrade, which may have changed nothing.
    """
    accepted = document
    if document.get("result") != "accepted":
        every = (find(id) for id in reversed(ids()))
        accepted = next((one for one in every if one.get("result") == "accepted"), document)
    if came_up := restarted(accepted):
        return [came_up]
    pins = pinned(accepted)
    if pins == []:
        return ["the old root is free now"]
    return [f"old root pinned by {pin}" for pin in pins or ()]


def restarted(document: dict[str, Any]) -> str:
    """That an accepted upgrade's old root runs again, "" if not: the boot loader starts it."""
    if document.get("result") != "accepted" or glance.is_of_this_boot(document):
        return ""
    from . import devices, mounts

    node = devices.node_of(mounts.device_number("/"))
    if not node or node != document.get("source", {}).get("device"):
        return ""
    return f"the machine has restarted since, and runs {node}, the root that was left"


def pinned(document: dict[str, Any]) -> list[str] | None:
    """Who still stands on the root that an upgrade has left, a sentence each; None: nobody asks.

    Asked of the kernel now, for whoever held it at the end of the upgrade may have gone.
    """
    held = any(found["id"] == "old-root-pinned" for found in document.get("findings", ()))
    source = document.get("source", {})
    if not held or "dev" not in source:
        return None
    if os.geteuid() != 0:
        return ["somebody when the upgrade ended; ask as root whether still"]
    from . import oldroot

    found, node = oldroot.holders(source["dev"]), source.get("device")
    with suppress(OSError):  # the device is gone
        if not found and node and not oldroot.is_free(node):
            return ["somebody in another PID namespace"]
    return found
