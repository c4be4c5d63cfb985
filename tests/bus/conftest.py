"""The private bus, the stand-in for PID 1 on it, and directories in place of /run and /var."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from issu_systemd import gate, history, hooks, log, netgate, record, uevents
from issu_systemd.systemd import Manager
from tests.bus import fake as stand_in
from tests.bus import issu1, others
from tests.bus.fake import Fake, State
from tests.bus.issu import Issu
from tests.bus.issu1 import Service


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
        ("WAY_BACK", "way-back.json"),
        ("VERDICT", "verdict.json"),
    ):
        monkeypatch.setattr(record, name, found.issu / file)
    for function in (record.load, record.save):  # their argument has a default
        monkeypatch.setattr(function, "__defaults__", (found.record,))
    monkeypatch.setattr(log, "JOURNAL", str(tmp_path / "no-journal"))
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


@pytest.fixture(scope="session")
def issu_bus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Service]]:
    if not shutil.which("dbus-daemon"):
        pytest.skip("needs dbus-daemon: the bus is a private one")
    with (
        stand_in.bus(tmp_path_factory.mktemp("issu1")) as address,
        issu1.service(address) as running,
    ):
        yield address, running


@pytest.fixture
def service(issu_bus: tuple[str, Service]) -> Service:
    """The stand-in for org.issu1, of which nothing was asked."""
    issu_bus[1].be()
    return issu_bus[1]


@pytest.fixture
def issu(issu_bus: tuple[str, Service], service: Service, tmp_path: Path) -> Issu:
    """The command, to be run on the bus with the stand-in for org.issu1."""
    return Issu(issu_bus[0], tmp_path)
# --- org.issu1 ----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def machine_bus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A system bus with the package's policy."""
    if not shutil.which("dbus-daemon") or os.geteuid() != 0:
        pytest.skip("needs dbus-daemon, and root to call as somebody else")
    with others.system_bus(tmp_path_factory.mktemp("system-bus")) as address:
        yield address


@pytest.fixture(scope="session")
def machine_pid1(machine_bus: str) -> Iterator[Fake]:
    with stand_in.fake(machine_bus) as process:
        yield process


@pytest.fixture
def pid1_there(machine_pid1: Fake) -> Fake:
    """The stand-in for PID 1 on the system bus, with nothing loaded."""
    machine_pid1.be(State())
    return machine_pid1


@pytest.fixture
def machine(tmp_path: Path, machine_bus: str, pid1_there: Fake) -> others.Machine:
    """Directories for a service of the test's own."""
    return others.machine(tmp_path, machine_bus)


@pytest.fixture(scope="module")
def shared(
    tmp_path_factory: pytest.TempPathFactory, machine_bus: str, machine_pid1: Fake
) -> Iterator[others.Machine]:
    """One service for the tests of a file that leave nothing behind."""
    found = others.machine(tmp_path_factory.mktemp("machine"), machine_bus)
    process = others.begin(found)
    try:
        asyncio.run(others.ready(found, process))
        yield found
        assert process.poll() is None, "the service has died"
    finally:
        assert "Traceback" not in others.end(process)
