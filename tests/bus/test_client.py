"""The connection: what is wrong with a bus becomes one kind of error, soon, and leaves nothing."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from issu_systemd.client import Client, error_of, options
from issu_systemd.errors import IssuError, NoSuchJob, Unreachable
from tests.bus.issu1 import Service


@pytest.fixture
def address(issu_bus: tuple[str, Service], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", issu_bus[0])
    return issu_bus[0]


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.usefixtures("address")
def test_many_connections_leave_nothing_open(service: Service) -> None:
    service.be(manager={"Mechanism": "pivot"})
    before = descriptors()
    for _ in range(20):
        with Client() as client:
            assert client.properties()["Mechanism"] == "pivot"
    assert descriptors() == before


@pytest.mark.usefixtures("address")
def test_a_handle_is_ours_alone(service: Service) -> None:
    with Client() as client:
        [handle] = client.call("Inhibit", "ss", "me", "a backup")
    assert not os.get_inheritable(handle)
    assert service.held()
    os.close(handle)
    assert not service.held()


def test_no_bus_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/none")
    before = descriptors()
    for _ in range(20):
        with pytest.raises(Unreachable, match="No such file"), Client():
            pass
    assert descriptors() == before


def test_a_bus_that_hangs_up_in_the_handshake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/bus")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{tmp_path}/bus")
        server.listen()
        closer = threading.Thread(target=lambda: server.accept()[0].close(), daemon=True)
        closer.start()
        with pytest.raises(Unreachable, match="cannot be reached"), Client():
            pass
        closer.join()


def test_a_service_that_does_not_answer(
    service: Service, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.process.send_signal(19)  # SIGSTOP
    try:
        with Client() as client, pytest.raises(Unreachable, match=r"did not answer within 0\.2 s"):
            client.call("Accept", seconds=0.2)
    finally:
        service.process.send_signal(18)
    with Client() as client:  # control
        client.call("Accept")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("org.freedesktop.DBus.Error.ServiceUnknown", Unreachable),
        ("org.freedesktop.DBus.Error.Spawn.ChildExited", Unreachable),
        ("org.freedesktop.DBus.Error.NoReply", Unreachable),
        ("org.freedesktop.systemd1.NoSuchUnit", Unreachable),
        ("org.freedesktop.DBus.Error.UnknownObject", NoSuchJob),
        ("org.freedesktop.DBus.Error.LimitsExceeded", IssuError),
        ("org.issu1.Error.SomethingNew", IssuError),
    ],
)
def test_errors_that_are_not_ours(name: str, kind: type[IssuError]) -> None:
    error = error_of(name, ["said\nTraceback"])
    assert type(error) is kind
    assert str(error).endswith("said")


def test_options_that_are_not_given_are_left_out() -> None:
    assert options(strategy=None, force=[]) == {}
    assert options(rehearse=False) == {}
    found = options(strategy="live", force=["a"], rehearse=True)
    assert {key: (v.signature, v.value) for key, v in found.items()} == {
        "strategy": ("s", "live"), "force": ("as", ["a"]), "rehearse": ("b", True),
    }  # fmt: skip
