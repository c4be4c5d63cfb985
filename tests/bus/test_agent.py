"""The agent where it refuses, and arrive.py where there was no switch: nothing may have changed."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from issu_systemd import (
    agent,
    arrive,
    continuity,
    describe,
    devices,
    facts,
    gate,
    herald,
    live,
    preflight,
    record,
    request,
)  # fmt: skip
from issu_systemd.errors import IssuError
from issu_systemd.evidence import Facts
from issu_systemd.phase import ORDER, Phase
from issu_systemd.record import Record
from issu_systemd.request import Request
from issu_systemd.settings import Settings
from issu_systemd.systemd import Manager
from tests.bus.conftest import Places
from tests.bus.fake import Fake, State

UNIT = "issu@-dev-nosuch.service"
HERE = os.stat("/").st_dev  # noqa: PTH116
CHANGES = ("StartUnit", "StopUnit", "KillUnit", "Reload", "SoftReboot", "SwitchRoot")


@pytest.fixture(autouse=True)
def on_the_stand_in(pid1: Fake, places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    there = partial(Manager, pid1.address, peer_to_peer=False)
    monkeypatch.setattr(agent, "Manager", there)
    monkeypatch.setattr("issu_systemd.systemd.Manager", there)  # for arrive, which imports it late
    monkeypatch.setattr("issu_systemd.log.setup", lambda upgrade: None)
    monkeypatch.setattr(continuity, "snapshot", lambda source: {})


@pytest.fixture
def status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """What PID 1 hears by sd_notify(3)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as inbox:
        inbox.bind(str(tmp_path / "notify"))
        inbox.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield inbox


def heard(inbox: socket.socket) -> list[str]:
    found = []
    while True:
        try:
            found.append(inbox.recv(4096).decode())
        except BlockingIOError:
            return found


def run(monkeypatch: pytest.MonkeyPatch, target: str) -> int:
    monkeypatch.setattr(sys, "argv", ["agent", target, UNIT])
    return agent.main()


def report(places: Places) -> dict[str, Any]:
    [file] = places.history.iterdir()
    document: dict[str, Any] = json.loads(file.read_text())
    assert file.stem == document["id"]
    return document


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "reason"),
    [("/dev/nosuch", "no such device"), ("dev/nosuch", "no such device"), ("FILE", "not a block")],
)
def test_a_refusal_changes_nothing_and_says_why(
    pid1: Fake,
    places: Places,
    monkeypatch: pytest.MonkeyPatch,
    status: socket.socket,
    tmp_path: Path,
    target: str,
    reason: str,
) -> None:
    (tmp_path / "file").touch()
    assert run(monkeypatch, target.replace("FILE", str(tmp_path / "file"))) == agent.REFUSED == 3
    assert pid1.calls(*CHANGES) == []
    assert list(places.issu.iterdir()) == []
    assert not places.system.exists()
    document = report(places)
    assert document["result"] == "refused"
    assert reason in document["error"]
    assert [phase["name"] for phase in document["phases"]] == ["preflight"]
    messages = heard(status)
    assert f"STATUS=refused: {document['error']}" in messages[-1]
    assert [message for message in messages if "READY=1" in message] == []


def test_a_second_upgrade_is_refused_and_leaves_the_first_alone(
    pid1: Fake, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    with record.lock():
        record.save(Record(id="first", started="y"))
        before = places.record.read_bytes()
        assert run(monkeypatch, "/dev/nosuch") == agent.REFUSED
    assert places.record.read_bytes() == before
    assert pid1.calls(*CHANGES) == []
    assert report(places)["result"] == "refused"
    assert "another upgrade" in report(places)["error"]


def test_without_pid_1_nothing_is_done(
    places: Places, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(agent, "Manager", partial(Manager, f"unix:path={tmp_path}/nobody"))
    assert run(monkeypatch, "/dev/nosuch") != 0
    assert list(places.issu.iterdir()) == []


# --- the record, from the first instant ---------------------------------------------------------


def test_the_record_is_there_before_anything_is_looked_at(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def look(target: str) -> devices.Device:
        seen.append(record.load())
        raise IssuError(f"{target}: no such device")

    monkeypatch.setattr(devices, "resolve", look)
    assert run(monkeypatch, "/dev/nosuch") == agent.REFUSED
    [story] = seen
    assert (story.phase, story.unit, story.strategy) == (Phase.PREFLIGHT, UNIT, "halt")
    assert story.target == {"device": "/dev/nosuch"}
    assert story.old_dev == HERE  # data/restore undoes by it
    assert report(places)["id"] == story.id
    assert list(places.issu.iterdir()) == []


def test_a_full_run_is_no_reason_not_to_look(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Preflight says what to do about it; "no space left on device" alone would not."""

    def full(story: Record) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(record, "save", full)
    assert run(monkeypatch, "/dev/nosuch") == agent.REFUSED
    assert "no such device" in report(places)["error"]


# --- what was asked for -------------------------------------------------------------------------

ASKED = Request("20260801T101500_1", UNIT, "/dev/nosuch", uid=1000, strategy="live")


def test_a_request_is_what_the_upgrade_is(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    request.leave(ASKED)
    assert run(monkeypatch, "/dev/nosuch") == agent.REFUSED
    found = report(places)
    assert (found["id"], found["uid"], found["strategy"]) == ("20260801T101500_1", 1000, "live")
    assert "no such device" in found["error"]
    assert list(places.issu.iterdir()) == []  # taken
    assert run(monkeypatch, "/dev/nosuch") == agent.REFUSED  # `systemctl start` has none
    last = max(reports(places), key=lambda document: document["id"])
    assert (last["uid"], last["strategy"]) == (0, "halt")


def test_a_request_for_another_unit_is_left_alone(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    request.leave(replace(ASKED, unit="issu@dev-other.service"))
    assert run(monkeypatch, "/dev/nosuch") == agent.REFUSED
    assert report(places)["id"] != ASKED.id
    assert request.peek() == replace(ASKED, unit="issu@dev-other.service")


def test_a_request_while_another_upgrade_runs_is_refused_under_its_own_id(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    request.leave(ASKED)
    with record.lock():
        assert run(monkeypatch, "/dev/nosuch") == agent.REFUSED
    assert report(places)["id"] == ASKED.id
    assert report(places)["target"]["device"] == "/dev/nosuch"


def test_an_unknown_strategy_is_refused(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    request.leave(replace(ASKED, strategy="warm"))
    assert run(monkeypatch, "/dev/nosuch") == agent.REFUSED
    assert report(places)["error"] == "warm is no strategy (there are: halt, live)"


@pytest.fixture
def short_of_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with one finding that forbids an upgrade, which stops for another reason after."""
    device = devices.Device("/dev/sdb2", 2066, "ext4", read_only=False)
    short = Facts(target="/dev/sdb2", target_dev=2066, root_dev=2049, root_device="/dev/sda1",
                  run_free=0)  # fmt: skip

    def no_room() -> tuple[Path, bool]:
        raise IssuError("this is as far as it gets")

    monkeypatch.setattr(devices, "resolve", lambda target: device)
    monkeypatch.setattr(facts, "gather", lambda manager, device, chosen: short)
    monkeypatch.setattr(facts, "stage_directory", no_room)


@pytest.mark.usefixtures("short_of_room")
@pytest.mark.parametrize(
    ("force", "forceable", "reason", "note"),
    [
        ((), {"run-space"}, "/run has 0 MiB free", None),
        (("run-space",), {"run-space"}, "this is as far as it gets", "forced"),
        (("swap",), {"run-space", "swap"}, "/run has 0 MiB free", None),
        (("run-space",), set(), "run-space cannot be forced (these can be: none)", "not looked at"),
        (("run-space", "root"), {"run-space"}, "root cannot be forced (these can be: run-space)",
         "not looked at"),
    ],
    ids=["nothing", "the finding", "another", "not forceable", "one is not forceable"],
)  # fmt: skip
def test_what_is_forced_is_passed_over_and_told(
    places: Places, monkeypatch: pytest.MonkeyPatch, force: tuple[str, ...], forceable: set[str],
    reason: str, note: str | None,
) -> None:  # fmt: skip
    monkeypatch.setattr(preflight, "FORCEABLE", frozenset(forceable))
    request.leave(replace(ASKED, force=force))
    assert run(monkeypatch, "/dev/sdb2") == agent.REFUSED
    found = report(places)
    assert found["error"].startswith(reason), found["error"]
    notes = [f.get("note") for f in found["findings"] if f["id"] == "run-space"]
    assert notes == ([] if note == "not looked at" else [note])


@pytest.mark.parametrize("listens", [True, False])
def test_whoever_listens_is_told_before_anything_stops(
    places: Places, monkeypatch: pytest.MonkeyPatch, *, listens: bool
) -> None:
    heard: list[Phase | None] = []
    left: list[int] = []

    def get_ready(manager: Manager, story: Record, chosen: object) -> None:
        agent.enter(story, Phase.STAGE)

    def leave(manager: Manager, story: Record, chosen: object) -> None:
        left.append(len(heard))
        raise IssuError("it does not leave")

    def service() -> None:
        with herald.listen():
            ready.set()
            while not herald.is_announced():
                time.sleep(0.001)
            heard.append(record.load().phase)
            herald.told()

    monkeypatch.setattr(agent, "inspect", lambda manager, story, chosen: None)
    monkeypatch.setattr(agent, "make_ready", get_ready)
    monkeypatch.setitem(agent.STRATEGIES, "halt", agent.Strategy(get_ready, leave))
    ready, thread = threading.Event(), threading.Thread(target=service)
    if listens:
        thread.start()
        assert ready.wait(10)
    assert run(monkeypatch, "/dev/sdb2") == agent.FAILED
    if listens:
        thread.join(10)
    assert heard == ([Phase.STAGE] if listens else [])
    assert left == [len(heard)]  # and then it left
    assert report(places)["error"] == "it does not leave"


# --- what an earlier upgrade left ---------------------------------------------------------------


def leftover(phase: Phase, **more: Any) -> Record:
    """The record of an upgrade that got as far as `phase`, and nobody is at it."""
    story = Record(id="19990101T000000_0", started="y", unit="issu@dev-other.service")
    story.phase, story.phases = phase, [{"name": phase.value, "start_usec": 1, "end_usec": None}]
    story.old_dev, story.before = HERE, ["frr.service"]
    for key, value in more.items():
        setattr(story, key, value)
    record.save(story)
    return story


@pytest.fixture
def on_this_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "pid1_dev", lambda: HERE)


def reports(places: Places) -> list[dict[str, Any]]:
    """Every report, the oldest first."""
    return [json.loads(file.read_text()) for file in sorted(places.history.iterdir())]


@pytest.mark.usefixtures("on_this_root")
@pytest.mark.parametrize("phase", ORDER[: ORDER.index(Phase.SWITCH) + 1])
def test_what_was_left_on_this_root_is_undone_first(
    pid1: Fake, places: Places, monkeypatch: pytest.MonkeyPatch, phase: Phase
) -> None:
    leftover(phase)
    if phase is not Phase.PREFLIGHT:
        gate.close([], ["frr.service"], survive=False)
    pid1.be(State(units={"frr.service": "inactive"}))
    assert run(monkeypatch, "/dev/nosuch") == agent.REFUSED
    old, new = reports(places)
    assert (old["id"], old["result"]) == ("19990101T000000_0", "failed")
    assert old["error"] == f"the agent died in phase {phase} (its undo was cut off)"
    assert (new["result"], new["error"][:22]) == ("refused", "/dev/nosuch: no such d")
    started = ["StartUnit", "frr.service", "replace"] in pid1.calls("StartUnit")
    assert started is (phase in (Phase.RELEASE, Phase.SWITCH))
    assert list(places.issu.iterdir()) == []
    assert not places.system.exists() or list(places.system.iterdir()) == []


@pytest.mark.usefixtures("on_this_root")
def test_the_next_upgrade_completes_an_undo_that_failed(
    pid1: Fake, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason is that of the first try; while it fails, nothing new begins."""
    first = leftover(Phase.RELEASE, error="hydra.service did not stop", result="failed")
    gate.close([], ["frr.service"], survive=False)
    pid1.be(State(errors={"StopUnit": ["org.freedesktop.DBus.Error.Failed", "not now"]}))
    assert run(monkeypatch, "/dev/nosuch") == agent.REFUSED
    [refusal] = reports(places)
    assert "not now" in refusal["error"]
    assert record.load().id == first.id

    pid1.be(State(units={"frr.service": "inactive"}))
    assert run(monkeypatch, "/dev/nosuch") == agent.REFUSED
    undone, _, last = reports(places)
    assert (undone["id"], undone["error"]) == (first.id, "hydra.service did not stop")
    assert "no such device" in last["error"]
    assert list(places.issu.iterdir()) == []


@pytest.mark.usefixtures("on_this_root")
@pytest.mark.parametrize("where", ["arrive", "verify", "accept", "roll-back", "other root", "torn"])
def test_one_that_has_changed_roots_is_left_alone(
    pid1: Fake, places: Places, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    phase = Phase(where) if where in [*Phase] else Phase.SWITCH
    leftover(phase, old_dev=HERE + (where == "other root"))
    if where == "torn":  # PID 1 is of the one root, / is the other
        monkeypatch.setattr(live, "pid1_dev", lambda: HERE + 1)
    record.write_atomically(record.IN_PROGRESS, "x\n")
    before = places.record.read_bytes()
    assert run(monkeypatch, "/dev/nosuch") == agent.REFUSED
    assert "19990101T000000_0 has changed roots" in report(places)["error"]
    assert "systemctl restart issu-arrive.service" in report(places)["error"]
    assert places.record.read_bytes() == before
    assert (places.issu / "in-progress").exists()
    assert pid1.calls(*CHANGES) == []


def test_a_record_that_cannot_be_read_is_not_overwritten(
    pid1: Fake, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    places.issu.mkdir()
    places.record.write_text("{")
    assert run(monkeypatch, "/dev/nosuch") == agent.REFUSED
    assert "record.json cannot be read" in report(places)["error"]
    assert places.record.read_text() == "{"
    assert pid1.calls(*CHANGES) == []


# --- arrival where there was no switch ----------------------------------------------------------


def test_on_the_old_root_everything_is_undone(
    pid1: Fake, places: Places, status: socket.socket
) -> None:
    """PID 1 answers before it acts, and may go on where it was."""
    here = os.stat("/").st_dev  # noqa: PTH116
    story = Record(id="x", started="y", unit=UNIT, old_dev=here, new_dev=here + 1)
    for phase in ORDER[: ORDER.index(Phase.SWITCH) + 1]:
        story.enter(phase)
    story.before = ["frr.service"]
    record.save(story)
    gate.close([], ["frr.service"], survive=False)
    record.write_atomically(record.IN_PROGRESS, "x\n")
    pid1.be(State(units={"frr.service": "inactive"}))
    assert arrive.main() == 0
    assert "READY=1" in heard(status)[0]  # services wait for it
    assert ["StartUnit", "frr.service", "replace"] in pid1.calls("StartUnit")
    assert list(places.issu.iterdir()) == []
    assert list(places.system.iterdir()) == []
    assert report(places)["result"] == "failed"
    assert "old root" in report(places)["error"]


def test_without_a_record_there_is_nothing_to_do(pid1: Fake, places: Places) -> None:
    assert arrive.main() == 0
    assert pid1.calls() == []
    assert not places.history.exists()


def test_a_record_that_cannot_be_read_is_a_failure(
    pid1: Fake, places: Places, capsys: pytest.CaptureFixture[str]
) -> None:
    places.issu.mkdir()
    places.record.write_text("{")
    assert arrive.main() == 1
    assert pid1.calls() == []
    assert capsys.readouterr().err.startswith("<3>")


@pytest.mark.parametrize(
    ("here", "there", "told"),
    [
        ("none", "none", "none"), ("grub", "none", "grub"), ("none", "grub", "grub"),
        ("extlinux", "grub", "extlinux"),
    ],
)  # fmt: skip
def test_a_boot_loader_that_either_root_names_is_told(here: str, there: str, told: str) -> None:
    story = Record(id="x", started="")
    describe.end(story, Settings(boot_loader=here), Settings(boot_loader=there))
    assert story.boot_loader == told
