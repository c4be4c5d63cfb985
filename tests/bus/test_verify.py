"""Is the new root healthy: what is found beside units that are not active, see test_settle.py."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from issu_systemd import netstate, outcome, record, verify
from issu_systemd.phase import Phase
from issu_systemd.record import Record
from issu_systemd.systemd import Manager
from tests.bus.conftest import Places
from tests.bus.fake import Fake, State
from tests.bus.test_settle import story_in

UP = {"multi-user.target": "active", "frr.service": "active"}
SETTLE = 300_000


@pytest.fixture(autouse=True)
def no_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Directories in place of /usr/lib/issu/verify.d and /etc/issu/verify.d."""
    found = [tmp_path / "usr", tmp_path / "etc"]
    monkeypatch.setattr(verify, "PROGRAMS", found)
    return found


def asks(**more: Any) -> Record:
    return story_in(
        Phase.VERIFY, **({"verify_units": ["frr.service"], "verify_settle_usec": SETTLE} | more)
    )


# --- settle -------------------------------------------------------------------------------------


def test_a_unit_that_stays(manager: Manager, pid1: Fake) -> None:
    now = time.monotonic_ns() // 1000
    pid1.be(State(units=UP, properties={"frr.service": {"ActiveEnterTimestampMonotonic": now}}))
    assert verify.verify(manager, asks()) == []
    assert time.monotonic_ns() // 1000 >= now + SETTLE


def test_one_that_is_up_for_long_is_not_waited_for(manager: Manager, pid1: Fake) -> None:
    pid1.be(State(units=UP, properties={"frr.service": {"ActiveEnterTimestampMonotonic": 7}}))
    begin = time.monotonic()
    assert verify.verify(manager, asks(verify_settle_usec=60_000_000)) == []
    assert time.monotonic() - begin < 30
    assert verify.verify(manager, asks(verify_units=[], verify_settle_usec=1 << 60)) == []


def test_a_unit_that_leaves(manager: Manager, pid1: Fake) -> None:
    now = time.monotonic_ns() // 1000
    pid1.be(
        State(
            units=UP,
            properties={"frr.service": {"ActiveEnterTimestampMonotonic": now}},
            then={"GetAll": [[], [{"unit": ["frr.service", "failed"]}]]},
        )
    )
    told = "frr.service did not stay active for 0.3 s: it is failed"
    assert verify.verify(manager, asks()) == [told]


def test_a_unit_that_leaves_and_comes_again(
    manager: Manager, pid1: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamps = iter([1, 2])
    monkeypatch.setattr(verify, "entered", lambda manager, unit: next(stamps, 2))
    pid1.be(State(units=UP))
    told = "frr.service did not stay active for 0.3 s: it is active again"
    assert verify.not_settled(manager, asks(), set()) == [told]


def test_a_unit_that_crashes_again_and_again(manager: Manager, pid1: Fake) -> None:
    """It was seen active, and is on its way to the next try when it is looked at again."""
    pid1.be(State(units=UP | {"frr.service": "activating"}))
    told = "frr.service did not stay active for 0.3 s: it is activating"
    assert verify.not_settled(manager, asks(), set()) == [told]
    assert verify.not_settled(manager, asks(), {"frr.service"}) == []  # told already


# --- failed -------------------------------------------------------------------------------------


def test_only_what_failed_here_and_not_before(manager: Manager, pid1: Fake) -> None:
    story = asks(verify_units=["wanted.service"], failed_before=["broken.service"])
    story.phases[-2]["start_usec"] = 100
    pid1.be(
        State(
            units={
                name: "failed" for name in (
                    "broken.service", "stale.service", "fresh.service", "wanted.service",
                    "issu-watch.service",
                )
            } | {"good.service": "active"},
            properties={"": {"InactiveEnterTimestampMonotonic": 100},
                        "stale.service": {"InactiveEnterTimestampMonotonic": 99}},
        )
    )  # fmt: skip
    assert verify.failed(manager, story) == ["fresh.service has failed, and had not before"]


# --- programs -----------------------------------------------------------------------------------


def program(place: Path, name: str, script: str, mode: int = 0o755) -> Path:
    place.mkdir(exist_ok=True)
    path = place / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(mode)
    return path


def test_programs_run_by_name_and_etc_wins(no_programs: list[Path], places: Places) -> None:
    usr, etc = no_programs
    log = usr.with_name("log")
    program(usr, "20-b", f"echo usr-b >>{log}")
    program(usr, "10-a", f"echo usr-a $1 >>{log}")
    program(etc, "20-b", f"echo etc-b >>{log}")
    program(usr, "40-masked", f"echo masked >>{log}")
    (etc / "40-masked").symlink_to("/dev/null")
    program(etc, "50-text", f"echo text >>{log}", mode=0o644)
    program(etc, ".70-draft", f"echo draft >>{log}")
    (etc / "60-directory").mkdir()
    assert verify.refused_by_programs(asks()) == []
    assert log.read_text().splitlines() == [f"usr-a {record.RECORD}", "etc-b"]


def test_every_program_that_is_not_content_is_told(no_programs: list[Path]) -> None:
    _, etc = no_programs
    program(etc, "1", "echo first; echo the reason; exit 3")
    program(etc, "2", "echo fine")
    program(etc, "3", "exit 1")
    program(etc, "4", "echo asking; exec sleep 300")
    (etc / "5").write_text("no program")
    (etc / "5").chmod(0o755)
    found = verify.refused_by_programs(asks(verify_program_timeout_usec=300_000))
    assert found == [
        f"{etc}/1 ended with 3: the reason", f"{etc}/3 ended with 1: it said nothing",
        f"{etc}/4 did not end within 0.3 s: asking", f"{etc}/5 cannot be run: Exec format error",
    ]  # fmt: skip


# --- the kernel's state -------------------------------------------------------------------------


@pytest.mark.parametrize("wish", ["report", "strict"])
@pytest.mark.parametrize(
    ("count", "told"),
    [
        (0, []),
        (1, ["the kernel's state is not as it was: route 0"]),
        (7, ["the kernel's state is not as it was: route 0, route 1, route 2, route 3, route 4 "
             "and 2 more"]),
    ],
)  # fmt: skip
def test_differences(
    monkeypatch: pytest.MonkeyPatch, wish: str, count: int, told: list[str]
) -> None:
    found = {"differences": [{"what": "route", "name": str(n)} for n in range(count)]}
    monkeypatch.setattr(outcome, "continuity_of", lambda story: found)
    monkeypatch.setattr(netstate, "settle", lambda deadline: None)
    story = asks(verify_continuity=wish)
    assert verify.kernel_differs(story) == (told if wish == "strict" else [])
    assert story.compared == (found if wish == "strict" else {})


def test_all_troubles_are_told(
    manager: Manager, pid1: Fake, no_programs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    program(no_programs[1], "look", "exit 1")
    monkeypatch.setattr(netstate, "settle", lambda deadline: None)
    found = {"differences": [{"what": "route", "name": "r"}]}
    monkeypatch.setattr(outcome, "continuity_of", lambda story: found)
    pid1.be(
        State(
            units={"multi-user.target": "inactive", "x.service": "failed"},
            properties={"x.service": {"InactiveEnterTimestampMonotonic": 1 << 60}},
        )
    )
    story = asks(verify_timeout_usec=1, verify_continuity="strict")
    words = ("multi-user.target is", "frr.service is", "x.service has", "look ended", "route r")
    troubles = verify.verify(manager, story)
    assert len(troubles) == len(words)
    for trouble, word in zip(troubles, words, strict=True):
        assert word in trouble


# --- the disk -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "told"), [("/dev/issu-gone", 1), ("", 0), ("rootfs", 0)], ids=["gone", "none", "no"]
)
def test_a_root_whose_disk_is_gone(
    manager: Manager, pid1: Fake, device: str, told: int
) -> None:
    """All that runs may be in memory, and look as ever."""
    pid1.be(State(units=UP))
    troubles = verify.verify(manager, asks(verify_units=[], target={"device": device}))
    assert len(troubles) == told
    assert all(f"{device}, which holds the new root, cannot be read" in t for t in troubles)
