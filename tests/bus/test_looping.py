"""Services that crash and are started again and again, which PID 1 never calls failed."""

from __future__ import annotations

from typing import Any

import pytest

from issu_systemd import looping, record
from issu_systemd.systemd import Manager
from tests.bus.fake import Fake, State

WAITS = {"SubState": "auto-restart", "Result": "exit-code"}
SETTLE_USEC = 200_000
UNIT = "frail.service"


def be(pid1: Fake, active: str = "active", unit: str = UNIT, **properties: Any) -> None:
    pid1.be(State(units={unit: active, "good.service": "active"}, properties={unit: properties}))


@pytest.mark.parametrize(
    ("active", "properties", "expected"),
    [
        ("activating", WAITS, True),
        ("activating", WAITS | {"NRestarts": 7}, True),
        ("activating", WAITS | {"SubState": "auto-restart-queued"}, True),
        ("activating", WAITS | {"Result": "success"}, False),  # its way: Restart=always
        ("active", {"NRestarts": 7}, False),  # it has come up after all
        ("active", {}, False),
        ("failed", {"SubState": "failed", "NRestarts": 5}, False),  # PID 1 says so itself
    ],
    ids=["waits", "waits-again", "queued", "its-way", "recovered", "good", "failed"],
)
def test_what_crashes(
    pid1: Fake, manager: Manager, active: str, properties: dict[str, Any], expected: bool
) -> None:
    be(pid1, active, **properties)
    assert looping.found(manager, (), SETTLE_USEC) == ([UNIT] if expected else [])


def test_a_crash_between_two_starts_is_seen(pid1: Fake, manager: Manager) -> None:
    be(pid1, NRestarts=3)
    asked = 0

    def has_crashed(manager: Manager, unit: str, ask: Any = looping.has_crashed) -> bool:
        nonlocal asked
        asked += 1
        if asked == 3:
            be(pid1, "activating", **WAITS)
        return bool(ask(manager, unit))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(looping, "has_crashed", has_crashed)
        assert looping.found(manager, (), 60_000_000) == [UNIT]
    assert asked == 3


def test_it_waits_for_suspects_alone(pid1: Fake, manager: Manager) -> None:
    be(pid1)
    assert looping.found(manager, (), 3_600_000_000) == []
    be(pid1, "activating", **WAITS)
    assert looping.found(manager, {UNIT}, 3_600_000_000) == []
    be(pid1, "activating", "issu-bus.service", **WAITS)
    assert looping.found(manager, (), 3_600_000_000) == []


@pytest.mark.parametrize(
    ("active", "properties", "expected"),
    [
        ("failed", {"SubState": "failed"}, True),
        ("activating", WAITS, True),
        ("active", {"NRestarts": 2, "ActiveEnterTimestampMonotonic": None}, True),
        ("active", {"NRestarts": 2}, False),  # long ago
        ("active", {}, False),
    ],
    ids=["failed", "waits", "lately", "long-ago", "good"],
)
def test_what_is_ill_before(
    pid1: Fake, manager: Manager, active: str, properties: dict[str, Any], expected: bool
) -> None:
    """A timestamp of None is now; the machine has been up for longer than a minute."""
    now = record.now_usec()
    assert now > looping.RECENT_USEC
    given = {key: now if value is None else value for key, value in properties.items()}
    be(pid1, active, **given)
    assert looping.ill(manager) == ([UNIT] if expected else [])
