"""issu-watch.service as the agent starts it, and as the end of an upgrade reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from issu_systemd import continuity, record, settle, uevents
from issu_systemd.errors import IssuError
from issu_systemd.phase import ORDER, Phase
from issu_systemd.record import Record
from issu_systemd.systemd import Manager
from tests.bus.conftest import Places
from tests.bus.fake import Fake, State

DISK = "/devices/virtual/block/loop7"
REMOVED = {"action": "remove", "device": DISK, "subsystem": "block"}
CALLS = ("StartUnit", "RestartUnit", "StopUnit")


def listened(*forbidden: dict[str, str]) -> dict[str, Any]:
    """What both runs of the program have written."""
    document = {"devices": 1, "seen": 5, "lost": False, "forbidden": list(forbidden)}
    record.write_atomically(uevents.DEVICES, f"{DISK}\n")
    record.write_atomically(uevents.FOUND, json.dumps(document))
    return document


@pytest.fixture
def story(places: Places) -> Record:
    """An upgrade that is about to end."""
    found = Record(id="x", started="y", old_dev=Path("/").stat().st_dev)
    found.default_target = "multi-user.target"
    for phase in ORDER[: ORDER.index(Phase.ACCEPT) + 1]:
        found.enter(phase)
    return found


# --- begin --------------------------------------------------------------------------------------


def test_it_is_started(manager: Manager, pid1: Fake) -> None:
    uevents.begin(manager)
    asked = [["StopUnit", uevents.UNIT, "replace"], ["StartUnit", uevents.UNIT, "replace"]]
    assert pid1.calls(*CALLS) == asked


def test_one_that_does_not_start_is_an_error(manager: Manager, pid1: Fake) -> None:
    pid1.be(State(results={uevents.UNIT: "failed"}))
    with pytest.raises(IssuError, match=r"issu-watch.service did not start") as raised:
        uevents.begin(manager)
    assert uevents.UNIT in raised.value.hint


def test_one_that_never_starts_is_an_error(
    manager: Manager, pid1: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uevents, "WAIT_SEC", 0.0)
    pid1.be(State(results={uevents.UNIT: ""}))
    with pytest.raises(IssuError):
        uevents.begin(manager)


# --- collect ------------------------------------------------------------------------------------


@pytest.mark.parametrize("forbidden", [[], [REMOVED], [REMOVED, REMOVED | {"action": "add"}]])
def test_what_was_seen_is_told_and_no_trace_is_left(
    manager: Manager, pid1: Fake, places: Places, story: Record, forbidden: list[dict[str, str]]
) -> None:
    document = listened(*forbidden)
    assert uevents.collect(manager, story) == document
    assert pid1.calls(*CALLS) == [
        ["RestartUnit", uevents.UNIT, "replace"],
        ["StopUnit", uevents.UNIT, "replace"],
    ]
    assert [f["id"] for f in story.findings] == ["uevent"] * len(forbidden)
    for finding, event in zip(story.findings, forbidden, strict=True):
        assert f"{event['action']} of {DISK} (block)" in finding["text"]
    assert list(places.issu.iterdir()) == []


def test_where_nobody_listened_nobody_is_asked(
    manager: Manager, pid1: Fake, places: Places, story: Record
) -> None:
    assert uevents.collect(manager, story) is None
    assert pid1.calls(*CALLS) == []
    assert story.findings == []


@pytest.mark.parametrize("written", [None, "{", ""])
def test_what_was_not_seen_is_told(
    manager: Manager, pid1: Fake, places: Places, story: Record, written: str | None
) -> None:
    """The second run has failed, or has written what cannot be read."""
    listened()
    uevents.FOUND.unlink()
    if written is not None:
        uevents.FOUND.write_text(written)
    assert uevents.collect(manager, story) is None
    assert [finding["id"] for finding in story.findings] == ["uevents"]
    assert list(places.issu.iterdir()) == []
    *_, stop, reset = pid1.calls("StopUnit", "ResetFailedUnit")
    assert (stop[0], reset) == ("StopUnit", ["ResetFailedUnit", uevents.UNIT])  # not left failed


def test_a_pid_1_that_refuses_is_told(
    manager: Manager, pid1: Fake, places: Places, story: Record
) -> None:
    listened()
    refused = ["org.freedesktop.systemd1.NoSuchUnit", "Unit issu-watch.service not found."]
    pid1.be(State(errors={"RestartUnit": refused}))
    assert uevents.collect(manager, story) is None
    assert [finding["id"] for finding in story.findings] == ["uevents"]
    assert list(places.issu.iterdir()) == []


# --- in the report ------------------------------------------------------------------------------


@pytest.mark.parametrize("forbidden", [[], [REMOVED]])
def test_it_stands_in_the_report(
    manager: Manager,
    pid1: Fake,
    places: Places,
    story: Record,
    monkeypatch: pytest.MonkeyPatch,
    forbidden: list[dict[str, str]],
) -> None:
    monkeypatch.setattr(continuity, "snapshot", lambda source: {})
    document = listened(*forbidden)
    pid1.be(State(units={"multi-user.target": "active"}))
    settle.accept(manager, story, [])
    told = json.loads((places.history / "x.json").read_text())
    assert told["uevents"] == document
    assert [f["id"] for f in told["findings"]] == ["uevent"] * len(forbidden)
    assert list(places.issu.iterdir()) == []
