"""The private bus, the stand-in for PID 1 on it, and directories in place of /run and /var."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from issu_systemd import gate, history, hooks, netgate, record, uevents
from issu_systemd.systemd import Manager
from tests.bus import fake as stand_in
from tests.bus.fake import Fake, State


@pytest.fixture(scope="session")
def bus_and_fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fake]:
    if not shutil.which("dbus-daemon"):
        pytest.skip("needs dbus-daemon: the bus is a private one")
    place = tmp_path_factory.mktemp("bus")
    with stand_in.bus(place) as address, stand_in.fake(address) as process:
        yield process


@pytest.fixture
def pid1(bus_and_fake: Fake) -> Fake:
    """The stand-in as a Debian 13's PID 1 that has nothing loaded."""
    bus_and_fake.be(State())
    return bus_and_fake


@pytest.fixture
def manager(pid1: Fake) -> Iterator[Manager]:
    with Manager(pid1.address, peer_to_peer=False) as connection:
        yield connection


@dataclass(frozen=True)
class Places:
    """What stands for /run/issu, /run/systemd/system and /var/lib/issu/history."""

    issu: Path
    system: Path
    history: Path

    @property
    def record(self) -> Path:
        return self.issu / "record.json"


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    found = Places(tmp_path / "issu", tmp_path / "system", tmp_path / "history")
    monkeypatch.setattr(record, "DIRECTORY", found.issu)
    for name, file in (
        ("RECORD", "record.json"),
        ("IN_PROGRESS", "in-progress"),
        ("SKIP", "skip"),
        ("REACHED", "reached"),
    ):
        monkeypatch.setattr(record, name, found.issu / file)
    for function in (record.load, record.save):  # their argument has a default
        monkeypatch.setattr(function, "__defaults__", (found.record,))
    monkeypatch.setattr(uevents, "DEVICES", found.issu / "devices")
    monkeypatch.setattr(uevents, "FOUND", found.issu / "uevents.json")
    monkeypatch.setattr(gate, "PLACE", found.system)
    for name in ("MODPROBE", "NETWORKD", "NETWORK"):
        monkeypatch.setattr(netgate, name, found.issu / name)
    monkeypatch.setattr(gate, "HOLD", Path(__file__).parents[2] / "dropins/hold")
    monkeypatch.setattr(history, "PLACE", found.history)
    monkeypatch.setattr(hooks, "PLACES", (tmp_path / "programs",))
    monkeypatch.setattr(record, "HISTORY", found.history)
    return found
