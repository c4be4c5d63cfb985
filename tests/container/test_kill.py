"""Kill -9 and cancel, wherever an upgrade stands: the element is as it was, the next one works."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from tests.rig import traces

from .element import (
    GATE,
    LOOK_GATE,
    Element,
    active,
    assert_as_before,
    besides,
    change,
    element,
    gate_first_boot,
    gate_preflight,
    is_blocked,
    let_go,
    row,
    shown,
    wait_blocked,
    write_unit,
)

PAIRS = [("bookworm", "trixie"), ("trixie", "bookworm")]
STOP_GATE = "/run/stop-gate"  # if there is one, slow.service waits at it when it is stopped
BACK_GATE = "/run/back-gate"  # if there is one, slow.service waits at it when it is started
ARRIVE_GATE = "/run/arrive-gate"  # made by an upgrade's new root, whose default target waits at it
IDLE = "[Service]\nExecStart=/usr/bin/sleep infinity\n"
BY_HAND = {
    "by-hand.service": IDLE,
    "by-hand.target": "[Unit]\nDescription=Reached by hand\n",
    "by-hand.timer": "[Timer]\nOnActiveSec=1h\nUnit=by-hand.service\n",
    "by-hand.path": "[Path]\nPathExists=/run/never\nUnit=by-hand.service\n",
    # A socket does not start when its service is there already.
    "offered.socket": "[Socket]\nListenStream=/run/offered.sock\n",
    "offered.service": IDLE,
}
ONLY_HERE = ("slow.service",)  # not in the new root
SLOW = f"""
[Service]
ExecStartPre=-/usr/bin/sh -c 'test ! -p {BACK_GATE} || exec /usr/bin/head -c1 {BACK_GATE}'
ExecStart=/usr/bin/sleep infinity
ExecStop=-/usr/bin/sh -c 'test ! -p {STOP_GATE} || exec /usr/bin/head -c1 {STOP_GATE}'
TimeoutStopSec=5min
"""
LATE = f"""
[Unit]
ConditionPathExists=/run/issu/in-progress
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStartPre=/usr/bin/mkfifo {ARRIVE_GATE}
ExecStart=/usr/bin/head -c1 {ARRIVE_GATE}
"""


def in_source(root: Path) -> None:
    write_unit(root, "slow.service", SLOW)
    for name, text in BY_HAND.items():
        write_unit(root, name, text, wanted_by="")


def in_target(root: Path) -> None:
    gate_first_boot(root)
    gate_preflight(root)
    write_unit(root, "late.service", LATE)


@pytest.fixture(scope="module", params=PAIRS, ids="-".join)
def e(request: pytest.FixtureRequest) -> Iterator[Element]:
    """One machine for every death; the last test upgrades it."""
    source, target = request.param
    with (
        traces.workspace() as work,
        element(work, source, target, in_source=in_source, in_target=in_target) as made,
    ):
        for name in BY_HAND:
            made.machine.systemctl("start", name)
        made.machine.systemctl("stop", "dnsmasq.service")  # enabled, and stopped by hand
        made.machine.systemctl("daemon-reload")  # PID 1 looks what is mounted
        yield made


@pytest.fixture(autouse=True)
def keep_logs(e: Element, request: pytest.FixtureRequest) -> Iterator[None]:
    """A machine of several tests keeps its logs when one of them fails."""
    failed = request.session.testsfailed
    yield
    e.machine.failed |= request.session.testsfailed > failed


def unit_of(e: Element) -> str:
    return f"issu@{e.target.replace('/', '-')}.service"


HOW = {
    "kill": ["kill", "--kill-whom=main", "--signal=KILL"],
    "term": ["kill", "--kill-whom=main", "--signal=TERM"],
    "cancel": ["stop", "--no-block"],
}


def end(e: Element, how: str) -> None:
    """Kill the agent, or ask it to go."""
    e.machine.systemctl(*HOW[how], unit_of(e))


def check_ended(e: Element, report: dict[str, Any], how: str, phase: str) -> None:
    """The report says in which phase the upgrade ended, and by what."""
    died = f"the agent died in phase {phase} (signal KILL)"
    assert report["result"] == "failed"
    assert report["error"] == (died if how == "kill" else f"stopped on request in phase {phase}")
    state = lambda: shown(e.machine, unit_of(e), "ActiveState")  # noqa: E731
    e.machine.wait_for(lambda: state() != "deactivating", 20, "restore has ended")
    if how == "cancel":
        assert state() == "inactive"  # as told: no failure


@contextmanager
def look_gate(e: Element) -> Iterator[None]:
    """Whoever starts an upgrade meanwhile waits in preflight."""
    change(e.target, f"mkfifo {LOOK_GATE[1:]}")
    try:
        yield
    finally:
        change(e.target, f"rm {LOOK_GATE[1:]}")


def start_up_to(e: Element, gate: str) -> None:
    """Start an upgrade and wait until it stands at a named pipe, past that of its staging."""
    start = e.machine.popen(["systemctl", "start", f"issu@{e.target}"])
    stands = lambda: is_blocked(e.machine, gate) or is_blocked(e.machine, GATE)  # noqa: E731
    e.machine.wait_for(stands, 60, "the upgrade stands at a gate")
    if is_blocked(e.machine, GATE):
        let_go(e.machine, f"/sysroot{GATE}")
        wait_blocked(e.machine, gate)
    assert start.wait(60) == 0


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize(("phase", "gate"), [("preflight", LOOK_GATE), ("stage", GATE)])
def test_ended_before_anything_stopped(e: Element, phase: str, gate: str, how: str) -> None:
    before, units, ids = e.state(), active(e.machine), set(e.ids())
    with look_gate(e) if gate == LOOK_GATE else nullcontext():
        start = e.machine.popen(["systemctl", "start", f"issu@{e.target}"])
        wait_blocked(e.machine, gate)
        told = e.machine.run(["issu", "status"]).stdout
        assert f": {phase}, going to" in told
        end(e, how)
        assert start.wait(60) != 0
        report = e.wait_end(ids)
    check_ended(e, report, how, phase)
    assert_as_before(e, before, units)
    assert report["units"] == []
    assert report["outage_usec"] in (0, None)


def test_the_next_one_undoes_what_nobody_undid(e: Element) -> None:
    """The agent is killed in staging, and restore does not run."""
    before, units, ids = e.state(), active(e.machine), set(e.ids())
    start = e.machine.popen(["systemctl", "start", f"issu@{e.target}"])
    wait_blocked(e.machine, GATE)
    restore = e.machine.path("/usr/lib/issu/restore")
    restore.rename(restore.with_suffix(".away"))
    end(e, "kill")
    assert start.wait(60) != 0
    restore.with_suffix(".away").rename(restore)
    left = json.loads(e.machine.path("/run/issu/record.json").read_text())
    assert left["phase"] == "stage"
    assert set(e.ids()) == ids
    check_completed(e, left["id"], "the agent died in phase stage (its undo was cut off)")
    assert_as_before(e, before, units)


def check_completed(e: Element, left: str, error: str) -> None:
    """The next upgrade undoes the one whose id is `left` before it begins; then it is cancelled."""
    known = set(e.ids())
    os.mkfifo(e.machine.path(f"/sysroot{LOOK_GATE}"))
    start = e.machine.popen(["systemctl", "start", f"issu@{e.target}"])
    wait_blocked(e.machine, LOOK_GATE)
    assert set(e.ids()) == known | {left}
    assert (e.report(left)["result"], e.report(left)["error"]) == ("failed", error)
    end(e, "cancel")
    assert start.wait(60) != 0
    e.wait_end(known | {left})
    change(e.target, f"rm {LOOK_GATE[1:]}")


@pytest.mark.parametrize("how", HOW)
def test_ended_in_release(e: Element, how: str) -> None:
    """Everything else is stopped and one unit will not: now the agent goes."""
    before, units, ids = e.state(), active(e.machine), set(e.ids())
    end_in_release(e, how, units)
    report = e.wait_end(ids)
    check_ended(e, report, how, "release")
    assert [f for f in besides(report, ONLY_HERE) if f["severity"] != "info"] == []
    assert_as_before(e, before, units)
    assert row(report, "by-hand.service")["action"] == "restarted"
    assert row(report, "by-hand.service")["outage_usec"], report
    assert report["outage_usec"], report


def end_in_release(e: Element, how: str, units: set[str]) -> None:
    """Start an upgrade and end it while slow.service is the last that stops."""
    e.machine.run(["mkfifo", STOP_GATE])
    start_up_to(e, STOP_GATE)
    gone = units - active(e.machine)
    assert {"nginx.service", "by-hand.service", "multi-user.target"} <= gone

    e.machine.path(STOP_GATE).rename(e.machine.path("/run/old-gate"))
    end(e, how)
    let_go(e.machine, "/run/old-gate")
    e.machine.path("/run/old-gate").unlink()


def test_the_next_one_completes_an_undo_that_was_killed(e: Element) -> None:
    """The agent is killed in release, and restore when it has started again all units but one."""
    before, units, ids = e.state(), active(e.machine), set(e.ids())
    e.machine.run(["mkfifo", BACK_GATE])
    end_in_release(e, "kill", units)
    wait_blocked(e.machine, BACK_GATE)
    e.machine.systemctl("kill", "--kill-whom=control", "--signal=KILL", unit_of(e))
    e.machine.wait_for(
        lambda: shown(e.machine, unit_of(e), "ActiveState") == "failed", 20, "restore is dead"
    )
    let_go(e.machine, BACK_GATE)
    e.machine.path(BACK_GATE).unlink()
    left = json.loads(e.machine.path("/run/issu/record.json").read_text())
    assert set(e.ids()) == ids
    check_completed(e, left["id"], "the agent died in phase release (signal KILL)")
    assert_as_before(e, before, units)


def refuse_another(e: Element) -> None:
    """An upgrade that has changed roots is left alone by another one, though nobody is at it."""
    e.machine.systemctl("stop", "issu-arrive.service")
    record, known = e.machine.path("/run/issu/record.json"), set(e.ids())
    before = record.read_text()
    status, _ = e.start(e.source)
    assert status != 0
    (refusal,) = set(e.ids()) - known
    assert e.report(refusal)["result"] == "refused"
    assert f"{json.loads(before)['id']} has changed roots" in e.report(refusal)["error"]
    assert "systemctl restart issu-arrive.service" in e.report(refusal)["error"]
    assert record.read_text() == before
    e.machine.systemctl("reset-failed", "issu@*")
    e.machine.systemctl("start", "--no-block", "issu-arrive.service")
    e.machine.wait_for(lambda: shown(e.machine, "issu-arrive.service", "ActiveState") == "active",
                       20, "issu-arrive.service goes on")  # fmt: skip


def test_the_next_one_succeeds_though_its_arrival_is_killed(e: Element) -> None:
    """Killed while it waits for the services of the new root, it is started again."""
    boot_id = e.machine.boot_id()
    start_up_to(e, ARRIVE_GATE)
    refuse_another(e)
    ids = set(e.ids())
    e.machine.systemctl(*HOW["kill"], "issu-arrive.service")

    def again() -> bool:
        unit = "issu-arrive.service"
        restarts, pid = (shown(e.machine, unit, name) for name in ("NRestarts", "MainPID"))
        return restarts == "1" and pid != "0"

    e.machine.wait_for(again, 20, "issu-arrive.service was started again")
    let_go(e.machine, ARRIVE_GATE)
    report = e.wait_end(ids)
    assert report["result"] == "accepted", report
    assert e.machine.state() == "running"
    assert e.machine.systemctl("--failed", "--no-legend") == ""
    assert e.machine.boot_id() == boot_id
    assert [f["id"] for f in besides(report, ONLY_HERE)] == ["old-root-free"]
    assert ids < set(e.ids())
    assert list(e.machine.path("/run/issu").iterdir()) == []
