"""`issu start`: what it prints and how it ends, on a stand-in for PID 1."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest

from issu_systemd import follow, record
from issu_systemd.errors import IssuError, Refused, RolledBack
from issu_systemd.phase import Phase
from issu_systemd.record import Record
from issu_systemd.systemd import Manager
from tests.bus.conftest import Places
from tests.bus.fake import Fake, State

DEVICE = "/dev/disk/by-uuid/12-34"
UNIT = r"issu@dev-disk-by\x2duuid-12\x2d34.service"
START = ["StartUnit", UNIT, "replace"]


@pytest.fixture(autouse=True)
def on_the_stand_in(pid1: Fake, places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "Manager", partial(Manager, pid1.address, peer_to_peer=False))
    monkeypatch.setattr(follow, "RECORD", places.record)
    monkeypatch.setattr(follow, "LOOK_SEC", 0.01)
    places.history.mkdir()


def report(places: Places, id: str, **more: Any) -> None:
    document = {"id": id, "result": "accepted", "error": None} | more
    (places.history / f"{id}.json").write_text(json.dumps(document))


def reporting(places: Places, monkeypatch: pytest.MonkeyPatch, **more: Any) -> None:
    """The agent writes a report of its own while its job runs."""
    wait = Manager.wait_job

    def wait_job(self: Manager, job: int, deadline: float) -> str | None:
        report(places, "20260802", **more)
        return wait(self, job, deadline)

    monkeypatch.setattr(Manager, "wait_job", wait_job)


def test_it_ends_when_services_are_about_to_stop(
    pid1: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    assert follow.follow(DEVICE, block=True) == 0
    assert pid1.calls("StartUnit") == [START]
    assert "release: every service stops now" in capsys.readouterr().out


def test_without_blocking_it_ends_at_once(pid1: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    pid1.be(State(results={UNIT: ""}))
    assert follow.follow(DEVICE, block=False) == 0
    assert pid1.calls("StartUnit") == [START]
    assert capsys.readouterr().out == ""


def test_phases_are_told_once_each(
    pid1: Fake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pid1.be(State(results={UNIT: ""}))
    wait, looks = Manager.wait_job, iter(range(9))

    def wait_job(self: Manager, job: int, deadline: float) -> str | None:
        n = next(looks)
        if n == 2:
            story = Record(id="x", started="y")
            for phase in (Phase.PREFLIGHT, Phase.STAGE):
                story.enter(phase)
            record.save(story)
        elif n == 4:
            pid1.emit(job, UNIT, "done")
        return wait(self, job, deadline)

    monkeypatch.setattr(Manager, "wait_job", wait_job)
    assert follow.follow(DEVICE, block=True) == 0
    assert [line.split(":")[0].strip() for line in capsys.readouterr().out.splitlines()][:3] == [
        "preflight",
        "stage",
        "release",
    ]


def test_a_refusal(pid1: Fake, places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    report(places, "20260801")
    pid1.be(State(results={UNIT: "failed"}))
    reporting(places, monkeypatch, result="refused", error="no file system")
    with pytest.raises(Refused, match="no file system"):
        follow.follow(DEVICE, block=True)


def test_a_failure(pid1: Fake, places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    pid1.be(State(results={UNIT: "failed"}))
    reporting(places, monkeypatch, result="failed", error="a.service did not stop")
    with pytest.raises(IssuError, match=r"a\.service did not stop") as caught:
        follow.follow(DEVICE, block=True)
    assert not isinstance(caught.value, Refused)


@pytest.mark.parametrize("old", [None, "accepted", "refused"])
def test_an_agent_that_died_unheard_is_not_taken_for_an_earlier_upgrade(
    pid1: Fake, places: Places, old: str | None
) -> None:
    if old:
        report(places, "20260801", result=old, error="of yesterday")
    pid1.be(State(results={UNIT: "failed"}))
    with pytest.raises(IssuError) as caught:
        follow.follow(DEVICE, block=True)
    assert not isinstance(caught.value, Refused)
    assert "of yesterday" not in str(caught.value)
    assert UNIT in str(caught.value)
    assert caught.value.hint


def test_an_undo_is_waited_for(pid1: Fake, places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job has failed, and ExecStopPost= still brings the services back; then it reports."""
    job = {"job": [900, "x", "done"]}
    pid1.be(
        State(
            units={UNIT: "deactivating"},
            results={UNIT: "failed"},
            then={"ListUnits": [[job], [{"unit": [UNIT, "failed"]}, job]]},
        )
    )
    units = Manager.units

    def look(self: Manager) -> Any:
        found = units(self)
        if [unit.active for unit in found] == ["failed"]:
            report(places, "20260802", result="failed", error="killed")
        return found

    monkeypatch.setattr(Manager, "units", look)
    with pytest.raises(IssuError, match="the upgrade failed: killed"):
        follow.follow(DEVICE, block=True)


def test_a_unit_that_is_not_installed(pid1: Fake) -> None:
    gone = ["org.freedesktop.systemd1.NoSuchUnit", f"Unit {UNIT} not found."]
    pid1.be(State(errors={"StartUnit": gone}))
    with pytest.raises(IssuError, match="StartUnit"):
        follow.follow(DEVICE, block=True)


def live(places: Places, phase: Phase = Phase.RELEASE) -> Record:
    """A live upgrade runs."""
    story = Record(id="20260802", started="", strategy="live", phase=phase)
    record.save(story, places.record)
    return story


@pytest.mark.parametrize(
    ("result", "raised"),
    [("accepted", None), ("rolled-back", RolledBack), ("failed", IssuError)],
)
def test_live_is_followed_to_its_end(
    places: Places,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    result: str,
    raised: type[IssuError] | None,
) -> None:
    story = live(places)
    ways = iter((Phase.SWITCH, Phase.ARRIVE))

    def go_on(_: float) -> None:
        if phase := next(ways, None):
            story.phase = phase
            record.save(story, places.record)
            return
        report(places, "20260802", result=result, error="nginx.service did not come back")
        places.record.unlink()

    monkeypatch.setattr(follow.time, "sleep", go_on)
    if raised is None:
        assert follow.follow(DEVICE, block=True) == 0
        assert "20260802: accepted" in capsys.readouterr().out
        return
    with pytest.raises(raised, match="nginx"):
        follow.follow(DEVICE, block=True)
    said = capsys.readouterr().out
    assert said.index("switch") < said.index("arrive")


def test_live_that_left_no_report(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    live(places)
    monkeypatch.setattr(follow.time, "sleep", lambda _: places.record.unlink())
    with pytest.raises(IssuError, match="no report"):
        follow.follow(DEVICE, block=True)


def test_one_that_waits_to_be_accepted_is_not_waited_for(
    places: Places, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    story = live(places)

    def go_on(_: float) -> None:
        story.phase, story.deadline_usec = Phase.ACCEPT, 1
        record.save(story, places.record)

    monkeypatch.setattr(follow.time, "sleep", go_on)
    assert follow.follow(DEVICE, block=True) == 0
    assert "waits for `issu accept`" in capsys.readouterr().out
