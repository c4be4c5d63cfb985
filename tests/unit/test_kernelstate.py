"""What is read from /proc and /sys, below a root made for it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from issu_systemd import kernelstate
from issu_systemd.kernelstate import Source

DISK = "sys/devices/pci0000:00/0000:00:04.0/virtio1"
ADDRESS = "52:54:00:12:34:56"


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def link(path: Path, to: Path) -> None:
    """A relative link, as sysfs has them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(os.path.relpath(to, path.parent))


def bind(root: Path) -> None:
    """virtio_blk takes the disk."""
    link(root / "sys/bus/virtio/drivers/virtio_blk/virtio1", root / DISK)
    link(root / DISK / "driver", root / "sys/bus/virtio/drivers/virtio_blk")


@pytest.fixture
def element(tmp_path: Path) -> Path:
    """A root with a module, a bound device, a network device in a bridge, and some sysctls."""
    write(tmp_path, "proc/modules", "br_netfilter 32768 0 - Live 0x0\nshort\n\n")
    write(tmp_path, "sys/module/br_netfilter/srcversion", "A1B2C3\n")
    (tmp_path / DISK).mkdir(parents=True)
    bind(tmp_path)
    link(tmp_path / "sys/bus/virtio/drivers/virtio_blk/module", tmp_path / "sys/module/virtio_blk")
    write(tmp_path, "sys/bus/virtio/drivers/virtio_blk/bind", "")
    for name, text in {
        "ifindex": "2",
        "address": ADDRESS,
        "mtu": "1500",
        "operstate": "up",
        "carrier_changes": "1",
        "statistics/rx_packets": "7",
        "statistics/tx_errors": "0",
        "statistics/collisions": "3",
    }.items():
        write(tmp_path, f"sys/class/net/eth0/{name}", text + "\n")
    link(tmp_path / "sys/class/net/eth0/master", tmp_path / "sys/class/net/br0")
    write(tmp_path, "sys/class/net/bonding_masters", "\n")
    write(tmp_path, "proc/sys/net/ipv4/ip_forward", "1\n")
    write(tmp_path, "proc/sys/net/ipv4/tcp_fastopen_key", "00-11-22-33\n")
    write(tmp_path, "proc/sys/net/ipv4/conf/eth0/rp_filter", "2\n")
    write(tmp_path, "proc/sys/net/ipv4/route/flush", "0\n")
    write(tmp_path, "proc/sys/net/netfilter/nf_conntrack_count", "17\n")
    write(tmp_path, "proc/sys/net/netfilter/nf_conntrack_max", "65536\n")
    return tmp_path


# --- modules and drivers ------------------------------------------------------------------------


def test_modules(element: Path) -> None:
    found = kernelstate.modules(Source(element))
    inode = (element / "sys/module/br_netfilter").stat().st_ino
    assert found["br_netfilter"] == {"sysfs_inode": inode, "state": "Live", "srcversion": "A1B2C3"}
    assert found["short"] == {"sysfs_inode": None, "state": None, "srcversion": None}


def test_the_same_module_of_another_build(element: Path) -> None:
    before = kernelstate.modules(Source(element))
    assert kernelstate.modules(Source(element)) == before
    write(element, "sys/module/br_netfilter/srcversion", "D4E5F6\n")
    assert kernelstate.modules(Source(element)) != before


def test_drivers_are_told_by_device_and_nothing_else_is(element: Path) -> None:
    """Neither the link to the driver's module nor the files to write to."""
    inode = (element / DISK / "driver").lstat().st_ino
    want = {"driver": "virtio/virtio_blk", "sysfs_inode": inode}
    assert kernelstate.drivers(Source(element)) == {f"/{DISK.removeprefix('sys/')}": want}


def test_a_device_bound_again_and_one_let_go(element: Path) -> None:
    before = kernelstate.drivers(Source(element))
    assert kernelstate.drivers(Source(element)) == before
    (element / DISK / "driver").rename(element / "kept")  # so that its inode is not used again
    (element / "sys/bus/virtio/drivers/virtio_blk/virtio1").unlink()
    assert kernelstate.drivers(Source(element)) == {}
    bind(element)
    again = kernelstate.drivers(Source(element))
    assert again.keys() == before.keys()
    assert again != before


# --- the network --------------------------------------------------------------------------------


def test_network_devices(element: Path) -> None:
    assert kernelstate.network_devices(Source(element)) == {
        "eth0": {
            "ifindex": 2,
            "address": ADDRESS,
            "mtu": 1500,
            "master": "br0",
            "operstate": "up",
            "carrier_changes": 1,
        }
    }


def test_a_device_that_left_its_bridge(element: Path) -> None:
    (element / "sys/class/net/eth0/master").unlink()
    assert kernelstate.network_devices(Source(element))["eth0"]["master"] is None


def test_statistics_are_the_named_counters(element: Path) -> None:
    found = kernelstate.statistics(Source(element))["eth0"]
    assert tuple(found) == kernelstate.COUNTERS
    assert (found["rx_packets"], found["tx_errors"], found["tx_packets"]) == (7, 0, None)


def test_sysctls_without_counts_and_commands(element: Path) -> None:
    assert kernelstate.sysctls(Source(element)) == {
        "net.ipv4": {"ip_forward": "1", "tcp_fastopen_key": "set"},
        "net.ipv4.conf.eth0": {"rp_filter": "2"},
        "net.ipv4.route": {},
        "net.netfilter": {"nf_conntrack_max": "65536"},
    }


@pytest.mark.parametrize(
    ("name", "text", "differs"),
    [
        ("ipv4/ip_forward", "0", True),
        ("ipv4/conf/eth1/rp_filter", "0", True),
        ("netfilter/nf_conntrack_count", "18", False),
        ("ipv4/route/flush", "1", False),
        ("ipv4/tcp_fastopen_key", "44-55-66-77", False),
    ],
)
def test_what_of_the_sysctls_makes_a_difference(
    element: Path, name: str, text: str, *, differs: bool
) -> None:
    before = kernelstate.sysctls(Source(element))
    write(element, f"proc/sys/net/{name}", text + "\n")
    assert (kernelstate.sysctls(Source(element)) != before) == differs


def test_no_secret_is_told(element: Path) -> None:
    assert "00-11-22-33" not in str(kernelstate.sysctls(Source(element)))
    assert "65536" in str(kernelstate.sysctls(Source(element)))


# --- mounts, and this machine -------------------------------------------------------------------


def test_only_the_mounts_that_go_along() -> None:
    found = kernelstate.carried_mounts(Source(points=["/proc", "/nosuch"]))
    assert found == {"/proc": {"dev": Path("/proc").stat().st_dev, "fstype": "proc"}}
    assert kernelstate.carried_mounts(Source()) == {}


@pytest.mark.parametrize(
    ("text", "want"), [("7\n", 7), ("", None), ("-1\n", None), ("0x7\n", None), (None, None)]
)
def test_numbers(tmp_path: Path, text: str | None, want: int | None) -> None:
    if text is not None:
        write(tmp_path, "file", text)
    assert kernelstate.number(tmp_path / "file") == want


def test_this_machine_twice() -> None:
    """Only what no other program here changes meanwhile."""
    assert kernelstate.boot_id(Source())["kernel"]
    devices, settings = (
        [read(Source())[name] for _ in range(2)]
        for read, name in (
            (kernelstate.network_devices, "lo"),
            (kernelstate.sysctls, "net.ipv4.conf.lo"),
        )
    )
    assert devices[0] == devices[1] and devices[0]["ifindex"] == 1
    assert settings[0] == settings[1] and "forwarding" in settings[0]
