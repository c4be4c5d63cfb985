"""The journal tells each event of an upgrade once, with its fields, and explains it."""

import json
from collections import Counter
from dataclasses import asdict
from typing import Any

import pytest

from issu_systemd.events import Event
from issu_systemd.request import Request
from tests.rig import traces
from tests.rig.machine import Machine

from .element import GATE, Element, element, gate_first_boot, let_go, wait_blocked

GOOD = [Event.STARTED, Event.RELEASED, Event.SWITCHED, Event.ARRIVED, Event.ACCEPTED]
SUBJECT = {
    Event.STARTED: "has begun",
    Event.REFUSED: "was refused",
    Event.RELEASED: "releases the old root",
    Event.SWITCHED: "is on the new root",
    Event.ARRIVED: "has arrived",
    Event.ACCEPTED: "is accepted",
    Event.FAILED: "has failed",
}
ASKED = "29991231T235959_1"
UNKNOWN = "0123456789abcdef0123456789abcdef"


def entries(machine: Machine, id: str, *matches: str) -> list[dict[str, Any]]:
    """The entries of one upgrade in the order of their times, as a program reads them."""
    machine.run(["journalctl", "--sync"])
    argv = ["journalctl", "--boot", "--output=json", f"ISSU_ID={id}", *matches]
    return [json.loads(line) for line in machine.run(argv).stdout.splitlines()]


def check_told(e: Element, report: dict[str, Any], events: list[Event]) -> None:
    """These events and no other were told, each once, with what the report says."""
    found = entries(e.machine, report["id"])
    assert Counter(entry["MESSAGE_ID"] for entry in found) == Counter(events)
    assert [entry["MESSAGE_ID"] for entry in found] == events
    for entry in found:
        assert entry["ISSU_TARGET"] == report["target"]["device"], entry
        assert entry["ISSU_SOURCE"] == report["source"]["device"], entry
        assert entry["SYSLOG_IDENTIFIER"] == "issu"
        assert entry["MESSAGE"].startswith(f"{report['id']}: ")
    for event in events:
        (entry,) = entries(e.machine, report["id"], f"MESSAGE_ID={event.value}")
        assert entry["ISSU_STRATEGY"] == report["strategy"], entry
    assert found[0]["ISSU_PHASE"] == "preflight"
    assert found[-1]["ISSU_RESULT"] == report["result"]
    assert found[-1]["ISSU_ERROR"] == (report["error"] or "")
    assert found[-1]["ISSU_PHASE"] == report["phases"][-1]["name"]
    unit = f"--unit=issu@{report['target']['device'].replace('/', '-')}.service"
    assert report["id"] in e.machine.journal("--boot", unit, f"MESSAGE_ID={events[-1].value}")
    for event in events:
        check_explained(e.machine, report["id"], event)


def explained(machine: Machine, *matches: str) -> list[str]:
    """The lines that `journalctl -x` adds."""
    text = machine.journal("--boot", "--catalog", *matches)
    return [line[2:].strip() for line in text.splitlines() if line.startswith("░░")]


def check_explained(machine: Machine, id: str, event: Event) -> None:
    lines = explained(machine, f"ISSU_ID={id}", f"MESSAGE_ID={event.value}")
    assert lines[0].startswith(f"Subject: Upgrade {id} ")
    assert lines[0].endswith(SUBJECT[event])
    assert "Defined-By: issu-systemd" in lines
    assert "@ISSU_" not in "".join(lines)  # every field was there


@pytest.mark.parametrize(("source", "target"), [("bookworm", "trixie")])
def test_events(source: str, target: str) -> None:
    """Refused; cancelled in staging; upgraded with halt; and back with live, as asked for."""
    with traces.workspace() as work, element(
        work, source, target, in_target=gate_first_boot
    ) as e:  # fmt: skip
        refused(e)
        cancelled(e)
        unknown(e.machine)
        known = set(e.ids())
        start = e.machine.popen(["systemctl", "start", f"issu@{e.target}"])
        wait_blocked(e.machine, GATE)
        let_go(e.machine, f"/sysroot{GATE}")
        assert start.wait(60) == 0
        report = e.wait_end(known)
        assert (report["result"], report["strategy"]) == ("accepted", "halt"), report
        check_told(e, report, GOOD)

        ask(e, e.source, strategy="live")
        report = e.upgrade(e.source)
        assert (report["id"], report["uid"]) == (ASKED, 1500)
        assert (report["result"], report["strategy"]) == ("accepted", "live"), report
        check_told(e, report, GOOD)


def ask(e: Element, target: str, *, strategy: str) -> None:
    """Leave a request, as the D-Bus service does before it starts the unit."""
    unit = f"issu@{target.replace('/', '-')}.service"
    wanted = Request(ASKED, unit, target, uid=1500, strategy=strategy)
    e.machine.path("/run/issu/request.json").write_text(json.dumps(asdict(wanted)))


def refused(e: Element) -> None:
    known = set(e.ids())
    status, _ = e.start(e.source)
    assert status != 0
    report = e.wait_end(known)
    assert report["result"] == "refused"
    check_told(e, report, [Event.STARTED, Event.REFUSED])
    assert report["error"] in " ".join(explained(e.machine, f"MESSAGE_ID={Event.REFUSED.value}"))


def cancelled(e: Element) -> None:
    known = set(e.ids())
    start = e.machine.popen(["systemctl", "start", f"issu@{e.target}"])
    wait_blocked(e.machine, GATE)
    e.machine.systemctl("stop", "issu@*")
    assert start.wait(60) != 0
    check_told(e, e.wait_end(known), [Event.STARTED, Event.FAILED])


def unknown(machine: Machine) -> None:
    """The negative control: an id that no catalog has is not explained."""
    machine.run(["logger", "--journald"], stdin=f"MESSAGE_ID={UNKNOWN}\nMESSAGE=x\n")
    machine.run(["journalctl", "--sync"])
    assert "x" in machine.journal("--boot", f"MESSAGE_ID={UNKNOWN}")
    assert explained(machine, f"MESSAGE_ID={UNKNOWN}") == []
