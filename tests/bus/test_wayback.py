"""The way back by an upgrade: asked for once, taken on once, and what comes if it fails."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from issu_systemd import (
    agent,
    arrive,
    continuity,
    describe,
    mounts,
    record,
    settings,
    settle,
    wayback,
)
from issu_systemd.errors import Busy, NoSuchJob, Refused
from issu_systemd.phase import Phase
from issu_systemd.record import Record
from issu_systemd.settings import Settings
from issu_systemd.systemd import Manager
from tests.bus.conftest import Places
from tests.bus.fake import Fake, State
from tests.bus.test_settle import prepared, story_in

NODE = "/dev/nosuch"
UNIT = "issu@dev-nosuch.service"
REBOOT: list[list[Any]] = [["Reboot"]]


@pytest.fixture(autouse=True)
def on_the_stand_in(pid1: Fake, places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    there = partial(Manager, pid1.address, peer_to_peer=False)
    for module in (agent, settle, wayback):
        monkeypatch.setattr(module, "Manager", there)
    monkeypatch.setattr("issu_systemd.systemd.Manager", there)
    monkeypatch.setattr("issu_systemd.log.setup", lambda upgrade: None)
    monkeypatch.setattr(continuity, "snapshot", lambda source: {})
    monkeypatch.setattr(wayback, "free", lambda node: None)
    monkeypatch.setattr(wayback, "tell", lambda node: None)


def reports(places: Places) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in sorted(places.history.glob("*.json"))]


def way(**more: Any) -> dict[str, Any]:
    return {
        "of": "x", "reason": "it is ill", "reboot": True, "strategy": "live", "target": NODE,
        "settings": {}, "failed_before": ["broken.service"], "verdict_usec": 7,
    } | more  # fmt: skip


def run_agent(monkeypatch: pytest.MonkeyPatch, target: str = NODE) -> int:
    monkeypatch.setattr(sys, "argv", ["agent", target, UNIT])
    return agent.main()


# --- begin --------------------------------------------------------------------------------------


def ill(**more: Any) -> Record:
    """An upgrade whose new root is no good."""
    return story_in(
        Phase.VERIFY, source={"device": NODE}, failed_before=["broken.service"],
        settings={"keep": ["asic.service"]}, **more,
    )  # fmt: skip


def test_it_ends_the_upgrade_and_asks(manager: Manager, places: Places) -> None:
    """A watchdog that somebody else has is not taken along: it would be looked for in vain."""
    story = ill(watchdog={"device": "/dev/watchdog0", "seconds": 60, "armed": False})
    prepared(places, story)
    wayback.begin(manager, story, "frr.service is failed")
    assert [path.name for path in places.issu.iterdir()] == ["way-back.json"]
    assert list(places.system.iterdir()) == []
    [report] = reports(places)
    assert (report["result"], report["error"]) == ("rolled-back", "frr.service is failed")
    assert report["phases"][-1]["name"] == "roll-back"
    asked = wayback.asked()
    assert asked is not None
    assert asked["verdict_usec"] > 0
    assert asked | {"verdict_usec": 7} == way(
        reason="frr.service is failed", strategy="halt", settings={"keep": ["asic.service"]},
        watchdog={},
    )  # fmt: skip


def test_killed_in_between_it_goes_on(
    manager: Manager, places: Places, pid1: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request is there, the report and the end are not: the first reason counts."""
    story = ill()
    story.new_dev = story.old_dev
    prepared(places, story)
    wayback.ask(way(reason="the first reason"))
    assert arrive.main() == 0
    [report] = reports(places)
    assert (report["result"], report["error"]) == ("rolled-back", "the first reason")
    assert pid1.calls("StartUnit")[-1] == ["StartUnit", UNIT, "replace"]
    assert not places.record.exists()


def test_a_pid1_that_will_not_reload_keeps_nobody(
    manager: Manager, places: Places, pid1: Fake
) -> None:
    pid1.be(State(errors={"Reload": ["org.x.NoSpace", "not enough space on /run"]}))
    story = ill()
    prepared(places, story)
    wayback.begin(manager, story, "it is ill")
    assert wayback.is_begun(story)
    assert not places.record.exists()
    assert reports(places)[0]["result"] == "rolled-back"


def test_a_history_that_cannot_be_written_keeps_nobody(manager: Manager, places: Places) -> None:
    story = ill()
    prepared(places, story)
    places.history.write_text("in the way")
    wayback.begin(manager, story, "it is ill")
    assert wayback.is_begun(story)
    assert not places.record.exists()


# --- from verification to the end ---------------------------------------------------------------


def verified(places: Places, **more: Any) -> dict[str, Any]:
    """What arrive.py makes of an upgrade that stands in verify; its report."""
    story = ill(verify_timeout_usec=1, **more)
    prepared(places, story)
    arrive.finish(story)
    [report] = reports(places)
    return report


def test_trouble_begins_the_way_back(pid1: Fake, places: Places) -> None:
    pid1.be(State(units={"multi-user.target": "inactive"}))
    report = verified(places)
    assert report["result"] == "rolled-back"
    assert "multi-user.target is inactive" in report["error"]
    assert (wayback.asked() or {})["reason"] == report["error"]


def test_without_trouble_it_is_accepted(pid1: Fake, places: Places) -> None:
    pid1.be(State(units={"multi-user.target": "active"}))
    assert verified(places)["result"] == "accepted"
    assert wayback.asked() is None


def test_trouble_on_the_way_back_ends_it_where_it_is(pid1: Fake, places: Places) -> None:
    """On the old root there is nothing better to go to; between two healthy roots there is."""
    pid1.be(State(units={"multi-user.target": "inactive"}))
    report = verified(places, way_back=way())
    assert (report["result"], wayback.asked()) == ("failed", None)
    assert pid1.calls("Reboot") == []
    report = verified(places, way_back=way(reboot=False))
    assert report["result"] == "rolled-back"
    assert wayback.asked() is not None


# --- go -----------------------------------------------------------------------------------------


def test_without_a_request_there_is_nothing_to_do(pid1: Fake) -> None:
    assert wayback.go() == 0
    assert pid1.calls() == []


@pytest.mark.parametrize("reboot", [True, False])
@pytest.mark.parametrize(
    ("more", "good"),
    [
        ({}, True),
        ({"results": {UNIT: "failed"}}, False),
        ({"errors": {f"StartUnit {UNIT}": ["org.x.Masked", "Unit is masked."]}}, False),
    ],
    ids=["done", "failed", "masked"],
)
def test_the_agent_is_started_or_else_the_machine_reboots(
    pid1: Fake, more: dict[str, Any], *, good: bool, reboot: bool
) -> None:
    pid1.be(State(**more))
    wayback.ask(way(reboot=reboot))
    assert wayback.go() == (0 if good else 1)
    assert pid1.calls("StartUnit") == [["StartUnit", UNIT, "replace"]]
    assert pid1.calls("Reboot") == (REBOOT if reboot and not good else [])


def test_a_request_to_go_where_one_is_comes_too_late(
    pid1: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounts, "block_number", lambda node: mounts.device_number("/"))
    wayback.ask(way())
    assert wayback.go() == 0
    assert wayback.asked() is None
    assert pid1.calls("StartUnit", "Reboot") == []


# --- in the agent -------------------------------------------------------------------------------


@pytest.mark.parametrize("reboot", [True, False])
def test_one_that_is_refused(
    pid1: Fake, places: Places, monkeypatch: pytest.MonkeyPatch, *, reboot: bool
) -> None:
    """Between two healthy roots it is a refusal like any other."""
    wayback.ask(way(reboot=reboot))
    assert run_agent(monkeypatch) == agent.REFUSED
    [report] = reports(places)
    assert report["result"] == ("failed" if reboot else "refused")
    assert "no such device" in report["error"]
    assert ("the machine reboots" in report["error"]) == reboot
    assert report["way_back"] == {"of": "x", "reason": "it is ill", "reboot": reboot}
    assert report["steps"] == {"verdict_usec": 7}
    assert pid1.calls("Reboot") == (REBOOT if reboot else [])
    assert not record.WAY_BACK.exists()


@pytest.mark.parametrize(
    ("reboot", "strategy", "tried"),
    [(True, "live", ["live", "halt"]), (False, "live", ["live"]), (True, "halt", ["halt"])],
)
def test_what_live_refuses_is_tried_with_halt(
    pid1: Fake, monkeypatch: pytest.MonkeyPatch, reboot: bool, strategy: str, tried: list[str]
) -> None:
    """On the way back from a root that is no good, and only then."""
    seen = []

    def refuse(manager: Manager, story: Record, chosen: Settings) -> None:
        assert story.strategy == chosen.strategy
        assert [found["severity"] for found in story.findings] == ["warn"] * len(seen)
        seen.append(chosen.strategy)
        story.find("stray-mount", "block", "/srv is mounted")
        raise Refused("/srv is mounted")

    monkeypatch.setattr(agent, "inspect", refuse)
    wayback.ask(way(reboot=reboot, strategy=strategy))
    assert run_agent(monkeypatch) == agent.REFUSED
    assert seen == tried
    assert pid1.calls("Reboot") == (REBOOT if reboot else [])


def test_an_upgrade_to_another_device_is_none(
    pid1: Fake, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    wayback.ask(way())
    assert run_agent(monkeypatch, "/dev/other") == agent.REFUSED
    [report] = reports(places)
    assert (report["result"], report["way_back"]) == ("refused", None)
    assert record.WAY_BACK.exists()
    assert pid1.calls("Reboot") == []


def test_a_link_names_the_same_device(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(NODE)
    assert wayback.is_same(NODE, str(tmp_path / "link"))
    assert wayback.is_same(NODE, NODE.lstrip("/"))
    assert not wayback.is_same(NODE, "/dev/other")


def test_an_operators_request_is_forgotten_if_an_upgrade_runs(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    for reboot in (False, True):
        wayback.ask(way(reboot=reboot))
        with record.lock():
            assert run_agent(monkeypatch) == agent.REFUSED
        assert record.WAY_BACK.exists() == reboot


@pytest.mark.parametrize("phase", [Phase.STAGE, Phase.RELEASE, Phase.SWITCH])
def test_a_dead_agent_on_the_way_back_reboots(
    pid1: Fake, places: Places, monkeypatch: pytest.MonkeyPatch, phase: Phase
) -> None:
    """Nothing is brought back first: what there was is no good. What was made here goes."""
    stage = places.issu.parent / "sysroot"
    stage.mkdir()
    story = story_in(phase, before=["frr.service"], way_back=way(), stage=str(stage))
    story.stage_made = True
    prepared(places, story)
    monkeypatch.setattr(sys, "argv", ["settle", story.unit])
    assert settle.main() == 0
    assert pid1.calls("StartUnit") == []
    assert pid1.calls("Reboot") == REBOOT
    assert not stage.exists()
    [report] = reports(places)
    assert report["result"] == "failed"


# --- what it goes by ----------------------------------------------------------------------------


def chosen(monkeypatch: pytest.MonkeyPatch, here: Settings, **led: Any) -> Settings:
    monkeypatch.setattr(settings, "load", lambda: here)
    story = Record(id="y", started="", strategy="live", settings=led, way_back=way())
    return wayback.settings_of(story)


def test_the_settings_that_led_here_lead_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """What either root keeps is kept; the root that is no good has no other say, nor its files."""
    monkeypatch.setattr(mounts, "mount_at", lambda point: point == "/srv")
    here = Settings(
        keep=("b.service",), carry_mounts=("/gone",), verify_units=("new.service",),
        accept_mode="manual",
    )  # fmt: skip
    found = chosen(
        monkeypatch, here, keep=["a.service"], carry_mounts=["/srv"], stop_timeout_usec=5,
        unknown="x",
    )  # fmt: skip
    assert found == Settings(
        keep=("a.service", "b.service"), carry_mounts=("/srv",), stop_timeout_usec=5,
        strategy="live", carry_files=(),
    )  # fmt: skip


def test_it_looks_for_no_watchdog(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is armed is handed on; none must not be a reason to stay."""
    assert chosen(monkeypatch, Settings(), watchdog_usec=60_000_000).watchdog_usec == 0


@pytest.mark.parametrize("reboot", [True, False])
def test_the_old_root_is_no_image(monkeypatch: pytest.MonkeyPatch, *, reboot: bool) -> None:
    """What was to be found out of the other root says nothing of this one."""
    asks = {"rehearse": True, "verity": "ab" * 32, "verify_command": ("/bin/false",)}
    monkeypatch.setattr(settings, "load", lambda: Settings(**asks))
    story = Record(id="y", started="", settings=asks if reboot else {})
    assert wayback.settings_of(story) == Settings(**asks)  # control: an upgrade
    story.way_back = way(reboot=reboot)
    found = wayback.settings_of(story)
    assert (found.rehearse, found.verity, found.verify_command) == (False, "", ())


def test_the_way_back_may_mend_the_kernels_state() -> None:
    strict = Settings(verify_continuity="strict")
    for back, wish in (({}, "strict"), (way(reboot=False), "strict"), (way(), "report")):
        story = Record(id="y", started="", way_back=back)
        describe.end(story, strict, Settings())
        assert story.verify_continuity == wish


def test_settings_that_are_wrong_keep_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong() -> Settings:
        raise settings.SettingsError("x.toml: kep")

    monkeypatch.setattr(settings, "load", wrong)
    story = Record(id="y", started="", settings={"keep": ["a.service"]}, way_back=way())
    assert wayback.settings_of(story).keep == ("a.service",)
    story.way_back["reboot"] = False
    with pytest.raises(settings.SettingsError):
        wayback.settings_of(story)


def test_what_may_not_keep_anybody() -> None:
    assert "busy" in wayback.borne(Record(id="y", started="", way_back=way()))
    assert wayback.borne(Record(id="y", started="", way_back=way(reboot=False))) == set()
    assert wayback.borne(Record(id="y", started="")) == set()


# --- asked for by an operator -------------------------------------------------------------------


def accepted(places: Places, id: str, result: str = "accepted") -> None:
    document = {"id": id, "result": result, "strategy": "halt", "source": {"device": f"/dev/{id}"}}
    record.write_atomically(places.history / f"{id}.json", json.dumps(document))


def test_the_last_accepted_one_is_taken_back(pid1: Fake, places: Places) -> None:
    accepted(places, "1")
    accepted(places, "2")
    accepted(places, "3", "failed")
    pid1.be(State(units={"broken.service": "failed", "good.service": "active"}))
    assert wayback.start() == "issu@dev-2.service"
    assert pid1.calls("StartUnit") == [["StartUnit", "issu@dev-2.service", "replace"]]
    asked = wayback.asked() or {}
    assert (asked["of"], asked["reboot"], asked["target"]) == ("2", False, "/dev/2")
    assert asked["failed_before"] == ["broken.service"]


def test_there_is_none(pid1: Fake, places: Places) -> None:
    accepted(places, "3", "failed")
    with pytest.raises(NoSuchJob):
        wayback.start()
    assert pid1.calls("StartUnit") == []


def test_not_while_an_upgrade_runs(pid1: Fake, places: Places) -> None:
    accepted(places, "2")
    with record.lock(), pytest.raises(Busy):
        wayback.start()
    assert wayback.asked() is None
    assert pid1.calls("StartUnit") == []
