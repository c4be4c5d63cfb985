"""The container alone has its root, and can give it up."""

from pathlib import Path

import pytest

from tests.rig.holders import strangers, superblock
from tests.rig.machine import Machine
from tests.rig.scenario import hold, is_free, make, switch

pytestmark = pytest.mark.container


def test_only_the_container_has_its_root(images: Path, suite: str) -> None:
    """Also while other machines start: their mount namespaces are copies of the host's."""
    with Machine(make(images, suite)) as one, Machine(make(images, suite, "b")) as two:
        one.reboot()
        for machine in (one, two):
            assert strangers(machine.devices[0], machine.pid) == []


def test_stranger_is_seen(images: Path, tmp_path: Path) -> None:
    with Machine(make(images, "bookworm")) as machine:
        device = machine.devices[0]
        with hold(device, tmp_path):
            assert len(strangers(device, machine.pid)) == 1
        assert strangers(device, machine.pid) == []


def test_old_root_is_free_after_a_switch(images: Path, suite: str) -> None:
    other = {"bookworm": "trixie", "trixie": "bookworm"}[suite]
    with Machine(make(images, suite), disks=[make(images, other, "b")]) as machine:
        old, new = machine.devices
        boot = machine.boot_id()
        assert not is_free(machine, old)
        switch(machine, suite, new)
        assert machine.wait_running(30) == "running"
        machine.wait_for(lambda: is_free(machine, old), 10, "the old root is free")
        assert not superblock(old)
        assert machine.boot_id() == boot
        assert machine.run(["cat", "/etc/issu-root"]).stdout == "b\n"
        assert strangers(new, machine.pid) == []


def test_old_root_is_not_free_while_a_stranger_has_it(images: Path, tmp_path: Path) -> None:
    """Negative control: the exclusive open does notice a mount that only the host has."""
    image, other = make(images, "trixie"), make(images, "trixie", "b")
    with Machine(image, disks=[other]) as machine:
        old, new = machine.devices
        with hold(old, tmp_path):
            switch(machine, "trixie", new)
            machine.wait_running(30)
            assert not is_free(machine, old)
            assert superblock(old)
        machine.wait_for(lambda: is_free(machine, old), 10, "the old root is free")
