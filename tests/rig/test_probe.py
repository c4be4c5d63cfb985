"""The probe sees what services do, and no more."""

import time
from pathlib import Path

import pytest

from tests.rig import wait
from tests.rig.machine import Machine
from tests.rig.probe import Probe
from tests.rig.scenario import PRETTY, make, services, switch

pytestmark = pytest.mark.container


def test_probe_sees_three_services_and_no_outage(images: Path, suite: str) -> None:
    with Machine(make(images, suite)) as machine:
        with Probe(machine.network.outside, services(machine)) as probe:
            probe.wait_up(10)
            since = time.monotonic()
            wait.until(lambda: time.monotonic() > since + 1, 2, "a second of probing")
            seen = probe.stop()
        for name, service in seen.items():
            assert service.outages == (), name
            assert len(service.answers) == 1, name
            assert service.answers[0].count > 100, name
            assert service.spacing_usec < 300_000, name
        assert seen["echo"].texts == [f"a {PRETTY[suite]}"]
        assert seen["dnsmasq"].texts == ["192.0.2.1"]
        assert seen["nginx"].texts[0].startswith("200 nginx")


def test_probe_sees_an_outage_of_one_service_only(images: Path, suite: str) -> None:
    with (
        Machine(make(images, suite)) as machine,
        Probe(machine.network.outside, services(machine)) as probe,
    ):
        probe.wait_up(10)
        before = time.monotonic_ns() // 1000
        machine.systemctl("stop", "nginx.service")
        stopped = time.monotonic_ns() // 1000
        wait.until(lambda: probe.observed()["nginx"].failures > 20, 10, "nginx is missed")
        started = time.monotonic_ns() // 1000
        machine.systemctl("start", "nginx.service")
        probe.wait_up(10)
        after = time.monotonic_ns() // 1000
        seen = probe.stop()
    (gap,) = seen["nginx"].outages
    assert before - 50_000 < gap.start_usec < stopped
    assert started < gap.end_usec < after
    assert seen["nginx"].longest_usec == gap.usec > 100_000
    assert seen["nginx"].last_error
    assert seen["dnsmasq"].outages == seen["echo"].outages == ()


@pytest.mark.parametrize("unit", ["dnsmasq", "version-echo"])
def test_probe_sees_a_restart(images: Path, unit: str) -> None:
    name = unit.removeprefix("version-")
    with (
        Machine(make(images, "bookworm")) as machine,
        Probe(machine.network.outside, services(machine)) as probe,
    ):
        probe.wait_up(10)
        machine.systemctl("restart", f"{unit}.service")
        probe.wait_up(10)
        seen = probe.stop()
    assert [key for key, service in seen.items() if service.outages] == [name]
    assert 0 < seen[name].longest_usec < 2_000_000


def test_probe_sees_one_root_follow_the_other(images: Path) -> None:
    with (
        Machine(make(images, "trixie"), disks=[make(images, "bookworm", "b")]) as machine,
        Probe(machine.network.outside, services(machine)) as probe,
    ):
        probe.wait_up(10)
        switch(machine, "trixie", machine.devices[1])
        machine.wait_running(30)
        probe.wait_up(10)
        seen = probe.stop()
    assert seen["echo"].texts == [f"a {PRETTY['trixie']}", f"b {PRETTY['bookworm']}"]
    assert all(service.longest_usec > 0 for service in seen.values())
