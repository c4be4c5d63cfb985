"""Kill -9 and cancel, wherever an upgrade stands: the element is as it was, the next one works."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rig import traces
from tests.rig.machine import Machine

from .element import (
    GATE,
    Element,
    active,
    assert_as_before,
    besides,
    element,
    gate_first_boot,
    is_blocked,
    let_go,
    row,
    shown,
    wait_blocked,
    write_unit,
)

PAIRS = [("bookworm", "trixie"), ("trixie", "bookworm")]
STOP_GATE = "/run/stop-gate"  # if there is one, slow.service waits at it when it is stopped
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


def kill(machine: Machine, unit: str) -> None:
    machine.systemctl("kill", "--kill-whom=main", "--signal=KILL", unit)


def start_up_to(e: Element, gate: str) -> None:
    """Start an upgrade and wait until it stands at a named pipe, past that of its staging."""
    start = e.machine.popen(["systemctl", "start", f"issu@{e.target}"])
    stands = lambda: is_blocked(e.machine, gate) or is_blocked(e.machine, GATE)  # noqa: E731
    e.machine.wait_for(stands, 60, "the upgrade stands at a gate")
    if is_blocked(e.machine, GATE):
        let_go(e.machine, f"/sysroot{GATE}")
        wait_blocked(e.machine, gate)
    assert start.wait(60) == 0


def test_killed_in_staging(e: Element) -> None:
    before, units, ids = e.state(), active(e.machine), set(e.ids())
    start = e.machine.popen(["systemctl", "start", f"issu@{e.target}"])
    wait_blocked(e.machine, GATE)
    kill(e.machine, unit_of(e))
    assert start.wait(60) != 0
    report = e.wait_end(ids)
    assert report["result"] == "failed"
    assert "the agent died in phase stage" in report["error"]
    assert "KILL" in report["error"]
    assert_as_before(e, before, units)
    assert report["units"] == []
    assert report["outage_usec"] in (0, None)


def test_cancelled_in_staging(e: Element) -> None:
    before, units, ids = e.state(), active(e.machine), set(e.ids())
    start = e.machine.popen(["systemctl", "start", f"issu@{e.target}"])
    wait_blocked(e.machine, GATE)
    e.machine.systemctl("stop", unit_of(e))
    assert start.wait(60) != 0
    report = e.wait_end(ids)
    assert report["result"] == "failed"
    assert report["error"] == "stopped on request in phase stage"
    assert_as_before(e, before, units)
    assert shown(e.machine, unit_of(e), "ActiveState") == "inactive"  # as told: no failure


@pytest.mark.parametrize("how", ["kill", "cancel"])
def test_ended_in_release(e: Element, how: str) -> None:
    """Everything else is stopped and one unit will not: now the agent goes."""
    before, units, ids = e.state(), active(e.machine), set(e.ids())
    e.machine.run(["mkfifo", STOP_GATE])
    start_up_to(e, STOP_GATE)
    gone = units - active(e.machine)
    assert {"nginx.service", "by-hand.service", "multi-user.target"} <= gone

    e.machine.path(STOP_GATE).rename(e.machine.path("/run/old-gate"))
    if how == "kill":
        kill(e.machine, unit_of(e))
    else:
        e.machine.systemctl("stop", "--no-block", unit_of(e))
    let_go(e.machine, "/run/old-gate")
    report = e.wait_end(ids)
    e.machine.path("/run/old-gate").unlink()
    assert report["result"] == "failed"
    if how == "kill":
        assert "the agent died in phase release" in report["error"]
        assert "KILL" in report["error"]
    else:
        assert report["error"] == "stopped on request in phase release"
    assert [f for f in besides(report, ONLY_HERE) if f["severity"] != "info"] == []
    assert_as_before(e, before, units)
    assert row(report, "by-hand.service")["action"] == "restarted"
    assert row(report, "by-hand.service")["outage_usec"], report
    assert report["outage_usec"], report


def test_the_next_one_succeeds_though_its_arrival_is_killed(e: Element) -> None:
    """Killed while it waits for the services of the new root, it is started again."""
    ids, boot_id = set(e.ids()), e.machine.boot_id()
    start_up_to(e, ARRIVE_GATE)
    kill(e.machine, "issu-arrive.service")

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
