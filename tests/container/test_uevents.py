"""Devices that go during an upgrade: one that the container has a node of, one of the host's."""

from pathlib import Path

from tests.rig import loop, roots, sh

from .element import element, write_settings
from .test_acceptance import wait_waiting


def disk(work: Path, name: str) -> Path:
    """A disk with one partition."""
    part = work / f"{name}.part.img"
    sh.run([*roots.MKE2FS, part, "16M"])
    return roots.disk(work / f"{name}.img", [part])


def test_only_the_container_s_own_devices_count(tmp_path: Path) -> None:
    """Its node stays in /dev when the device goes, and the kernel tells every container of both."""

    def asks(root: Path) -> None:
        write_settings(root, '[accept]\nmode = "manual"\n')

    ours, other = (disk(tmp_path, name) for name in ("ours", "other"))
    with (
        loop.attach(other) as host_only,
        element(tmp_path, in_source=asks, more=[ours]) as e,
    ):
        device = e.machine.devices[2]
        (part,), (foreign,) = loop.partitions(device), loop.partitions(host_only)
        assert e.machine.path(part).is_block_device()
        assert not e.machine.path(foreign).exists()
        known = set(e.ids())
        assert e.start()[0] == 0
        wait_waiting(e)
        for gone in (device, host_only):
            sh.run(["partx", "--delete", gone])
        assert e.machine.path(part).is_block_device()
        e.machine.run(["issu", "accept"])
        report = e.wait_end(known)
        assert report["result"] == "accepted", report
        assert report["uevents"]["seen"] >= 2
        told = [(event["action"], event["device"]) for event in report["uevents"]["forbidden"]]
        assert told == [("remove", f"/devices/virtual/block/{device.name}/{part.name}")]
        assert [f["id"] for f in report["findings"] if f["severity"] == "warn"] == ["uevent"]
