"""How everything is stopped: the order of what PID 1 is asked, and who is killed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from issu_systemd import gate, record, release
from issu_systemd.errors import IssuError
from issu_systemd.phase import Phase
from issu_systemd.record import Record
from issu_systemd.settings import Settings
from issu_systemd.systemd import Manager
from tests.bus.conftest import Places
from tests.bus.fake import HALT, Fake, State

SIGKILL = 9
AGENT = "issu@-dev-sdb2.service"
ISOLATE = ["StartUnit", HALT, "isolate"]
NEVER = 1_000_000  # SIGKILLs that a unit takes


@pytest.fixture
def story(tmp_path: Path) -> Record:
    found = Record(id="x", started="y", unit=AGENT, stage=str(tmp_path / "sysroot"))
    for phase in (Phase.PREFLIGHT, Phase.STAGE):
        found.enter(phase)
    return found


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The waits of `stop_units`; no test asserts a time."""
    monkeypatch.setattr(release, "KILL_AGAIN_SEC", 0.01)
    monkeypatch.setattr(release, "KILL_GRACE_SEC", 10.0)


def kill(unit: str) -> list[Any]:
    return ["KillUnit", unit, "all", SIGKILL]


# --- stopping -----------------------------------------------------------------------------------


def test_isolate_comes_first_and_nobody_is_killed(
    manager: Manager, pid1: Fake, story: Record
) -> None:
    pid1.be(State(stops={"a.service": 0, "b.socket": 0}))
    release.stop_units(manager, story, 60.0)
    assert pid1.calls("StartUnit", "KillUnit") == [ISOLATE]
    assert pid1.calls()[0] == ISOLATE
    assert manager.jobs() == []
    assert story.findings == []


def test_with_nothing_to_stop(manager: Manager, pid1: Fake, story: Record) -> None:
    release.stop_units(manager, story, 60.0)
    assert pid1.calls("StartUnit", "KillUnit") == [ISOLATE]


def test_what_is_late_is_killed_and_nothing_else(
    manager: Manager, pid1: Fake, story: Record
) -> None:
    """Not who has stopped, not who waits for its turn, not who is being started."""
    other = [7, "other.service", "start", "running"]
    pid1.be(
        State(
            stops={"good.service": 0, "late.service": 1, "later.service": 1},
            waiting=["dbus.service"],
            jobs=[other],
            then={"KillUnit": [[], [{"job": [7, "other.service", "done"]}]]},
        )
    )
    release.stop_units(manager, story, 0.01)
    calls = pid1.calls("StartUnit", "ListJobs", "KillUnit")
    assert calls[:2] == [ISOLATE, ["ListJobs"]]  # who is late is asked after the deadline
    assert calls[2:4] == [kill("late.service"), kill("later.service")]
    assert pid1.calls("KillUnit") == calls[2:4]
    assert [finding["id"] for finding in story.findings] == ["stop-timeout"] * 2
    assert "late.service did not stop within 0.01 s" in story.findings[0]["text"]
    assert story.findings[0]["way_out"]


def test_it_is_killed_again_for_each_of_its_stop_commands(
    manager: Manager, pid1: Fake, story: Record
) -> None:
    pid1.be(State(stops={"late.service": 4, "good.service": 0}))
    release.stop_units(manager, story, 0.01)
    assert pid1.calls("KillUnit") == [kill("late.service")] * 4
    assert len(story.findings) == 1  # told once


def test_who_stops_meanwhile_is_not_killed_again(
    manager: Manager, pid1: Fake, story: Record
) -> None:
    pid1.be(State(stops={"one.service": 1, "three.service": 3}))
    release.stop_units(manager, story, 0.01)
    kills = pid1.calls("KillUnit")
    assert kills.count(kill("one.service")) == 1
    assert kills.count(kill("three.service")) == 3
    assert len(kills) == 4


def test_who_is_gone_when_it_is_to_be_killed_is_no_failure(
    manager: Manager, pid1: Fake, story: Record
) -> None:
    """A scope may end, and be forgotten, between the list of the jobs and the signal."""
    gone = ["org.freedesktop.systemd1.NoSuchUnit", "Unit session-1.scope not loaded."]
    pid1.be(
        State(
            stops={"late.service": 1},
            jobs=[[7, "session-1.scope", "stop", "running"]],
            errors={"KillUnit session-1.scope": gone},
            then={"KillUnit": [[{"job": [7, "session-1.scope", "done"]}]]},
        )
    )
    release.stop_units(manager, story, 0.01)
    assert kill("late.service") in pid1.calls("KillUnit")


def test_who_does_not_stop_at_all_is_named(
    manager: Manager, pid1: Fake, story: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release, "KILL_GRACE_SEC", 0.2)
    pid1.be(State(stops={"good.service": 0, "stuck.service": NEVER}))
    with pytest.raises(IssuError) as caught:
        release.stop_units(manager, story, 0.01)
    assert "stuck.service" in str(caught.value)
    assert "good.service" not in str(caught.value)
    assert caught.value.hint
    kills = pid1.calls("KillUnit")
    assert len(kills) >= 2
    assert kills == [kill("stuck.service")] * len(kills)


@pytest.mark.parametrize("result", ["failed", "canceled", "dependency"])
def test_an_isolate_that_fails_ends_it(
    manager: Manager, pid1: Fake, story: Record, result: str
) -> None:
    """As when somebody else's transaction replaces ours; nobody is killed for that."""
    pid1.be(State(then={"StartUnit": [[{"job": [101, HALT, result]}]]}, stops={"a": NEVER}))
    with pytest.raises(IssuError, match=result):
        release.stop_units(manager, story, 60.0)
    assert pid1.calls("KillUnit") == []


def test_an_isolate_that_pid_1_refuses(manager: Manager, pid1: Fake, story: Record) -> None:
    text = "Transaction is destructive."
    pid1.be(State(errors={f"StartUnit {HALT}": ["org.freedesktop.systemd1.X", text]}))
    with pytest.raises(IssuError, match=text):
        release.stop_units(manager, story, 60.0)


def test_it_waits_until_no_job_is_left(manager: Manager, pid1: Fake, story: Record) -> None:
    """The target may be reached while something that no one ordered after it still stops."""
    pid1.be(
        State(
            jobs=[[7, "tmp.mount", "stop", "waiting"]],
            then={"ListJobs": [[], [{"job": [7, "tmp.mount", "done"]}]]},
        )
    )
    pid1.be(
        State(
            jobs=[[7, "other.service", "restart", "running"]],
            then={"ListJobs": [[{"job": [7, "other.service", "done"]}]]},
        )
    )
    release.stop_units(manager, story, 60.0)
    assert pid1.calls("ListJobs") == [["ListJobs"]] * 2  # seen once, and gone when asked again


# --- preparing ----------------------------------------------------------------------------------

UNITS = {
    "frr.service": "active",
    "reload.service": "reloading",
    "dead.service": "inactive",
    "bad.service": "failed",
    "dbus.socket": "active",
    "apt.timer": "active",
    "asic.service": "active",
    "networking.service": "active",
    "ifup@eth0.service": "active",
    "ifup@eth1.service": "inactive",
    "srv.mount": "active",
    "multi-user.target": "active",
    "init.scope": "active",
    AGENT: "active",
}
CHOSEN = Settings(keep=("asic.service", "dead.service"))


def drop_in(places: Places, unit: str) -> list[str]:
    return (places.system / f"{unit}.d" / gate.NAME).read_text().splitlines()


@pytest.fixture
def ready(manager: Manager, pid1: Fake, places: Places, story: Record) -> Iterator[State]:
    """A system to be prepared, with what it is to write watched."""
    story.skip = ["vendor-hw-reset.service"]
    state = State(
        units=UNITS,
        watch=[
            str(places.record),
            str(places.issu / "in-progress"),
            str(places.issu / "skip"),
            str(places.system / f"{HALT}.d" / gate.NAME),
            str(places.system / "asic.service.d" / gate.NAME),
            str(places.system / "networking.service.d" / gate.NAME),
        ],
    )
    pid1.be(state)
    yield state


def test_everything_is_written_before_pid_1_reloads(
    manager: Manager, pid1: Fake, story: Record, ready: State
) -> None:
    release.prepare(manager, story, CHOSEN)
    assert pid1.calls()[-1] == ["Reload"]
    assert pid1.calls("Reload") == [["Reload"]]
    assert pid1.seen("Reload") == [ready.watch]
    assert pid1.seen("ListUnits")[0] == []  # and nothing before the units were known


def test_what_is_noted_of_the_system(
    manager: Manager, places: Places, story: Record, ready: State
) -> None:
    release.prepare(manager, story, CHOSEN)
    assert ready
    assert story.default_target == "multi-user.target"
    active = {unit for unit, state in UNITS.items() if state in ("active", "reloading")}
    assert set(story.before) == active
    assert story.before == sorted(story.before)
    assert story.kept == ["asic.service", "ifup@eth0.service", "networking.service"]
    assert (places.issu / "skip").read_text() == "vendor-hw-reset.service\n"
    assert (places.issu / "in-progress").read_text() == "x\n"
    assert record.load().before == story.before  # a dead agent's heir knows it too


@pytest.mark.parametrize(
    ("mechanism", "run"), [("switch-root", ["/run"]), ("soft-reboot", [])], ids=str
)
def test_what_mounts_go_along(
    manager: Manager, story: Record, ready: State, mechanism: str, run: list[str]
) -> None:
    """PID 1 takes the patent's critical file systems; of /run one mechanism takes no mounts."""
    story.mechanism = mechanism
    release.prepare(manager, story, replace(CHOSEN, carry_mounts=("/var/lib/element",)))
    assert ready
    assert story.carried == ["/proc", "/sys", "/dev", "/var/lib/element", *run]
    assert story.mounts["/proc"] == Path("/proc").stat().st_dev
    assert "/" in story.mounts


def test_what_is_stopped_is_ordered_before_the_target(
    manager: Manager, places: Places, story: Record, ready: State
) -> None:
    release.prepare(manager, story, CHOSEN)
    assert ready
    stopped = ["apt.timer", "dbus.socket", "frr.service", "reload.service"]
    lines = drop_in(places, HALT)
    assert sorted(line for line in lines if line.startswith("Conflicts=")) == [
        f"Conflicts={unit}" for unit in stopped
    ]
    assert sorted(line for line in lines if line.startswith("After=")) == [
        f"After={unit}" for unit in stopped
    ]


def test_only_what_runs_is_among(
    manager: Manager, places: Places, story: Record, ready: State
) -> None:
    release.prepare(manager, story, CHOSEN)
    assert ready
    written = {path.parent.name for path in places.system.glob(f"*.d/{gate.NAME}")}
    units = ["asic.service", "networking.service", "ifup@eth0.service", HALT]
    assert written == {f"{unit}.d" for unit in units}
    assert "ExecStop=" in drop_in(places, "ifup@eth0.service")


@pytest.mark.parametrize("can", [True, False], ids=["255", "252"])
def test_pid_1_is_asked_whether_it_spares_processes(
    manager: Manager, pid1: Fake, places: Places, story: Record, ready: State, *, can: bool
) -> None:
    """By capability: whether its units have that property."""
    ready.properties = {"": {"SurviveFinalKillSignal": False}} if can else {}
    pid1.be(ready)
    release.prepare(manager, story, CHOSEN)
    line = "SurviveFinalKillSignal=yes"
    assert (line in drop_in(places, "asic.service")) is can
    assert (line in drop_in(places, "networking.service")) is can


def test_a_reload_that_pid_1_refuses(
    manager: Manager, pid1: Fake, places: Places, story: Record, ready: State
) -> None:
    """What was written is undone by whoever catches this."""
    ready.errors = {"Reload": ["org.freedesktop.DBus.Error.Failed", "not enough space on /run"]}
    pid1.be(ready)
    with pytest.raises(IssuError, match="not enough space"):
        release.prepare(manager, story, CHOSEN)
    assert release.undo_files()
    assert not (places.issu / "in-progress").exists()
    assert not (places.issu / "skip").exists()
    assert list(places.system.iterdir()) == []
    assert not release.undo_files()  # a second time there is nothing to do
