"""What org.issu1 tells of upgrades past and present, whoever starts them and whatever dies."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from dbus_next.signature import Variant

from issu_systemd import __version__, herald, record
from issu_systemd.phase import ORDER, Phase
from issu_systemd.record import Record
from tests.bus.fake import Fake, State
from tests.bus.launch import DEV
from tests.bus.others import (
    JOB,
    MANAGER,
    NAME,
    SOON_SEC,
    TOP,
    USER,
    Caller,
    Machine,
    caller,
    polkit,
    service,
    until,
)

UNIT = "issu@dev-issu\\x2dtest-b.service"
CHANGE = "PropertiesChanged"


def play(machine: Machine, part: Callable[..., Awaitable[Any]], **more: Any) -> None:
    """A test with a service of its own, and a caller who hears what it tells."""

    async def go() -> None:
        async with service(machine, **more) as process, caller(machine.address) as root:
            await root.listen()
            await part(root, process)

    asyncio.run(go())


# --- at rest ------------------------------------------------------------------------------------


def test_the_properties_while_nothing_runs(machine: Machine, pid1_there: Fake) -> None:
    async def go() -> None:
        async with service(machine), caller(machine.address) as root:
            assert await root.all() == {
                "Version": __version__, "Phase": "idle", "Progress": [-1, "", 0],
                "InProgress": False, "CurrentJob": "/", "LastError": "",
                "Mechanism": "soft-reboot", "RunningRoot": f"{DEV}a", "PreviousRoot": "",
                "AcceptDeadlineUSec": 0,
            }  # fmt: skip
            assert await root.ask("ListJobs") == []
            assert await root.ask("ListHistory", "u", 0) == []
            assert (await root.refused(root.ask("GetReport", "s", ""))).short == "NoSuchJob"

    asyncio.run(go())


def test_an_inhibitor_outlives_the_service(machine: Machine) -> None:
    async def go() -> None:
        async with caller(machine.address) as root:
            async with service(machine):
                await root.ask("Inhibit", "ss", "who", "why")
                fds = list(root.fds)
            async with service(machine):
                assert len(await root.ask("ListInhibitors")) == 1
                os.close(fds[0])
                assert await root.ask("ListInhibitors") == []

    asyncio.run(go())


def test_the_past(machine: Machine) -> None:
    findings = [{"id": "x", "severity": "warn", "text": "t", "way_out": "", "note": "forced"}]
    phases = [{"name": "preflight"}, {"name": "release"}]
    machine.report("20260101T000000_1", "accepted", outage_usec=7, uid=1000)
    machine.report("20260102T000000_1", "failed", "frr.service did not stop", phases=phases,
                   findings=findings)  # fmt: skip
    (machine.place / "history" / "20260103T000000_1.json").write_text("{")

    async def go() -> None:
        async with service(machine), caller(machine.address, USER) as user:
            rows = await user.ask("ListHistory", "u", 0)
            assert [row["id"] for row in rows] == ["20260102T000000_1", "20260101T000000_1"]
            assert rows[1] == {
                "id": "20260101T000000_1", "job": f"{TOP}/job/20260101T000000_1",
                "result": "accepted", "strategy": "halt", "outage_usec": 7,
                "started": "2026-01-01T00:00:00+00:00", "source": f"{DEV}a", "target": f"{DEV}b",
            }  # fmt: skip
            assert len(await user.ask("ListHistory", "u", 1)) == 1
            document = json.loads(await user.ask("GetReport", "s", "20260101T000000_1"))
            assert document["outage_usec"] == 7
            for id, error in (
                ("", "Failed"), ("20260103T000000_1", "Failed"), ("20250101", "NoSuchJob"),
                ("../x", "InvalidArgument"), ("x" * 200, "InvalidArgument"),
            ):  # fmt: skip
                assert (await user.refused(user.ask("GetReport", "s", id))).short == error, id
            assert await user.all(f"{TOP}/job/20260102T000000_1") == {
                "Id": "20260102T000000_1", "Target": f"{DEV}b", "Phase": "release",
                "Progress": [100, "failed", 1], "AllowCancel": False, "Uid": 0,
                "Findings": [{k: v for k, v in findings[0].items() if k != "note"}],
                "Result": "failed", "Error": "frr.service did not stop",
            }  # fmt: skip
            assert await user.get("Uid", f"{TOP}/job/20260101T000000_1") == 1000
            none = await user.refused(user.get("Uid", f"{TOP}/job/20250101"))
            assert none.name == f"{NAME}.Error.NoSuchJob"

    asyncio.run(go())


def test_previous_root_and_last_error(machine: Machine) -> None:
    machine.report("1", "accepted", source={"device": f"{DEV}c"})
    machine.report("2", "refused", "no")

    async def go() -> None:
        async with service(machine), caller(machine.address) as root:
            assert await root.get("PreviousRoot") == f"{DEV}c"
            assert await root.get("LastError") == "no"
            (machine.place / "dev/c").unlink()
            machine.report("3", "accepted", source={"device": f"{DEV}c"})
            assert await root.get("PreviousRoot") == ""  # it is gone
            assert await root.get("LastError") == ""
            machine.report("4", "accepted", source={"device": f"{DEV}a"})
            assert await root.get("PreviousRoot") == ""  # it is the one that runs

    asyncio.run(go())


@pytest.mark.parametrize(
    ("offers", "mechanism"),
    [(["SwitchRoot"], "switch-root"), (["SwitchRoot", "SoftReboot"], "soft-reboot"), ([], "")],
)
def test_mechanism(
    machine: Machine, pid1_there: Fake, offers: list[str], mechanism: str
) -> None:
    pid1_there.be(State(offers=offers))

    async def go() -> None:
        async with service(machine), caller(machine.address) as root:
            assert await root.get("Mechanism") == mechanism

    asyncio.run(go())


# --- one upgrade --------------------------------------------------------------------------------


def starting(pid1: Fake, **more: Any) -> None:
    """PID 1 as it is while a unit with an agent starts: the job does not end."""
    pid1.be(State(results={UNIT: ""}, **more))


def test_an_upgrade_from_start_to_end(machine: Machine, pid1_there: Fake) -> None:
    starting(pid1_there)

    async def part(root: Caller, process: Any) -> None:
        async with polkit(machine.address, start=(True, False)), caller(
            machine.address, USER
        ) as user:
            id, path = await user.start(strategy=Variant("s", "live"))
        assert path == f"{TOP}/job/{id}"
        assert pid1_there.calls("StartUnit") == [["StartUnit", UNIT, "replace"]]
        assert await root.ask("ListJobs") == [[id, path, "preflight"]]
        assert await root.get("CurrentJob") == path
        assert await root.get("Uid", path) == USER
        assert await root.get("AllowCancel", path)
        assert (await root.refused(root.ask("GetReport", "s", id))).short == "NoSuchJob"

        story = machine.take(UNIT)
        assert (story.id, story.uid, story.strategy) == (id, USER, "live")
        percents = [0]
        for phase in ORDER:
            story.enter(phase)
            machine.save(story)
            await until(lambda: any(t[-1] == str(phase) for t in root.told()))  # noqa: B023
            assert await root.get("Phase") == str(phase) == await root.get("Phase", path)
            percent, message, depth = await root.get("Progress")
            assert message
            assert depth == 1
            percents.append(percent)
            assert await root.get("AllowCancel", path) is (phase in ORDER[:3])
        assert percents == sorted(percents)
        machine.report(id, "accepted", phases=story.phases, uid=USER)
        await root.hears("JobRemoved")
        assert root.told() == [
            ("JobNew", id, path),
            *(("PhaseChanged", id, path, str(phase)) for phase in ORDER),
            ("PrepareForUpgrade", False),
            ("JobRemoved", id, path, "accepted"),
        ]
        assert await root.get("Phase") == "idle"
        assert await root.get("CurrentJob") == "/"
        assert await root.get("Result", path) == "accepted"
        assert await root.get("Progress", path) == [100, "accepted", 1]
        ended = await root.refused(root.ask("Cancel", path=path, interface=JOB))
        assert ended.short == "NoSuchJob"

    play(machine, part)


def test_properties_are_told_when_they_change(machine: Machine, pid1_there: Fake) -> None:
    starting(pid1_there)

    async def part(root: Caller, process: Any) -> None:
        id, _ = await root.start()
        await root.hears("JobNew")
        story = machine.take(UNIT)
        story.enter(Phase.PREFLIGHT)
        story.enter(Phase.STAGE)
        story.find("memory", "warn", "little", "stop something")
        machine.save(story)
        machine_told: dict[str, Any] = {}
        job_told: dict[str, Any] = {}

        def seen() -> bool:
            for where, member, args in root.heard:
                if member == CHANGE:
                    assert args[0] == (MANAGER if where == TOP else JOB)
                    (machine_told if where == TOP else job_told).update(args[1])
            return "Findings" in job_told and machine_told.get("Phase") != "preflight"

        await until(seen)
        assert machine_told.keys() == {"Phase", "Progress", "InProgress", "CurrentJob"}
        assert machine_told["Progress"][0] == 10
        assert job_told["Findings"][0]["id"] == "memory"
        assert "Id" not in job_told
        machine.report(id, "failed", "frr.service did not stop")
        await root.hears("JobRemoved")
        await until(lambda: seen() and "LastError" in machine_told)
        assert machine_told["LastError"] == "frr.service did not stop"
        assert not machine_told["InProgress"]
        assert job_told["Result"] == "failed"

    play(machine, part)


def test_an_upgrade_by_the_other_door_is_seen(machine: Machine) -> None:
    async def part(root: Caller, process: Any) -> None:
        story = Record(id="20260101T000000_9", started="x", unit=UNIT, target={"device": "/dev/b"})
        story.enter(Phase.PREFLIGHT)
        machine.save(story)
        path = f"{TOP}/job/{story.id}"
        await root.hears("JobNew")
        assert await root.ask("ListJobs") == [[story.id, path, "preflight"]]
        assert await root.get("Uid", path) == 0
        assert await root.get("Target", path) == "/dev/b"
        error = await root.refused(root.start())
        assert error.short == "Busy"
        assert story.id in error.text
        busy = await root.refused(root.ask("Inhibit", "ss", "who", "why"))
        assert busy.short == "Busy"
        machine.report(story.id, "refused", "no")
        await root.hears("JobRemoved")
        assert ("JobRemoved", story.id, path, "refused") in root.told()
        assert ("PrepareForUpgrade", False) not in root.told()  # nothing was stopped for it

    play(machine, part)


def test_one_that_began_and_ended_between_two_looks_is_told(machine: Machine) -> None:
    """Whoever calls makes the service look: what it sees then is told all the same."""

    async def part(root: Caller, process: Any) -> None:
        story = Record(id="20260101T000000_9", started="x", unit=UNIT)
        story.enter(Phase.PREFLIGHT)
        machine.save(story)
        await root.ask("ListJobs")
        machine.report(story.id, "refused", "no")
        await root.hears("JobRemoved")
        assert [told[0] for told in root.told()] == ["JobNew", "PhaseChanged", "JobRemoved"]

    play(machine, part)


def test_while_the_lock_is_held_nobody_starts(machine: Machine, monkeypatch: Any) -> None:
    monkeypatch.setattr(record, "DIRECTORY", machine.issu)

    async def part(root: Caller, process: Any) -> None:
        with record.lock():
            assert (await root.refused(root.start())).short == "Busy"

    play(machine, part)


def test_of_starts_in_the_same_instant_one_wins(machine: Machine, pid1_there: Fake) -> None:
    starting(pid1_there)

    async def part(root: Caller, process: Any) -> None:
        async with caller(machine.address) as other:
            asked = [who.start(f"{DEV}{d}") for d in "bcbc" for who in (root, other)]
            answers = await asyncio.gather(*asked, return_exceptions=True)
        won = [answer for answer in answers if isinstance(answer, tuple)]
        assert len(won) == 1
        assert {getattr(a, "short", "won") for a in answers} == {"Busy", "won"}
        assert len(pid1_there.calls("StartUnit")) == 1

    play(machine, part)


def test_an_agent_that_ends_without_a_trace_is_a_job_with_a_result(
    machine: Machine, pid1_there: Fake
) -> None:
    pid1_there.be(State(results={UNIT: "failed"}))

    async def part(root: Caller, process: Any) -> None:
        id, path = await root.start()
        await root.hears("JobRemoved")
        assert root.told()[-1] == ("JobRemoved", id, path, "failed")
        assert UNIT in await root.get("Error", path)
        assert json.loads(await root.ask("GetReport", "s", id))["result"] == "failed"
        assert not (machine.issu / "request.json").exists()  # nobody is to find it later
        await root.start()

    play(machine, part)


def test_an_agent_that_was_refused_tells_itself(machine: Machine, pid1_there: Fake) -> None:
    starting(pid1_there)

    async def part(root: Caller, process: Any) -> None:
        id, path = await root.start()
        await root.hears("JobNew")
        machine.take(UNIT)
        machine.report(id, "refused", "another upgrade runs")
        await root.hears("JobRemoved")
        assert root.told()[-1] == ("JobRemoved", id, path, "refused")
        assert await root.get("Error", path) == "another upgrade runs"

    play(machine, part)


def test_a_pid_1_that_refuses_is_quoted(machine: Machine, pid1_there: Fake) -> None:
    pid1_there.be(State(errors={"StartUnit": ["org.freedesktop.systemd1.UnitMasked", "masked"]}))

    async def part(root: Caller, process: Any) -> None:
        error = await root.refused(root.start())
        assert error.short == "Failed"
        assert "masked" in error.text
        assert not (machine.issu / "request.json").exists()
        pid1_there.be(State(results={UNIT: ""}))
        await root.start()

    play(machine, part)


# --- Cancel -------------------------------------------------------------------------------------


def test_cancel(machine: Machine, pid1_there: Fake) -> None:
    starting(pid1_there)

    async def part(root: Caller, process: Any) -> None:
        _, path = await root.start()
        async with polkit(machine.address), caller(machine.address, USER) as user:
            no = await user.refused(user.ask("Cancel", path=path, interface=JOB))
            assert no.short == "NotAuthorized"
            assert f"{NAME}.cancel" in no.text
        assert pid1_there.calls("StopUnit") == []
        await root.ask("Cancel", path=path, interface=JOB)
        assert pid1_there.calls("StopUnit") == [["StopUnit", UNIT, "replace"]]

    play(machine, part)


@pytest.mark.parametrize("phase", ORDER[3:])
def test_past_the_point_of_no_return_nothing_is_stopped(
    machine: Machine, pid1_there: Fake, phase: Phase
) -> None:
    async def part(root: Caller, process: Any) -> None:
        story = Record(id="1", started="x", unit=UNIT)
        for one in ORDER[: ORDER.index(phase) + 1]:
            story.enter(one)
        machine.save(story)
        error = await root.refused(root.ask("Cancel", path=f"{TOP}/job/1", interface=JOB))
        assert error.short == "PastPointOfNoReturn"
        assert str(phase) in error.text
        assert pid1_there.calls("StopUnit") == []
        assert not await root.get("AllowCancel", f"{TOP}/job/1")

    play(machine, part)


# --- the service comes and goes -----------------------------------------------------------------


def test_killed_and_started_again_it_finds_the_job_under_the_same_path(
    machine: Machine, pid1_there: Fake
) -> None:
    starting(pid1_there)
    seen: list[Any] = []

    async def before(root: Caller, process: subprocess.Popen[bytes]) -> None:
        id, path = await root.start()
        process.kill()  # before any agent has taken it
        process.wait(SOON_SEC)
        seen.extend((id, path))

    async def between(root: Caller, process: subprocess.Popen[bytes]) -> None:
        id, path = seen
        assert await root.ask("ListJobs") == [[id, path, "preflight"]]
        assert (await root.refused(root.start())).short == "Busy"
        story = machine.take(UNIT)
        for phase in ORDER[:2]:
            story.enter(phase)
        machine.save(story)
        await until(lambda: root.told())
        process.send_signal(signal.SIGKILL)
        process.wait(SOON_SEC)

    async def after(root: Caller, process: subprocess.Popen[bytes]) -> None:
        id, path = seen
        assert await root.get("Phase", path) == "stage"
        assert root.told() == []  # it is not new
        machine.report(id, "accepted")
        await root.hears("JobRemoved")
        assert root.told() == [("JobRemoved", id, path, "accepted")]

    for part in (before, between, after):
        play(machine, part)


def test_a_job_that_ended_while_nobody_looked_is_in_the_past(machine: Machine) -> None:
    machine.report("1", "rolled-back", "not healthy")

    async def part(root: Caller, process: Any) -> None:
        assert await root.get("Result", f"{TOP}/job/1") == "rolled-back"
        assert await root.ask("ListJobs") == []

    play(machine, part)


def test_what_nobody_took_is_forgotten(machine: Machine, pid1_there: Fake) -> None:
    """The service died after the request, and PID 1 was never asked."""
    (machine.issu / "request.json").write_text(json.dumps(
        {"id": "7", "unit": UNIT, "target": f"{DEV}b", "uid": 0, "strategy": None, "force": []}
    ))  # fmt: skip

    async def part(root: Caller, process: Any) -> None:
        await until(lambda: not (machine.issu / "request.json").exists())
        await root.hears("JobRemoved")
        assert await root.get("Result", f"{TOP}/job/7") == "failed"

    play(machine, part)


def test_it_ends_when_nobody_calls(machine: Machine) -> None:
    async def part(root: Caller, process: subprocess.Popen[bytes]) -> None:
        for _ in range(5):
            await root.get("Phase")
            await asyncio.sleep(0.1)
        assert process.poll() is None  # calls keep it
        await until(lambda: process.poll() is not None)
        assert process.returncode == 0

    play(machine, part, idle_sec=0.4)


def test_it_stays_while_an_upgrade_runs(machine: Machine) -> None:
    async def part(root: Caller, process: subprocess.Popen[bytes]) -> None:
        story = Record(id="1", started="x", unit=UNIT)
        story.enter(Phase.PREFLIGHT)
        machine.save(story)
        await root.hears("JobNew")
        await asyncio.sleep(0.6)
        assert process.poll() is None
        machine.report("1", "refused", "no")
        await root.hears("JobRemoved")
        await until(lambda: process.poll() is not None)

    play(machine, part, idle_sec=0.3)


def test_no_call_is_lost_when_it_ends(machine: Machine) -> None:
    """What reaches it before it gives its name back is answered; what comes later finds none."""

    async def part(root: Caller, process: subprocess.Popen[bytes]) -> None:
        asked = [asyncio.ensure_future(root.get("Phase")) for _ in range(60)]
        await asked[0]
        process.terminate()
        while process.poll() is None:
            asked += [asyncio.ensure_future(root.get("Phase")) for _ in range(20)]
            await asyncio.wait(asked)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        said = {a if isinstance(a, str) else getattr(a, "short", str(a)) for a in answers}
        assert "idle" in said
        assert said <= {"idle", "ServiceUnknown"}

    play(machine, part)


def test_it_ends_when_the_root_has_changed(machine: Machine) -> None:
    async def part(root: Caller, process: subprocess.Popen[bytes]) -> None:
        (machine.place / "root").write_text("2")  # PID 1 has not followed
        await root.get("Phase")
        await asyncio.sleep(0.3)
        assert process.poll() is None
        (machine.place / "pid1").write_text("2")
        await until(lambda: process.poll() is not None)
        assert process.returncode == 0

    play(machine, part)


def test_it_ends_with_its_bus(machine: Machine, tmp_path_factory: Any) -> None:
    from tests.bus.others import begin, end, ready, system_bus

    with system_bus(tmp_path_factory.mktemp("other-bus")) as address:
        process = begin(Machine(machine.place, address))
        asyncio.run(ready(Machine(machine.place, address), process))
    assert process.wait(SOON_SEC) == 0  # a failed unit would outlive the upgrade
    assert "the bus is lost" in end(process)


def test_without_a_bus_it_says_so(machine: Machine) -> None:
    from tests.bus.others import begin, end

    process = begin(Machine(machine.place, "unix:path=/nonexistent/bus"))
    assert process.wait(SOON_SEC) == 1
    assert "the bus cannot be reached" in end(process)


# --- before the first service stops -------------------------------------------------------------


def test_everybody_is_told_before_the_agent_leaves(machine: Machine, monkeypatch: Any) -> None:
    monkeypatch.setattr(record, "DIRECTORY", machine.issu)
    monkeypatch.setattr(herald, "PLACE", machine.place / "issu-bus")

    async def part(root: Caller, process: Any) -> None:
        assert await asyncio.to_thread(herald.announce, SOON_SEC)
        await root.hears("PrepareForUpgrade")
        assert root.told() == [("PrepareForUpgrade", True)]

    play(machine, part)
    assert not herald.announce(SOON_SEC)  # the service is gone: nobody to wait for


# --- Accept and Rollback ------------------------------------------------------------------------


def test_without_an_upgrade_there_is_nothing_to_accept_or_to_take_back(machine: Machine) -> None:
    async def part(root: Caller, _: Any) -> None:
        for method in ("Accept", "Rollback"):
            assert (await root.refused(root.ask(method))).short == "NoSuchJob"

    play(machine, part)


def waits(machine: Machine) -> None:
    """An upgrade is healthy and waits for its acceptance."""
    story = Record(id="20260101", started="", unit=UNIT, phase=Phase.ACCEPT, deadline_usec=7)
    machine.save(story)


@pytest.mark.parametrize(("method", "word"), [("Accept", "accept"), ("Rollback", "roll-back")])
def test_the_verdict_on_an_upgrade_that_waits(
    machine: Machine, pid1_there: Fake, method: str, word: str
) -> None:
    waits(machine)

    async def part(root: Caller, _: Any) -> None:
        assert await root.get("AcceptDeadlineUSec") == 7
        await root.ask(method)
        decided = json.loads((machine.issu / "verdict.json").read_text())
        assert (decided["id"], decided["word"]) == ("20260101", word)
        other = {"Accept": "Rollback", "Rollback": "Accept"}[method]
        refusal = await root.refused(root.ask(other))
        assert refusal.short == "Failed" and "was decided before" in str(refusal)

    play(machine, part)
    assert ["StartUnit", "issu-arrive.service", "replace"] in pid1_there.calls("StartUnit")


def test_rollback_of_an_accepted_upgrade_is_an_upgrade(machine: Machine, pid1_there: Fake) -> None:
    machine.report("20260101", "accepted")

    async def part(root: Caller, _: Any) -> None:
        await root.ask("Rollback")

    play(machine, part)
    unit = UNIT.replace("b.service", "a.service")
    assert pid1_there.calls("StartUnit") == [["StartUnit", unit, "replace"]]
    assert json.loads((machine.issu / "way-back.json").read_text())["of"] == "20260101"
