"""logind's inhibitor locks, asked on a bus that a stand-in for logind is on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from issu_systemd import systemd
from issu_systemd.errors import IssuError
from tests.bus import fake

LOCKS = [
    ["shutdown:idle", "backup", "it rüns", "block", 0, 7],
    ["sleep", "film", "", "delay", 1000, 8],
]
LOGIND = f"""
import asyncio, sys
from dbus_next.aio import MessageBus
from dbus_next.service import ServiceInterface, method

class Manager(ServiceInterface):
    @method()
    def ListInhibitors(self) -> "a(ssssuu)":
        return {LOCKS!r}

async def main():
    bus = await MessageBus(bus_address=sys.argv[1]).connect()
    bus.export("/org/freedesktop/login1", Manager("org.freedesktop.login1.Manager"))
    await bus.request_name("org.freedesktop.login1")
    print("here", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with fake.bus(tmp_path) as where:
        monkeypatch.setattr(systemd, "SYSTEM", where)
        yield where


def test_every_lock_is_listed(address: str) -> None:
    argv = [sys.executable, "-c", LOGIND, address]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as logind:
        try:
            assert logind.stdout and logind.stdout.readline() == b"here\n"
            assert systemd.inhibitors() == [tuple(lock[:4]) for lock in LOCKS]
        finally:
            logind.kill()


def test_without_logind_there_is_an_error_that_says_so(address: str) -> None:
    with pytest.raises(IssuError, match="logind does not list inhibitors"):
        systemd.inhibitors()


def test_without_a_bus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(systemd, "SYSTEM", f"unix:path={tmp_path}/none")
    with pytest.raises(IssuError, match="logind"):
        systemd.inhibitors()
