"""The reboot that ends an endless row of failures."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import pytest

from issu_systemd import arrive, lastresort, record, systemd
from issu_systemd.errors import IssuError


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(record, "DIRECTORY", tmp_path)
    for name in ("RECORD", "WAY_BACK"):
        monkeypatch.setattr(record, name, tmp_path / name.lower())
    return tmp_path


class Pid1:
    """PID 1 as `connect` gives it."""

    def __init__(self, *, answers: bool) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def __enter__(self) -> Pid1:
        if not self.answers:
            raise IssuError("PID 1 cannot be reached")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        return None

    def call(self, method: str) -> None:
        self.asked.append(method)


def test_tries_are_counted(place: Path) -> None:
    assert [lastresort.count() for _ in range(3)] == [1, 2, 3]
    lastresort.path().write_text("no number")
    assert lastresort.count() == 1


@pytest.mark.parametrize("answers", [True, False])
def test_pid1_is_asked_first_and_then_the_kernel(
    place: Path, monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    """Of one that acts no more is seen: it ends us while we wait."""
    pid1, done = Pid1(answers=answers), list[str]()
    monkeypatch.setattr(systemd, "connect", lambda deadline: pid1)
    monkeypatch.setattr(lastresort, "SYSRQ", place / "sysrq")

    def sleep(seconds: float) -> None:
        keys = lastresort.SYSRQ
        done.append(keys.read_text() if keys.exists() else f"{seconds:g} s")

    monkeypatch.setattr(lastresort.time, "sleep", sleep)
    lastresort.reboot()
    assert pid1.asked == (["Reboot"] if answers else [])
    assert done == [f"{lastresort.PID1_SEC:g} s", "s", "b"]


@pytest.mark.parametrize("left", ["record", "way_back"])
def test_it_comes_after_so_many_tries_and_not_before(
    place: Path, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    (place / left).write_text("{}")
    rebooted: list[int] = []
    monkeypatch.setattr(lastresort, "reboot", lambda: rebooted.append(1))
    monkeypatch.setattr("issu_systemd.wayback.go", lambda: 1)
    for _ in range(lastresort.TRIES):
        arrive.main()
    assert rebooted == []
    arrive.main()
    assert rebooted == [1]


def test_where_there_is_no_upgrade_nothing_is_counted(place: Path) -> None:
    for _ in range(2 * lastresort.TRIES):
        assert arrive.main() == 0
    assert not lastresort.path().exists()
