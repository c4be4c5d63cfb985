"""Which way strategy live goes on, by the root that is / and the one that PID 1 is of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from issu_systemd import land, live, restart, settle, systemd, wayback
from issu_systemd.errors import IssuError
from issu_systemd.phase import Phase
from issu_systemd.record import Record

OLD, NEW = 1, 2
TROUBLE = restart.Trouble("frr.service", "it is failed")


@pytest.fixture
def did(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done, by name; nothing of it really is."""
    done: list[str] = []

    def note(text: str, returns: Any = None) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            done.append(text)
            return returns

        return call

    @contextmanager
    def connect(deadline: float) -> Iterator[None]:
        yield

    monkeypatch.setattr(systemd, "connect", connect)
    monkeypatch.setattr(systemd, "notify", lambda **named: None)
    monkeypatch.setattr("issu_systemd.record.save", lambda story: None)
    for module, name, returns in (
        (live, "strip", None), (live, "back", None), (land, "bring_up", []),
        (land, "let_go", None), (land, "restart_rest", None),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, note(name, returns))
    monkeypatch.setattr(live, "reexecute", lambda manager, dev: done.append(f"reexecute {dev}"))
    monkeypatch.setattr(
        settle, "accept", lambda manager, story, troubles: done.append(f"accept {troubles}")
    )
    monkeypatch.setattr(
        settle, "undo", lambda manager, story, error, result: done.append(f"{result}: {error}")
    )
    monkeypatch.setattr(
        wayback, "begin", lambda manager, story, reason: done.append(f"way back: {reason}")
    )
    return done


def stand(monkeypatch: pytest.MonkeyPatch, root: int, pid1: int, phase: Phase) -> Record:
    """A machine with these st_dev, and an upgrade in this phase."""
    monkeypatch.setattr(live, "root_dev", lambda: root)
    monkeypatch.setattr(live, "pid1_dev", lambda: pid1)
    story = Record(id="1", started="", strategy="live", old_dev=OLD, new_dev=NEW, stage="/sysroot")
    story.phase = phase
    return story


ACCEPTED = ["strip", "bring_up", "let_go", "accept []"]


@pytest.mark.parametrize(
    ("root", "pid1", "phase", "wanted", "status"),
    [
        (NEW, NEW, Phase.SWITCH, ACCEPTED, 0),
        (NEW, NEW, Phase.ARRIVE, ACCEPTED, 0),
        (NEW, NEW, Phase.ACCEPT, ["strip", "accept []"], 0),
        (NEW, OLD, Phase.SWITCH, [f"reexecute {NEW}", *ACCEPTED], 0),
        (NEW, NEW, Phase.BACK, ["strip", "back"], land.AGAIN),
        (OLD, NEW, Phase.BACK, [f"reexecute {OLD}", "strip", "rolled-back: why"], 0),
        (OLD, OLD, Phase.BACK, ["strip", "rolled-back: why"], 0),
        (OLD, OLD, Phase.SWITCH, ["strip", "failed: why"], 0),
    ],
)
def test_where_it_goes_on(
    monkeypatch: pytest.MonkeyPatch, did: list[str],
    root: int, pid1: int, phase: Phase, wanted: list[str], status: int,
) -> None:  # fmt: skip
    story = stand(monkeypatch, root, pid1, phase)
    story.phases = [{"name": "verify", "start_usec": 1, "end_usec": None}]
    if phase in (Phase.SWITCH, Phase.ARRIVE):
        monkeypatch.setattr(
            land, "bring_up", lambda m, s: did.append("bring_up") or s.enter(Phase.VERIFY) or []
        )
    story.error = "why"
    assert land.carry_on(story) == status
    assert did == wanted


def test_trouble_begins_the_way_back(monkeypatch: pytest.MonkeyPatch, did: list[str]) -> None:
    story = stand(monkeypatch, NEW, NEW, Phase.ARRIVE)
    monkeypatch.setattr(land, "bring_up", lambda manager, story: ["frr is failed", "so is bgpd"])
    assert land.carry_on(story) == land.AGAIN
    assert (story.phase, story.error) == (Phase.BACK, "frr is failed; so is bgpd")
    assert did == ["strip", "back"]


def test_with_the_old_root_gone_the_way_back_is_an_upgrade(
    monkeypatch: pytest.MonkeyPatch, did: list[str]
) -> None:
    story = stand(monkeypatch, NEW, NEW, Phase.BACK)
    story.error = "frr is failed"

    def lost(manager: object, story: Record) -> None:
        raise IssuError("/sysroot is empty")

    monkeypatch.setattr(live, "back", lost)
    assert land.carry_on(story) == 0
    ends = "way back: frr is failed; and /sysroot is empty"
    assert did == ["strip", "restart_rest", "let_go", ends]

    # When the roots are changed and only PID 1 is not, somebody else must see to it.
    def changed(manager: object, story: Record) -> None:
        monkeypatch.setattr(live, "root_dev", lambda: OLD)
        raise IssuError("PID 1 stays")

    monkeypatch.setattr(live, "back", changed)
    with pytest.raises(IssuError, match="PID 1 stays"):
        land.carry_on(story)


def test_from_the_old_root_it_does_not_go_on(
    monkeypatch: pytest.MonkeyPatch, did: list[str]
) -> None:
    """What was the way back itself ends where it is: nothing better exists."""
    story = stand(monkeypatch, NEW, NEW, Phase.ARRIVE)
    story.way_back = {"of": "0", "reason": "it was ill", "reboot": True}
    monkeypatch.setattr(land, "bring_up", lambda manager, story: ["frr is failed"])
    assert land.carry_on(story) == 0
    assert did == ["strip", "restart_rest", "let_go", "accept ['frr is failed']"]


def test_the_rest_is_restarted_without_those_that_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def fake(manager: object, work: restart.Work) -> list[restart.Trouble]:
        asked.append([*work.units])
        return [TROUBLE] if TROUBLE.unit in work.units else []

    monkeypatch.setattr(restart, "restart", fake)
    story = Record(
        id="1", started="", plan=[[u, "restarted", ""] for u in ("a.service", TROUBLE.unit)]
    )
    land.restart_rest(None, story)  # type: ignore[arg-type]
    assert asked == [["a.service", TROUBLE.unit], ["a.service"]]
