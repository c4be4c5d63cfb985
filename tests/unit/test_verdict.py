"""What becomes of an upgrade that waits: the first verdict counts, or the deadline."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from issu_systemd import (
    history,
    mounts,
    oldroot,
    outcome,
    record,
    settle,
    systemd,
    verdict,
    wayback,
)
from issu_systemd.errors import IssuError, NoSuchJob
from issu_systemd.phase import ORDER, Phase
from issu_systemd.record import Record
from issu_systemd.verdict import ACCEPT, ROLL_BACK, Verdict

HOUR = 3_600_000_000


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory in place of /run/issu."""
    for name, file in (("RECORD", "record.json"), ("VERDICT", "verdict.json")):
        monkeypatch.setattr(record, name, tmp_path / file)
    for function in (record.load, record.save):
        monkeypatch.setattr(function, "__defaults__", (tmp_path / "record.json",))
    return tmp_path


class Deaf:
    """A PID 1 that is only asked to start a unit."""

    def __init__(self) -> None:
        self.started: list[str] = []

    def start(self, unit: str) -> int:
        self.started.append(unit)
        return 1


@pytest.fixture(autouse=True)
def pid1(monkeypatch: pytest.MonkeyPatch) -> Deaf:
    deaf = Deaf()

    @contextmanager
    def reach(*_: object) -> Iterator[Deaf]:
        yield deaf

    monkeypatch.setattr(systemd, "Manager", reach)
    monkeypatch.setattr(systemd, "connect", reach)
    monkeypatch.setattr(settle, "clear_old_failures", lambda manager, story: None)
    monkeypatch.setattr(outcome, "continuity_of", lambda story: {"differences": []})
    return deaf


def story_in(phase: Phase, **more: Any) -> Record:
    story = Record(id="x", started="y", source={"device": "/dev/nosuch"}, **more)
    for step in ORDER[: ORDER.index(phase) + 1]:
        story.enter(step)
    return story


def waits(**more: Any) -> Record:
    """An upgrade that waits, as another process sees it."""
    story = story_in(Phase.ACCEPT, accept_mode="manual", deadline_usec=verdict.now_usec() + HOUR)
    for name, value in more.items():
        setattr(story, name, value)
    record.save(story)
    return story


def test_nothing_waits() -> None:
    assert verdict.waiting() is None
    for story in (story_in(Phase.VERIFY), story_in(Phase.ACCEPT)):
        record.save(story)
        assert verdict.waiting() is None
        with pytest.raises(NoSuchJob):
            verdict.give(ACCEPT)


def test_who_waits_is_told_and_woken(pid1: Deaf) -> None:
    story = waits()
    assert verdict.waiting() == story
    verdict.give(ACCEPT)
    assert verdict.wait(story) == (ACCEPT, "asked for by the operator")
    assert pid1.started == ["issu-arrive.service"]


def test_twice_is_once_and_the_opposite_is_too_late() -> None:
    story = waits()
    verdict.give(ROLL_BACK)
    verdict.give(ROLL_BACK)
    with pytest.raises(IssuError, match="x: roll-back was decided before"):
        verdict.give(ACCEPT)
    assert verdict.wait(story).word == ROLL_BACK


def test_of_many_at_once_one_counts(place: Path) -> None:
    words = [ACCEPT, ROLL_BACK] * 8
    with ThreadPoolExecutor(len(words)) as pool:
        found = set(pool.map(lambda word: verdict.decide("x", Verdict(word, word)), words))
    assert found == {verdict.decided("x")}
    assert [path.name for path in place.iterdir()] == ["verdict.json"]


def test_a_verdict_on_another_upgrade_does_not_count() -> None:
    verdict.decide("older", Verdict(ACCEPT, ""))
    story = story_in(Phase.ACCEPT, accept_mode="manual", accept_timeout_usec=1)
    assert verdict.wait(story) == (ROLL_BACK, "not accepted within 0 s")


def test_the_deadline_is_set_once_and_is_a_verdict() -> None:
    story = story_in(Phase.ACCEPT, accept_mode="manual", accept_timeout_usec=300_000)
    begun = verdict.now_usec()
    assert verdict.wait(story).word == ROLL_BACK
    first = story.deadline_usec
    assert first is not None
    assert first - begun >= 300_000
    assert verdict.now_usec() >= first
    assert record.load().deadline_usec == first
    with pytest.raises(IssuError, match="decided before"):
        verdict.give(ACCEPT)
    again = record.load()
    assert verdict.wait(again).reason == "not accepted within 0 s"
    assert again.deadline_usec == first


@pytest.mark.parametrize(
    ("usec", "text"),
    [(3_000_000, "3 s"), (90_000_000, "90 s"), (60_000_000, "1 min"), (45 * 60_000_000, "45 min")],
)
def test_a_span(usec: int, text: str) -> None:
    assert verdict.span(usec) == text


@pytest.mark.parametrize(
    ("mode", "word", "did"),
    [("auto", None, "accept"), ("manual", ACCEPT, "accept"), ("manual", ROLL_BACK, "back: why")],
)
def test_the_end(monkeypatch: pytest.MonkeyPatch, mode: str, word: str | None, did: str) -> None:
    done: list[str] = []
    monkeypatch.setattr(settle, "accept", lambda manager, story, troubles: done.append("accept"))
    monkeypatch.setattr(wayback, "begin", lambda m, s, reason: done.append(f"back: {reason}"))
    story = waits(accept_mode=mode)
    if word:
        verdict.decide("x", Verdict(word, "why"))
    verdict.conclude(story)
    assert done == [did]


@pytest.mark.parametrize(
    ("points", "free", "was_free", "told"),
    [
        ([], True, True, []),
        (["/mnt"], False, True, ["/dev/null is mounted at /mnt"]),
        (["/mnt"], False, False, ["/dev/null is mounted at /mnt"]),
        ([], False, True, ["/dev/null is in use"]),
        ([], False, False, []),  # whoever held it before the wait is a finding already
    ],
)
def test_who_uses_the_old_root_is_told_once(
    monkeypatch: pytest.MonkeyPatch, points: list[str], free: bool, was_free: bool, told: list[str],
) -> None:  # fmt: skip
    one = mounts.mounts()[0]
    monkeypatch.setattr(mounts, "block_number", lambda node: 7)
    monkeypatch.setattr(mounts, "on_device", lambda number: [one._replace(point=p) for p in points])
    monkeypatch.setattr(oldroot, "is_free", lambda node: free)
    story = waits(source={"device": "/dev/null"})
    for _ in range(2):
        verdict.look_at_old_root(story, was_free=was_free)
    assert [finding["text"] for finding in story.findings] == told
    assert record.load().findings == story.findings


def test_a_device_that_is_gone_is_told() -> None:
    story = waits()
    verdict.look_at_old_root(story, was_free=True)
    assert [finding["text"] for finding in story.findings] == ["/dev/nosuch is gone"]


def test_status_tells_until_when() -> None:
    story = waits()
    now = history.current()
    assert now is not None
    assert now["accept_deadline_usec"] == story.deadline_usec
    line = history.one_line(json.loads(json.dumps(now)))
    assert "waits for `issu accept` until " in line
    assert "(in 59 min), else goes back to /dev/nosuch" in line
    late = history.one_line(now | {"accept_deadline_usec": verdict.now_usec()})
    assert "(in 0 s)" in late
    assert "waits" not in history.one_line(now | {"accept_deadline_usec": None})
