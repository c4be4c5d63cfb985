"""The order and the outcome of restarts, on a small stand-in for PID 1."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from issu_systemd import restart as module
from issu_systemd.restart import Trouble, Work, restart
from issu_systemd.systemd import Manager, Unit

LEFT = 1000  # usec; everything below was active before the pivot


@dataclass
class Pid1:
    """Units by name: what each comes after, what it needs, what becomes of its restart."""

    after: dict[str, list[str]]
    needs: dict[str, list[str]] = field(default_factory=dict)
    becomes: dict[str, str] = field(default_factory=dict)
    inactive: set[str] = field(default_factory=set)
    since: dict[str, int] = field(default_factory=dict)
    unmet: set[str] = field(default_factory=set)  # their condition fails
    never: set[str] = field(default_factory=set)  # their job does not end
    asked: list[str] = field(default_factory=list)
    running: dict[int, str] = field(default_factory=dict)
    most: int = 0

    def units(self) -> list[Unit]:
        return [Unit(name, "loaded", self.state(name), "") for name in self.after]

    def state(self, unit: str) -> str:
        return "inactive" if unit in self.inactive else self.becomes.get(unit, "active")

    def properties(self, unit: str, interface: str = "Unit") -> dict[str, Any]:
        if interface == "Service":
            return {"MainPID": 0}
        return {
            "After": [name.encode() for name in self.after.get(unit, [])],
            "Requires": [name.encode() for name in self.needs.get(unit, [])],
            "ActiveState": self.state(unit).encode(),
            "ActiveEnterTimestampMonotonic": self.since.get(unit, 1),
            "ConditionTimestampMonotonic": 5,
            "ConditionResult": unit not in self.unmet,
        }

    def start(self, unit: str) -> int:
        self.asked.append(f"start {unit}")
        self.inactive.discard(unit)
        return 0

    def restart(self, unit: str, mode: str) -> int:
        assert mode == "ignore-requirements"
        self.asked.append(unit)
        job = len(self.asked)
        self.running[job] = unit
        self.most = max(self.most, len(self.running))
        return job

    def wait_job(self, job: int, deadline: float) -> str:
        return "done"

    def wait_any(self, jobs: dict[int, Any], deadline: float) -> tuple[int, str] | None:
        job = next((job for job in jobs if self.running[job] not in self.never), None)
        if job is None:
            return None
        del self.running[job]
        return job, "done"

    def wait_until(self, condition: Any, deadline: float) -> bool:
        for unit, state in self.becomes.items():
            if state == "activating":  # Restart= tries again, and this time it works
                self.becomes[unit] = "active"
        return bool(condition())


def go(pid1: Pid1, units: list[str], width: int = 1) -> list[Trouble]:
    return restart(cast(Manager, pid1), Work(units, width, 5.0, LEFT))


CHAIN = {
    "web.service": ["net.target", "db.service"],
    "db.service": ["early.target"],
    "net.target": ["dhcp.service"],
    "dhcp.service": [],
    "early.target": ["systemd-journald.service"],
    "systemd-journald.service": [],
    "alone.service": [],
}


def test_each_after_what_it_comes_after_even_through_what_is_not_restarted() -> None:
    pid1 = Pid1(CHAIN)
    units = [u for u in CHAIN if u.endswith(".service")]
    assert go(pid1, units) == []
    assert sorted(pid1.asked) == sorted(units)
    order = pid1.asked.index
    assert order("systemd-journald.service") < order("db.service") < order("web.service")
    assert order("dhcp.service") < order("web.service")
    assert pid1.most == 1


def test_what_others_talk_to_comes_first() -> None:
    pid1 = Pid1({u: [] for u in ("a.service", "dbus.service", "systemd-journald.service")})
    assert go(pid1, list(pid1.after)) == []
    assert pid1.asked == ["systemd-journald.service", "dbus.service", "a.service"]


@pytest.mark.parametrize("width", [1, 2, 5])
def test_no_more_at_once_than_allowed(width: int) -> None:
    pid1 = Pid1({f"{n}.service": [] for n in range(8)})
    assert go(pid1, list(pid1.after), width) == []
    assert (len(pid1.asked), pid1.most) == (8, width)


def test_the_first_trouble_is_the_end() -> None:
    pid1 = Pid1({"a.service": [], "b.service": ["a.service"]}, becomes={"a.service": "failed"})
    assert go(pid1, ["a.service", "b.service"]) == [Trouble("a.service", "it is failed")]
    assert pid1.asked == ["a.service"]


def test_a_job_that_does_not_end_is_trouble() -> None:
    pid1 = Pid1({"a.service": []}, never={"a.service"})
    assert go(pid1, ["a.service"]) == [Trouble("a.service", "it took too long")]


def test_restart_of_the_unit_itself_is_waited_for() -> None:
    pid1 = Pid1({"a.service": []}, becomes={"a.service": "activating"})
    assert go(pid1, ["a.service"]) == []


def test_a_condition_that_fails_is_no_trouble() -> None:
    pid1 = Pid1({"a.service": []}, becomes={"a.service": "inactive"})
    assert go(pid1, ["a.service"]) != []
    pid1 = Pid1({"a.service": []}, becomes={"a.service": "inactive"}, unmet={"a.service"})
    assert go(pid1, ["a.service"]) == []


def test_what_has_come_back_already_is_left_alone() -> None:
    pid1 = Pid1({"a.service": [], "b.service": []}, since={"a.service": LEFT})
    assert go(pid1, ["a.service", "b.service"]) == []
    assert pid1.asked == ["b.service"]


def test_what_a_unit_lacks_is_started_before() -> None:
    pid1 = Pid1(
        {"a.service": [], "new.socket": [], "there.socket": []},
        needs={"a.service": ["new.socket", "there.socket"]},
        inactive={"new.socket"},
    )
    assert go(pid1, ["a.service"]) == []
    assert pid1.asked == ["start new.socket", "a.service"]


def test_a_circle_is_broken() -> None:
    pid1 = Pid1({"a.service": ["b.service"], "b.service": ["a.service"]})
    assert go(pid1, ["a.service", "b.service"]) == []
    assert sorted(pid1.asked) == ["a.service", "b.service"]


def test_before_exec() -> None:
    assert not module.is_before_exec(1)
    assert not module.is_before_exec(0)
