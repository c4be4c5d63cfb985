"""The end of an upgrade, as far as it is computed from plain values."""

from __future__ import annotations

from typing import Any

import pytest

from issu_systemd import mounts, outcome, settle
from issu_systemd.phase import Phase
from issu_systemd.record import Record
from issu_systemd.report import UnitTimes

PROPERTIES: dict[str, Any] = {
    "ActiveState": b"active",
    "ActiveEnterTimestampMonotonic": 30,
    "ActiveExitTimestampMonotonic": 10,
    "InactiveEnterTimestampMonotonic": 20,
    "ConditionTimestampMonotonic": 29,
    "ConditionResult": True,
}


@pytest.mark.parametrize(
    ("state", "active"),
    [
        (b"active", True),
        (b"reloading", True),
        (b"inactive", False),
        (b"failed", False),
        (b"deactivating", False),
    ],
)
def test_times_of_a_unit(state: bytes, *, active: bool) -> None:
    assert outcome.times_of(PROPERTIES | {"ActiveState": state}) == UnitTimes(
        active=active,
        active_enter_usec=30,
        active_exit_usec=10,
        inactive_enter_usec=20,
        condition_failed=False,
    )


@pytest.mark.parametrize(
    ("tested", "result", "failed"), [(29, False, True), (29, True, False), (0, False, False)]
)
def test_a_condition_that_was_never_tested_did_not_fail(
    tested: int, *, result: bool, failed: bool
) -> None:
    changed = {"ConditionTimestampMonotonic": tested, "ConditionResult": result}
    assert outcome.times_of(PROPERTIES | changed).condition_failed is failed


def test_a_stop_that_pid_1_forgot_is_remembered() -> None:
    now = {
        "forgot.service": UnitTimes(active=True, active_enter_usec=30),
        "knows.service": UnitTimes(active=True, active_enter_usec=30, active_exit_usec=11),
        "new.service": UnitTimes(active=True, active_enter_usec=31),
    }
    stopped = {
        "forgot.service": UnitTimes(active=False, active_exit_usec=10, inactive_enter_usec=12),
        "knows.service": UnitTimes(active=False, active_exit_usec=9),
    }
    joined = outcome.joined(now, stopped)
    assert {name: times.active_exit_usec for name, times in joined.items()} == {
        "forgot.service": 10,
        "knows.service": 11,
        "new.service": 0,
    }
    assert all(times.active for times in joined.values())
    assert outcome.joined(now, {}) == now


# --- what the report is not to count ------------------------------------------------------------

MOUNTINFO = """\
1 0 8:17 / / rw - ext4 /dev/sdb1 rw
2 1 0:21 / /proc rw - proc proc rw
3 2 0:40 / /proc/sys/fs/binfmt_misc rw - binfmt_misc binfmt_misc rw
4 1 8:18 / /var/lib/element rw - ext4 /dev/sdb2 rw
5 1 0:50 / /var/lib/element2 rw - tmpfs tmpfs rw
6 1 0:51 / /sys rw - sysfs sysfs rw
7 1 0:52 / /srv rw - tmpfs tmpfs rw
"""


def test_mounts_that_crossed_are_those_that_were_carried_and_are_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not one beside a carried one, not one that was mounted anew, not what was left behind."""
    now = mounts.parse(MOUNTINFO)
    monkeypatch.setattr(mounts, "mounts", lambda: now)
    before = {mount.point: mount.dev for mount in now} | {"/sys": 1, "/gone": 2}
    story = Record(id="x", started="y", mounts=before)
    story.carried = ["/proc", "/sys", "/var/lib/element"]
    assert outcome.crossed(story) == {
        "proc.mount",
        "proc-sys-fs-binfmt_misc.mount",
        "var-lib-element.mount",
    }
    assert outcome.crossed(Record(id="x", started="y")) == set()


def test_what_was_skipped_is_gated_template_or_not() -> None:
    story = Record(id="x", started="y", skip=["hw-reset.service", "asic@.service"])
    units = {"hw-reset.service", "asic@1.service", "asic@2.service", "frr.service"}
    assert outcome.gated(story, units) == units - {"frr.service"}
    assert outcome.gated(story, set()) == set()


# --- how the agent ended ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        (
            {"SERVICE_RESULT": "signal", "EXIT_CODE": "killed", "EXIT_STATUS": "KILL"},
            "the agent died in phase stage (signal KILL)",
        ),
        (
            {"SERVICE_RESULT": "core-dump", "EXIT_CODE": "dumped", "EXIT_STATUS": "SEGV"},
            "the agent died in phase stage (signal SEGV)",
        ),
        (
            {"SERVICE_RESULT": "exit-code", "EXIT_CODE": "exited", "EXIT_STATUS": "1"},
            "the agent died in phase stage (exit 1)",
        ),
        (
            {"SERVICE_RESULT": "timeout", "EXIT_CODE": "killed", "EXIT_STATUS": "TERM"},
            "took too long in phase stage and was stopped",
        ),
        (
            {"SERVICE_RESULT": "success", "EXIT_CODE": "killed", "EXIT_STATUS": "TERM"},
            "stopped on request in phase stage",
        ),
        (
            {"SERVICE_RESULT": "protocol", "EXIT_CODE": "killed", "EXIT_STATUS": "TERM"},
            "stopped on request in phase stage",
        ),
        (
            {"SERVICE_RESULT": "protocol", "EXIT_CODE": "exited", "EXIT_STATUS": "0"},
            "the agent died in phase stage (exit 0)",
        ),
    ],
    ids=["killed", "dumped", "exited", "timeout", "stopped", "SIGTERM", "protocol"],
)
def test_how_the_agent_ended(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], says: str
) -> None:
    """What PID 1 tells ExecStopPost=, see systemd.exec(5)."""
    story = Record(id="x", started="y")
    for phase in (Phase.PREFLIGHT, Phase.STAGE):
        story.enter(phase)
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    assert settle.death(story) == says
