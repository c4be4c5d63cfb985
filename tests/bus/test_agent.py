"""The agent where it refuses, and arrive.py where there was no switch: nothing may have changed."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from issu_systemd import agent, arrive, continuity, gate, record
from issu_systemd.phase import ORDER, Phase
from issu_systemd.record import Record
from issu_systemd.systemd import Manager
from tests.bus.conftest import Places
from tests.bus.fake import Fake, State

UNIT = "issu@-dev-nosuch.service"
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
