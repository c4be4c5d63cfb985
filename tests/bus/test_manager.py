"""What is said to PID 1, and what is heard of it: signals, jobs, errors, deadlines."""

from __future__ import annotations

import gc
import time
from pathlib import Path

import pytest

from issu_systemd.errors import IssuError
from issu_systemd.systemd import Job, Manager, Unit
from tests.bus import fake as stand_in
from tests.bus.fake import Fake, State

LONG = 60.0  # seconds; a test that comes near it has failed


def soon() -> float:
    return time.monotonic() + LONG


def connect(pid1: Fake) -> Manager:
    return Manager(pid1.address, peer_to_peer=False)


# --- asking -------------------------------------------------------------------------------------


def test_it_subscribes(manager: Manager, pid1: Fake) -> None:
    """PID 1 sends no signals to whom has not asked for them."""
    assert manager
    assert pid1.calls() == [["Subscribe"]]


def test_version_and_default_target(manager: Manager) -> None:
    assert manager.version() == "257.13-1~deb13u1"
    assert manager.default_target() == "multi-user.target"


@pytest.mark.parametrize(
    ("offered", "there"),
    [
        (["SoftReboot"], True),
        (["Reload", "SoftReboot", "SwitchRoot"], True),
        (["SwitchRoot"], False),
        (["SoftRebootNow"], False),
        (["MySoftReboot"], False),
        ([], False),
    ],
)
def test_offers_by_introspection(
    manager: Manager, pid1: Fake, offered: list[str], *, there: bool
) -> None:
    pid1.be(State(offers=offered))
    assert manager.offers("SoftReboot") is there
    assert pid1.calls() == [["Introspect"]]  # it was not called to find out


def test_units(manager: Manager, pid1: Fake) -> None:
    assert manager.units() == []
    pid1.be(State(units={r"dev-a\x2db.mount": "active", "frr.service": "failed"}))
    assert manager.units() == [
        Unit(r"dev-a\x2db.mount", "loaded", "active", "active"),
        Unit("frr.service", "loaded", "failed", "failed"),
    ]


def test_jobs(manager: Manager, pid1: Fake) -> None:
    assert manager.jobs() == []
    pid1.be(State(jobs=[[7, "a.service", "stop", "running"], [8, "b.service", "start", "waiting"]]))
    assert manager.jobs() == [
        Job(7, "a.service", "stop", "running"),
        Job(8, "b.service", "start", "waiting"),
    ]


@pytest.mark.parametrize(
    "unit", ["init.scope", "getty@tty1.service", r"dev-a\x2db.device", "0start.service"]
)
def test_properties_of_one_unit(manager: Manager, pid1: Fake, unit: str) -> None:
    stamp = 0x0123456789ABCDEF  # 64 bits
    own = {"ConditionResult": False, "ActiveEnterTimestampMonotonic": stamp}
    pid1.be(State(units={unit: "active", "other.service": "failed"}, properties={unit: own}))
    found = manager.properties(unit)
    assert (found["Id"], found["ActiveState"]) == (unit.encode(), b"active")
    assert found["ConditionResult"] is False
    assert found["ActiveEnterTimestampMonotonic"] == stamp


# --- errors -------------------------------------------------------------------------------------


def test_nobody_there(tmp_path: Path) -> None:
    nobody = Manager(f"unix:path={tmp_path}/nobody")
    with pytest.raises(IssuError, match="PID 1 cannot be reached"), nobody:
        pass


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("org.freedesktop.systemd1.NoSuchUnit", "Unit nosuch.service not found."),
        ("org.freedesktop.systemd1.OnlyByDependency", "Operation refused, dependency only."),
        ("org.freedesktop.systemd1.SomethingNewInVersion999", "There is only so much room."),
        ("org.freedesktop.DBus.Error.AccessDenied", "Access denied"),
    ],
)
def test_an_error_of_pid_1_names_the_method_and_keeps_its_words(
    manager: Manager, pid1: Fake, name: str, text: str
) -> None:
    pid1.be(State(errors={"StartUnit nosuch.service": [name, text]}))
    with pytest.raises(IssuError) as caught:
        manager.start("nosuch.service")
    assert "StartUnit" in str(caught.value)
    assert "nosuch.service" in str(caught.value)
    assert text in str(caught.value)
    # It becomes STATUS= and a line of the journal, and pystemd has a joke to add.
    assert len(str(caught.value).splitlines()) == 1
    assert "b'" not in str(caught.value)


def test_an_error_in_answer_to_a_question(manager: Manager, pid1: Fake) -> None:
    failed = ["org.freedesktop.DBus.Error.Failed", "No."]
    pid1.be(State(errors=dict.fromkeys(("ListUnits", "ListJobs", "GetAll", "Get"), failed)))
    for ask in (manager.units, manager.jobs, manager.version, lambda: manager.properties("x")):
        with pytest.raises(IssuError, match="No"):
            ask()


def test_an_unknown_method(manager: Manager) -> None:
    with pytest.raises(IssuError, match="PowerOffGently"):
        manager.call("PowerOffGently")


# --- jobs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("result", ["done", "failed", "canceled", "timeout", "dependency"])
@pytest.mark.parametrize("early", [False, True], ids=["after-the-answer", "before-the-answer"])
def test_the_end_of_a_job_is_awaited(
    manager: Manager, pid1: Fake, result: str, *, early: bool
) -> None:
    names = ["a.service"] if early else []
    pid1.be(State(results={"a.service": result}, early=names))
    assert manager.wait_job(manager.start("a.service"), soon()) == result
    assert pid1.calls() == [["StartUnit", "a.service", "replace"]]


def test_the_mode_of_a_job(manager: Manager, pid1: Fake) -> None:
    manager.start("a.service", "ignore-requirements")
    assert pid1.calls("StartUnit") == [["StartUnit", "a.service", "ignore-requirements"]]


def test_a_result_can_be_asked_for_again(manager: Manager) -> None:
    job = manager.start("a.service")
    assert [manager.wait_job(job, soon()) for _ in range(2)] == ["done", "done"]


def test_another_jobs_end_is_not_taken_for_it(manager: Manager, pid1: Fake) -> None:
    pid1.be(State(results={"a.service": "", "b.service": "failed"}))
    a, b = manager.start("a.service"), manager.start("b.service")
    assert manager.wait_job(b, soon()) == "failed"
    assert manager.wait_job(a, 0.0) is None
    pid1.emit(a, "a.service", "done")
    assert manager.wait_job(a, soon()) == "done"


@pytest.mark.parametrize("wait_sec", [-1.0, 0.0, 0.05])
def test_a_deadline_passes(manager: Manager, pid1: Fake, wait_sec: float) -> None:
    pid1.be(State(results={"a.service": ""}))
    job = manager.start("a.service")
    assert manager.wait_job(job, time.monotonic() + wait_sec) is None


def test_what_has_ended_counts_although_the_deadline_has_passed(
    manager: Manager, pid1: Fake
) -> None:
    pid1.be(State(early=["a.service"]))
    assert manager.wait_job(manager.start("a.service"), 0.0) == "done"


# --- waiting for a condition --------------------------------------------------------------------


def test_a_condition_that_holds_is_asked_once(manager: Manager) -> None:
    asked: list[int] = []
    assert manager.wait_until(lambda: not asked.append(1), 0.0)  # type: ignore[func-returns-value]
    assert len(asked) == 1


def test_a_condition_is_asked_again_when_a_job_ends(manager: Manager, pid1: Fake) -> None:
    """Three jobs end, each after it was asked; the third one makes the condition true."""
    ends = [{"job": [n, "x.service", "done"]} for n in range(3)]
    pid1.be(State(then={"ListUnits": [[ends[0]], [ends[1]], [ends[2], {"unit": ["a", "active"]}]]}))
    assert manager.wait_until(lambda: bool(manager.units()), soon())
    assert pid1.calls() == [["ListUnits"]] * 4


def test_a_condition_without_a_job_is_asked_again_too(manager: Manager, pid1: Fake) -> None:
    pid1.be(State(then={"ListUnits": [[{"unit": ["a", "active"]}]]}))
    assert manager.wait_until(lambda: bool(manager.units()), soon())
    assert pid1.calls() == [["ListUnits"]] * 2


@pytest.mark.parametrize("wait_sec", [-1.0, 0.05])
def test_a_condition_that_never_holds(manager: Manager, pid1: Fake, wait_sec: float) -> None:
    assert not manager.wait_until(lambda: bool(manager.units()), time.monotonic() + wait_sec)
    assert pid1.calls("ListUnits")


# --- killing ------------------------------------------------------------------------------------


def test_kill_goes_to_every_process_of_the_unit(manager: Manager, pid1: Fake) -> None:
    manager.kill("a.service", 9)
    assert pid1.calls("KillUnit") == [["KillUnit", "a.service", "all", 9]]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        # What systemd 252 and 257 say; to a unit that is loaded and idle both say nothing.
        ("org.freedesktop.systemd1.NoSuchUnit", "Unit a.service not loaded."),
        ("org.freedesktop.systemd1.NoSuchProcess", "No matching processes to kill"),
    ],
    ids=["unloaded", "no-process"],
)
def test_to_kill_what_has_ended_meanwhile_is_no_error(
    manager: Manager, pid1: Fake, name: str, text: str
) -> None:
    pid1.be(State(errors={"KillUnit": [name, text]}))
    manager.kill("a.service", 9)


def test_any_other_error_of_kill_is_one(manager: Manager, pid1: Fake) -> None:
    pid1.be(State(errors={"KillUnit": ["org.freedesktop.DBus.Error.AccessDenied", "Denied"]}))
    with pytest.raises(IssuError, match="KillUnit"):
        manager.kill("a.service", 9)


# --- the lifetime of the callback ---------------------------------------------------------------


def test_signals_arrive_after_a_garbage_collection(pid1: Fake) -> None:
    """pystemd keeps no reference to its callback: one that is collected is a crash."""
    with connect(pid1) as manager:
        for _ in range(3):
            gc.collect()
            [b"x" * 1000 for _ in range(1000)]  # what was freed is used again
            job = manager.start("a.service")
            gc.collect()
            assert manager.wait_job(job, soon()) == "done"


def test_one_connection_after_another(pid1: Fake) -> None:
    for _ in range(3):
        with connect(pid1) as manager:
            assert manager.wait_job(manager.start("a.service"), soon()) == "done"
        gc.collect()


def test_two_connections_hear_each_its_own(pid1: Fake) -> None:
    """agent.tell opens a second one while the first is open."""
    with connect(pid1) as first:
        with connect(pid1) as second:
            job = first.start("a.service")
            assert first.wait_job(job, time.monotonic() + 1) == "done"
            assert second.wait_job(job, time.monotonic() + 1) == "done"
        gc.collect()
        job = first.start("b.service")
        assert first.wait_job(job, time.monotonic() + 1) == "done"


def test_no_descriptor_is_left(pid1: Fake) -> None:
    with connect(pid1):
        pass
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        with connect(pid1):
            pass
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# --- the connection goes ------------------------------------------------------------------------


def test_a_lost_connection_is_told_as_any_error(tmp_path: Path) -> None:
    """As when somebody has PID 1 re-execute itself, which installing a package may do."""
    with stand_in.bus(tmp_path) as address, stand_in.fake(address) as pid1:
        pid1.be(State(results={"a.service": ""}))
        manager = connect(pid1).__enter__()
        job = manager.start("a.service")
    with pytest.raises(IssuError):
        manager.wait_job(job, soon())
    with pytest.raises(IssuError):
        manager.wait_until(lambda: False, soon())
    with pytest.raises(IssuError):
        manager.units()
    manager.__exit__(None, None, None)
