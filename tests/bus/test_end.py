"""What belongs to the end of every upgrade: the watchdog is at rest, and programs have been run."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import struct
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from issu_systemd import hooks, record, settle, watchdog, wayback
from issu_systemd.phase import Phase
from issu_systemd.record import Record
from issu_systemd.systemd import Manager
from tests.bus.conftest import Places
from tests.bus.fake import Fake, State
from tests.bus.test_settle import AGENT, call_main, story_in


@pytest.fixture(autouse=True)
def still_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state of this machine's kernel is of no concern here, and takes a while to read."""
    monkeypatch.setattr("issu_systemd.continuity.snapshot", lambda source: {})


@pytest.fixture
def pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, int]]:
    """A pipe in place of a watchdog, and its other end."""
    path = tmp_path / "watchdog0"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    monkeypatch.setattr(watchdog, "CLASS", tmp_path)
    monkeypatch.setattr(fcntl, "ioctl", lambda fd, number, argument: struct.pack("i", 60))
    yield path, reader
    os.close(reader)


def told(places: Places) -> dict[str, str]:
    """Text by id of the findings in the report."""
    document = json.loads((places.history / "x.json").read_text())
    return {found["id"]: found["text"] for found in document["findings"]}


def armed(path: Path) -> dict[str, object]:
    return {"device": str(path), "seconds": 60, "before": 30, "armed": True}


def test_restore_disarms_what_a_dead_agent_left_armed(
    pid1: Fake, places: Places, pipe: tuple[Path, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    record.save(story_in(Phase.RELEASE, watchdog=armed(pipe[0])))
    pid1.be(State())
    assert call_main(monkeypatch, pid1, AGENT) == 0
    assert os.read(pipe[1], 4096).endswith(b"V")
    assert watchdog._held == {}
    assert not {"watchdog-lost", "watchdog-runs"} & set(told(places))


def test_acceptance_disarms_and_tells_in_the_report_if_it_could_not(
    manager: Manager, pid1: Fake, places: Places, tmp_path: Path
) -> None:
    story = story_in(Phase.ACCEPT, watchdog=armed(tmp_path / "gone"))
    record.save(story)
    pid1.be(State(units={"multi-user.target": "active"}))
    settle.accept(manager, story, [])
    assert "gone cannot be opened" in told(places)["watchdog-lost"]
    assert story.result == "accepted"


def test_the_way_back_goes_on_with_it(
    manager: Manager, pid1: Fake, places: Places, pipe: tuple[Path, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Armed through the end of the upgrade, until the agent leaves for the old root."""
    monkeypatch.setattr(wayback, "free", lambda node: None)
    there = partial(Manager, pid1.address, peer_to_peer=False)
    monkeypatch.setattr("issu_systemd.systemd.Manager", there)
    story = story_in(Phase.VERIFY, watchdog=armed(pipe[0]), source={"device": "/dev/nosuch"})
    record.save(story)
    pid1.be(State())
    watchdog.take_over(story)
    wayback.begin(manager, story, "it is ill")
    [held] = watchdog._held
    assert held == str(pipe[0])
    with suppress(BlockingIOError):  # nothing was written yet
        assert b"V" not in os.read(pipe[1], 4096)

    dead = watchdog._held.pop(held)  # who has decided is killed, and starts again
    os.kill(dead.child, signal.SIGKILL)
    os.waitpid(dead.child, 0)
    os.close(dead.fd)
    assert wayback.go() == 0
    assert held in watchdog._held

    of = Record("y", "", target={"device": "/dev/nosuch"})
    wayback.take(of)
    assert of.watchdog == armed(pipe[0])
    of.way_back = {}
    settle.finish(manager, of)  # and its end, wherever it is, disarms it
    assert os.read(pipe[1], 4096).endswith(b"V")
    assert watchdog._held == {}


@pytest.mark.parametrize(("troubles", "ran"), [([], True), (["frr.service is failed"], False)])
def test_a_program_that_fails_is_in_the_report_of_what_was_accepted(
    manager: Manager, pid1: Fake, places: Places, troubles: list[str], *, ran: bool
) -> None:
    program = hooks.PLACES[0] / "accept.d/10-x"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\ntest -e {places.record} && echo it has the record; exit 4\n")
    program.chmod(0o755)
    story = story_in(Phase.ACCEPT)
    record.save(story)
    pid1.be(State(units={"multi-user.target": "active"}))
    settle.accept(manager, story, troubles)
    found = told(places)
    assert ("hook" in found) == ran
    if ran:
        assert "ended with 4: it has the record" in found["hook"]
    assert story.result == ("failed" if troubles else "accepted")
