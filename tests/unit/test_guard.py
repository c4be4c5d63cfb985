"""The guard waits for the end of a process, and lets PID 1 follow the root if it must."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from issu_systemd import guard, live, systemd


class Pid1:
    """Notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def start(self, unit: str) -> None:
        self.asked.append(unit)


@pytest.fixture
def pid1(monkeypatch: pytest.MonkeyPatch) -> Pid1:
    found = Pid1()

    @contextmanager
    def connection(*_: object) -> Iterator[Pid1]:
        yield found

    monkeypatch.setattr(systemd, "Manager", connection)
    monkeypatch.setattr(systemd, "connect", connection)
    monkeypatch.setattr(live, "root_dev", lambda: 2)
    monkeypatch.setattr(live, "reexecute", lambda manager, dev: found.asked.append(f"exec {dev}"))
    return found


def test_pid1_follows_the_root(pid1: Pid1, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "pid1_dev", lambda: 1)
    guard.follow()
    assert pid1.asked == ["exec 2", "issu-arrive.service"]


def test_nothing_is_done_when_they_agree(pid1: Pid1, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "pid1_dev", lambda: 2)
    guard.follow()
    assert pid1.asked == []


def test_it_waits_for_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is ready when the process is watched, and not before that one has ended is it over."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    told: list[bool] = []

    def ready(*, ready: bool) -> None:
        told.append(child.poll() is None)
        assert child.stdin
        child.stdin.close()  # and so it ends

    monkeypatch.setattr(systemd, "notify", ready)
    guard.wait_end(child.pid)
    assert told == [True]
    assert child.wait() != 0  # it has ended: EOF

    guard.wait_end(child.pid)  # gone already
    assert told == [True]
