"""The end of every upgrade: what is started again, what is forgotten, and that no trace is left."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from issu_systemd import continuity, gate, record, release, settle, verify
from issu_systemd.phase import ORDER, Phase
from issu_systemd.record import Record
from issu_systemd.systemd import Manager
from tests.bus.conftest import Places
from tests.bus.fake import Fake, State

AGENT = "issu@-dev-sdb2.service"
BEFORE = {
    "frr.service": "inactive",
    "dbus.socket": "inactive",
    "apt.timer": "inactive",
    "multi-user.target": "inactive",
    "kept.service": "active",
    "srv.mount": "active",
    "session-1.scope": "inactive",
    "user@0.service": "inactive",
    "user-runtime-dir@0.service": "inactive",
}


def story_in(phase: Phase, **more: Any) -> Record:
    """An upgrade that got as far as `phase`."""
    here = Path("/").stat().st_dev
    story = Record(id="x", started="y", unit=AGENT, old_dev=here)
    story.default_target = "multi-user.target"
    for step in ORDER[: ORDER.index(phase) + 1]:
        story.enter(step)
    for key, value in more.items():
        setattr(story, key, value)
    return story


@pytest.fixture(autouse=True)
def still_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state of this machine's kernel is of no concern here, and takes a while to read."""
    monkeypatch.setattr(continuity, "snapshot", lambda source: {})


def started(pid1: Fake) -> list[str]:
    return [call[1] for call in pid1.calls("StartUnit")]


# --- bringing back ------------------------------------------------------------------------------


def test_what_was_active_is_started_and_nothing_else(manager: Manager, pid1: Fake) -> None:
    """Neither what cannot be started nor what comes with logind's sessions nor another unit."""
    pid1.be(State(units=BEFORE | {"other.service": "inactive", "other.target": "inactive"}))
    story = story_in(Phase.RELEASE, before=sorted(BEFORE))
    settle.bring_back(manager, story)
    assert [unit for unit in started(pid1) if unit != "kept.service"] == [
        "dbus.socket",  # before a service that has a socket
        "apt.timer",
        "frr.service",
        "multi-user.target",
    ]
    assert story.findings == []


def test_targets_come_last_and_alone(manager: Manager, pid1: Fake) -> None:
    """What a target wants may have been stopped by hand before the upgrade, and stays so."""
    pid1.be(State(units=BEFORE))
    settle.bring_back(manager, story_in(Phase.RELEASE, before=sorted(BEFORE)))
    *others, last = pid1.calls("StartUnit")
    assert last == ["StartUnit", "multi-user.target", "ignore-requirements"]
    assert {mode for _, _, mode in others} == {"replace"}


def test_the_target_that_ends_everything_is_left_first(manager: Manager, pid1: Fake) -> None:
    pid1.be(State(units=BEFORE))
    settle.bring_back(manager, story_in(Phase.RELEASE, before=["frr.service"]))
    calls = pid1.calls("StopUnit", "StartUnit")
    assert calls[0] == ["StopUnit", gate.HALT, "replace"]
    assert calls[1][:2] == ["StartUnit", "frr.service"]


def test_what_does_not_come_back_is_told(manager: Manager, pid1: Fake) -> None:
    """One that fails, one whose dependency fails, and one of systemd-run(1) that is gone.

    PID 1 has never tested the condition of the second one since it was loaded again.
    """
    gone = ["org.freedesktop.systemd1.NoSuchUnit", "Unit run-1.service not found."]
    pid1.be(
        State(
            units={"bad.service": "failed", "dep.service": "inactive", "good.service": "inactive"},
            properties={"dep.service": {"ConditionResult": False}},
            results={"bad.service": "failed", "dep.service": "dependency"},
            errors={"StartUnit run-1.service": gone},
        )
    )
    before = ["bad.service", "dep.service", "good.service", "run-1.service"]
    story = story_in(Phase.RELEASE, before=before)
    settle.bring_back(manager, story)
    told = [finding["text"].split()[0] for finding in story.findings]
    assert told == ["bad.service", "dep.service", "run-1.service"]
    assert {finding["id"] for finding in story.findings} == {"not-back"}


def test_what_comes_by_dependency_only_is_not_told(manager: Manager, pid1: Fake) -> None:
    """network.target and others have RefuseManualStart=; they come with who wants them."""
    text = "Operation refused, unit network.target may be requested by dependency only."
    refused = ["org.freedesktop.systemd1.OnlyByDependency", text]
    pid1.be(
        State(
            units={"network.target": "inactive", "networking.service": "inactive"},
            properties={"network.target": {"CanStart": False}},
            errors={"StartUnit network.target": refused},
            then={"StartUnit": [[{"unit": ["network.target", "active"]}]]},
        )
    )
    story = story_in(Phase.RELEASE, before=["network.target", "networking.service"])
    settle.bring_back(manager, story)
    assert story.findings == []


def test_what_is_skipped_by_its_condition_is_not_told(manager: Manager, pid1: Fake) -> None:
    skipped = {"ConditionResult": False, "ConditionTimestampMonotonic": 7}
    pid1.be(
        State(
            units={"once.service": "inactive"},
            properties={"once.service": skipped},
            results={"once.service": "skipped"},
        )
    )
    story = story_in(Phase.RELEASE, before=["once.service"])
    settle.bring_back(manager, story)
    assert started(pid1) == ["once.service"]
    assert story.findings == []


def test_units_are_started_together(manager: Manager, pid1: Fake) -> None:
    """The first job may wait for the second: both are queued before either is awaited."""
    ended: list[dict[str, Any]] = [
        {"unit": ["a.service", "active"]},
        {"job": [102, "a.service", "done"]},
    ]
    pid1.be(
        State(
            units={"a.service": "inactive", "b.service": "inactive"},
            results={"a.service": ""},
            then={"StartUnit": [[], ended]},
        )
    )
    story = story_in(Phase.RELEASE, before=["a.service", "b.service"])
    settle.bring_back(manager, story)
    assert started(pid1) == ["a.service", "b.service"]
    assert story.findings == []


# --- undo ---------------------------------------------------------------------------------------


def prepared(places: Places, story: Record) -> None:
    """What `release.prepare` has written by then."""
    record.save(story)
    record.write_atomically(record.SKIP, "a.service\n")
    gate.close(["kept.service"], ["frr.service"], survive=True)
    record.write_atomically(record.IN_PROGRESS, f"{story.id}\n")
    assert places.record.exists()


def test_undo_leaves_no_trace_and_a_report(manager: Manager, pid1: Fake, places: Places) -> None:
    story = story_in(Phase.RELEASE, before=["frr.service"])
    prepared(places, story)
    pid1.be(
        State(
            units={"frr.service": "inactive"},
            watch=[str(places.issu / "in-progress"), *map(str, places.system.rglob("*.conf"))],
        )
    )
    settle.undo(manager, story, "it went wrong")
    order = [call[0] for call in pid1.calls("Reload", "StopUnit", "StartUnit")]
    assert order[0] == "Reload"
    assert order.count("Reload") == 1
    gated = [f"{places.issu}/in-progress: empty"]
    assert pid1.seen("Reload") == [gated]  # the drop-ins had gone by then
    assert pid1.seen("StartUnit") == [gated, []]  # the kernel's own units start no more
    assert started(pid1) == ["frr.service", settle.JOURNAL_FLUSH]
    assert list(places.issu.iterdir()) == []
    assert list(places.system.iterdir()) == []
    [report] = places.history.iterdir()
    document = json.loads(report.read_text())
    assert (document["result"], document["error"]) == ("failed", "it went wrong")
    assert [phase["end_usec"] for phase in document["phases"] if not phase["end_usec"]] == []


def test_services_come_back_though_pid1_does_not_reload(
    manager: Manager, pid1: Fake, places: Places
) -> None:
    story = story_in(Phase.RELEASE, before=["frr.service"])
    prepared(places, story)
    refusal = ["org.freedesktop.DBus.Error.Failed", "not enough space available on /run/systemd"]
    pid1.be(State(units={"frr.service": "inactive"}, errors={"Reload": refusal}))
    settle.undo(manager, story, "it went wrong")
    assert started(pid1) == ["frr.service", settle.JOURNAL_FLUSH]
    assert list(places.issu.iterdir()) == list(places.system.iterdir()) == []
    document = json.loads((places.history / "x.json").read_text())
    found = [finding["text"] for finding in document["findings"] if finding["id"] == "reload"]
    assert len(found) == 1
    assert "not enough space" in found[0]


def test_what_was_to_start_all_the_same_is_gated_again_at_the_end(
    manager: Manager, pid1: Fake, places: Places
) -> None:
    story = story_in(Phase.RELEASE, before=["frr.service"], strategy="live")
    prepared(places, story)
    gate.lift([gate.SYSCTL])
    lifted = str(places.system / f"{gate.SYSCTL}.d/{gate.GATE}")
    pid1.be(State(units={"frr.service": "inactive"}, watch=[lifted]))
    settle.undo(manager, story, "it went wrong")
    assert [lifted] in pid1.seen("StartUnit")
    assert pid1.seen("Reload") == [[lifted], []]
    assert list(places.system.iterdir()) == []
    assert started(pid1) == ["frr.service"]  # live: the journal was never stopped


@pytest.mark.parametrize("phase", [Phase.PREFLIGHT, Phase.STAGE])
def test_before_the_release_nothing_is_started(
    manager: Manager, pid1: Fake, places: Places, phase: Phase
) -> None:
    story = story_in(phase, before=["frr.service"])
    record.save(story)
    pid1.be(State(units={"frr.service": "inactive"}))
    settle.undo(manager, story, "no", result="refused")
    assert pid1.calls("StartUnit", "StopUnit", "Reload", "KillUnit") == []
    assert json.loads((places.history / "x.json").read_text())["result"] == "refused"
    assert not places.record.exists()


def test_a_refusal_leaves_the_flag_of_another_upgrade_alone(
    manager: Manager, pid1: Fake, places: Places
) -> None:
    story = story_in(Phase.PREFLIGHT)
    prepared(places, story)
    settle.undo(manager, story, "another upgrade is in progress", result="refused")
    assert {path.name for path in places.issu.iterdir()} == {"in-progress", "skip"}
    assert list(places.system.iterdir())
    assert pid1.calls("Reload") == []


@pytest.mark.parametrize("result", ["refused", "failed"])
def test_an_undo_that_is_cut_off_leaves_its_reason(
    manager: Manager, pid1: Fake, places: Places, monkeypatch: pytest.MonkeyPatch, result: str
) -> None:
    def die(stage: Path, *, made: bool) -> None:
        raise KeyboardInterrupt

    story = story_in(Phase.PREFLIGHT, stage="/nosuch")
    monkeypatch.setattr(settle.facts, "unstage", die)
    with pytest.raises(KeyboardInterrupt):
        settle.undo(manager, story, "it went wrong", result=result)
    monkeypatch.undo()
    left = record.load(places.record)
    assert (left.result, left.error) == (result, "it went wrong")


def call_main(monkeypatch: pytest.MonkeyPatch, pid1: Fake, unit: str) -> int:
    """data/restore's program, on the stand-in."""
    monkeypatch.setattr(settle, "Manager", partial(Manager, pid1.address, peer_to_peer=False))
    monkeypatch.setattr(sys, "argv", ["settle", unit])
    monkeypatch.setattr("issu_systemd.log.setup", lambda upgrade: None)
    return settle.main()


def test_restore_undoes_what_a_dead_agent_left_and_only_once(
    pid1: Fake, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(places, story_in(Phase.RELEASE, before=["frr.service"]))
    pid1.be(State(units={"frr.service": "inactive"}))
    monkeypatch.setenv("SERVICE_RESULT", "signal")
    monkeypatch.setenv("EXIT_CODE", "killed")
    monkeypatch.setenv("EXIT_STATUS", "KILL")
    assert call_main(monkeypatch, pid1, AGENT) == 0
    assert "frr.service" in started(pid1)
    document = json.loads((places.history / "x.json").read_text())
    assert document["error"] == "the agent died in phase release (signal KILL)"
    asked = len(pid1.calls())
    assert call_main(monkeypatch, pid1, AGENT) == 0
    assert len(pid1.calls()) == asked


@pytest.mark.parametrize("other", ["unit", "root", "none"])
def test_restore_leaves_alone_what_is_not_its_own(
    pid1: Fake, places: Places, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    story = story_in(Phase.SWITCH)
    if other == "root":
        story.old_dev += 1
    if other != "none":
        prepared(places, story)
    unit = AGENT if other != "unit" else "issu@-dev-sdc2.service"
    assert call_main(monkeypatch, pid1, unit) == 0
    assert pid1.calls() == []
    assert places.record.exists() == (other != "none")


def test_restore_leaves_alone_what_somebody_is_at(
    pid1: Fake, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(places, story_in(Phase.RELEASE))
    with record.lock():
        assert call_main(monkeypatch, pid1, AGENT) == 0
    assert pid1.calls() == []
    assert places.record.exists()


# --- accept -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("troubles", "result"), [([], "accepted"), (["frr.service is failed"], "failed")]
)
def test_accept_leaves_no_trace_and_a_report(
    manager: Manager, pid1: Fake, places: Places, troubles: list[str], result: str
) -> None:
    story = story_in(Phase.ACCEPT)
    prepared(places, story)
    pid1.be(
        State(
            units={"multi-user.target": "active"},
            watch=[str(places.issu / "in-progress"), *map(str, places.system.rglob("*.conf"))],
        )
    )
    settle.accept(manager, story, troubles)
    assert pid1.seen("Reload") == [[]]
    assert list(places.issu.iterdir()) == []
    document = json.loads((places.history / "x.json").read_text())
    assert (document["result"], document["error"]) == (result, "; ".join(troubles) or None)
    assert document["target"]["systemd"] == "257.13-1~deb13u1"
    assert pid1.calls("StopUnit", "KillUnit", "SoftReboot", "SwitchRoot") == []


def test_failures_from_before_the_switch_are_forgotten_and_later_ones_are_not(
    manager: Manager, pid1: Fake
) -> None:
    story = story_in(Phase.ACCEPT)
    arrived = story.start_of(Phase.ARRIVE) or 0
    old, new = ({"InactiveEnterTimestampMonotonic": arrived + n} for n in (-1, 1))
    pid1.be(
        State(
            units={"old.service": "failed", "new.service": "failed", "good.service": "active"},
            properties={"old.service": old, "new.service": new, "good.service": old},
        )
    )
    settle.clear_old_failures(manager, story)
    assert pid1.calls("ResetFailedUnit") == [["ResetFailedUnit", "old.service"]]


# --- verify -------------------------------------------------------------------------------------


def test_a_healthy_system(manager: Manager, pid1: Fake) -> None:
    pid1.be(State(units={"multi-user.target": "active", "frr.service": "active"}))
    assert verify.verify(manager, story_in(Phase.VERIFY, verify_units=["frr.service"])) == []


def test_a_system_that_becomes_healthy(manager: Manager, pid1: Fake) -> None:
    job = {"job": [7, "x", "done"]}
    pid1.be(
        State(
            units={"multi-user.target": "inactive", "frr.service": "activating"},
            then={
                "ListUnits": [
                    [{"unit": ["multi-user.target", "active"]}, job],
                    [{"unit": ["frr.service", "active"]}, job],
                ]
            },
        )
    )
    assert verify.verify(manager, story_in(Phase.VERIFY, verify_units=["frr.service"])) == []


def test_what_is_wrong_is_told_unit_by_unit(manager: Manager, pid1: Fake) -> None:
    units = {"multi-user.target": "inactive", "frr.service": "failed", "good.service": "active"}
    pid1.be(State(units=units))
    wanted = ["frr.service", "good.service", "nosuch.service"]
    story = story_in(Phase.VERIFY, verify_units=wanted, verify_timeout_usec=1)
    troubles = verify.verify(manager, story)
    assert [trouble.split(" after ")[0] for trouble in troubles] == [
        "multi-user.target is inactive",
        "frr.service is failed",
        "nosuch.service is not loaded",
    ]


def test_nothing_is_undone_twice(places: Places) -> None:
    prepared(places, story_in(Phase.RELEASE))
    assert [release.undo_files() for _ in range(2)] == [True, False]


# --- a rehearsal that the agent has not lived to end ----------------------------------------------


@pytest.mark.parametrize("ours", [True, False])
def test_a_rehearsal_ends_with_its_upgrade(
    manager: Manager, pid1: Fake, places: Places, *, ours: bool
) -> None:
    """And one that somebody else has asked for is left alone."""
    pid1.be(State(units={"issu-rehearsal@dev-sdb2.service": "active", "frr.service": "active"}))
    story = story_in(Phase.PREFLIGHT)
    story.rehearses = ours
    settle.undo(manager, story, "killed")
    stopped = [call[1] for call in pid1.calls("StopUnit") if call[1] != gate.HALT]
    assert stopped == (["issu-rehearsal@dev-sdb2.service"] if ours else [])
