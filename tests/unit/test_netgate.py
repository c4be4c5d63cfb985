"""Run-time files for PID 1's own module loading and for systemd-networkd."""

from __future__ import annotations

from pathlib import Path

import pytest

from issu_systemd import gate, netgate


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    run = tmp_path / "run"
    monkeypatch.setattr(netgate, "MODPROBE", run / "modprobe.d/50-issu.conf")
    monkeypatch.setattr(netgate, "NETWORKD", run / "systemd/networkd.conf.d/50-issu.conf")
    monkeypatch.setattr(netgate, "NETWORK", run / "systemd/network")
    monkeypatch.setattr(gate, "PLACE", run / "systemd/system")
    return run


def network(root: Path, place: str, name: str) -> None:
    path = root / place / "systemd/network" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("[Match]\nName=eth0\n")


def test_every_network_of_the_new_root_keeps_what_is_configured(
    tmp_path: Path, places: Path
) -> None:
    stage = tmp_path / "stage"
    network(stage, "etc", "10-port.network")
    network(stage, "usr/lib", "80-stock.network")
    network(stage, "etc", "10-port.link")
    netgate.close(stage)
    written = {path.parent.name for path in places.glob("systemd/network/*/50-issu.conf")}
    assert {"10-port.network.d", "80-stock.network.d"} <= written
    assert "10-port.link.d" not in written
    assert (
        "KeepConfiguration=yes"
        in (places / "systemd/network/10-port.network.d/50-issu.conf").read_text()
    )
    assert "ManageForeignRoutes=no" in netgate.NETWORKD.read_text()
    assert "blacklist autofs4\n" in netgate.MODPROBE.read_text()


def test_nothing_is_left(tmp_path: Path, places: Path) -> None:
    stage = tmp_path / "stage"
    network(stage, "etc", "10-port.network")
    foreign = places / "systemd/network/10-port.network.d/10-mine.conf"
    netgate.close(stage)
    netgate.stop_as_restart()
    foreign.write_text("[Network]\n")
    netgate.open_again()
    gate.open_again()
    assert [path for path in places.rglob("*") if path.is_file()] == [foreign]


def test_opening_what_was_never_closed(places: Path) -> None:
    netgate.open_again()
    assert not places.exists()


def test_networkd_is_told_to_restart() -> None:
    netgate.stop_as_restart()
    [path] = gate.PLACE.rglob("*.conf")
    assert path.parent.name == "systemd-networkd.service.d"
    assert "KillSignal=SIGUSR2" in path.read_text()
