"""Kernel state before and after: read below a root made for it, compared as values."""

from __future__ import annotations

import json
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from issu_systemd import continuity, kernelstate, netstate
from issu_systemd.errors import IssuError
from issu_systemd.kernelstate import Source

KINDS = ["boot_id", "module", "driver", "network-device", "statistics", "sysctl", "mount"]
UNREAD = dict.fromkeys(
    ("ifindex", "address", "mtu", "master", "operstate", "carrier_changes")
)  # a device of which nothing can be read
BOOT = "5b0f4c1e-7d3a-4a52-9e43-0c1d2f6b8a97"


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def element(tmp_path: Path) -> Path:
    """A root with one boot, two modules and two network devices."""
    write(tmp_path, "proc/sys/kernel/random/boot_id", BOOT + "\n")
    modules = "virtio_net 61440 0 - Live 0x0000000000000000\next4 999424 1 - Live 0x0\n"
    write(tmp_path, "proc/modules", modules)
    for name in ("virtio_net", "ext4"):
        (tmp_path / "sys/module" / name).mkdir(parents=True)
    write(tmp_path, "sys/class/net/eth0/ifindex", "2\n")
    write(tmp_path, "sys/class/net/eth0/address", "52:54:00:12:34:56\n")
    write(tmp_path, "sys/class/net/eth0/carrier_changes", "1\n")
    write(tmp_path, "sys/class/net/lo/ifindex", "1\n")
    write(tmp_path, "sys/class/net/bonding_masters", "\n")
    return tmp_path


def changed(before: dict[str, Any], after: dict[str, Any]) -> list[dict[str, Any]]:
    differences: list[dict[str, Any]] = continuity.diff(before, after)["differences"]
    return differences


def test_snapshot(element: Path) -> None:
    read = continuity.snapshot(Source(element))
    assert read["boot_id"] == BOOT
    assert list(read["module"]) == ["ext4", "virtio_net"]
    assert read["network-device"] == {
        "eth0": UNREAD | {"ifindex": 2, "address": "52:54:00:12:34:56", "carrier_changes": 1},
        "lo": UNREAD | {"ifindex": 1},
    }


def test_snapshot_survives_the_record(element: Path) -> None:
    read = continuity.snapshot(Source(element))
    assert json.loads(json.dumps(read)) == read


def test_snapshot_of_nothing(tmp_path: Path) -> None:
    assert continuity.snapshot(Source(tmp_path)) == {
        "boot_id": None,
        "driver": {},
        "sysctl": {},
        "mount": {},
    }


def test_snapshot_of_this_machine_stays_the_same() -> None:
    read = continuity.snapshot()
    assert read["boot_id"] and "lo" in read["network-device"]
    assert continuity.diff(read, read)["differences"] == []


def test_nothing_lost(element: Path) -> None:
    read = continuity.snapshot(Source(element))
    assert continuity.diff(read, continuity.snapshot(Source(element))) == {
        "boot_id": {"before": BOOT, "after": BOOT},
        "read": KINDS,
        "differences": [],
    }


def test_another_kernel(element: Path) -> None:
    before = continuity.snapshot(Source(element))
    write(element, "proc/sys/kernel/random/boot_id", "other\n")
    after = continuity.snapshot(Source(element))
    want = {"what": "boot_id", "name": "boot_id", "before": BOOT, "after": "other"}
    assert changed(before, after) == [want]


def test_module_unloaded_and_another_loaded(element: Path) -> None:
    before = continuity.snapshot(Source(element))
    write(element, "proc/modules", "virtio_net 61440 0 - Live 0x0\nxfs 1 0 - Live 0x0\n")
    lost, gained = changed(before, continuity.snapshot(Source(element)))
    assert (lost["what"], lost["name"], lost["after"]) == ("module", "ext4", None)
    assert (gained["what"], gained["name"], gained["before"]) == ("module", "xfs", None)
    assert lost["before"] is not None and gained["after"] is not None


def test_module_loaded_again(element: Path) -> None:
    before = continuity.snapshot(Source(element))
    (element / "sys/module/ext4").rename(element / "sys/module/old")
    (element / "sys/module/ext4").mkdir()
    again = changed(before, continuity.snapshot(Source(element)))
    assert [(item["what"], item["name"]) for item in again] == [("module", "ext4")]


def test_carrier_lost_shows_what_differs_and_no_more(element: Path) -> None:
    before = continuity.snapshot(Source(element))
    write(element, "sys/class/net/eth0/carrier_changes", "3\n")
    want = {
        "what": "network-device",
        "name": "eth0",
        "before": {"carrier_changes": 1},
        "after": {"carrier_changes": 3},
    }
    assert changed(before, continuity.snapshot(Source(element))) == [want]


def test_other_versions_snapshots_are_compared_as_far_as_both_go() -> None:
    old = {"boot_id": "a", "network-device": {"eth0": {"ifindex": 2}}, "gone": {"x": 1}}
    new = {"boot_id": "a", "network-device": {"eth0": {"ifindex": 2, "mtu": 1500}}, "route": {}}
    done = continuity.diff(old, new)
    assert (done["read"], done["differences"]) == (["boot_id", "network-device"], [])


@pytest.mark.parametrize(
    ("before", "after"), [({}, {}), ({}, {"module": {}}), ({"module": {}}, {})]
)
def test_nothing_read_is_nothing_compared(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert continuity.diff(before, after)["read"] == []


def test_one_more_kind_is_one_function(element: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    routes = iter([{"default": "eth0"}, {}])
    monkeypatch.setitem(kernelstate.READERS, "route", lambda _: next(routes))
    before, after = continuity.snapshot(Source(element)), continuity.snapshot(Source(element))
    want = {"what": "route", "name": "default", "before": "eth0", "after": None}
    assert changed(before, after) == [want]


# --- what is read, and what counts --------------------------------------------------------------


def test_programs_are_asked_about_this_machine_only(
    element: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `ip` tells has nothing to do with another root's /proc and /sys."""
    monkeypatch.setattr(
        continuity, "READERS", {"boot_id": kernelstate.boot_id, "asked": lambda _: {}}
    )
    assert "asked" in continuity.snapshot(Source())
    assert "asked" not in continuity.snapshot(Source(element))


@pytest.mark.parametrize(
    "error", [OSError(), IssuError("ip is not installed"), ValueError(), KeyError("ifname")]
)
def test_what_cannot_be_read_is_left_out_and_the_rest_is_not(
    element: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(_: Source) -> dict[str, Any]:
        raise error

    monkeypatch.setitem(kernelstate.READERS, "sysctl", fails)
    read = continuity.snapshot(Source(element))
    assert "sysctl" not in read
    assert read["boot_id"] == BOOT and read["module"]


@pytest.mark.parametrize(
    "printed", ["", "[]", "[1]", "{}", '{"nftables": null}', "[[]]", "no JSON"]
)
def test_a_program_that_prints_something_else_is_no_error(
    monkeypatch: pytest.MonkeyPatch, printed: str
) -> None:
    """It must not end an upgrade; what it would have told is not compared."""
    monkeypatch.setattr(netstate, "run", lambda argv: CompletedProcess(argv, 0, printed, ""))
    monkeypatch.setattr(netstate, "_has_nftables", lambda _: True)
    read = continuity.snapshot()
    assert read["boot_id"]
    assert "nftables" not in read


COUNTERS = {"eth0": {"rx_packets": 10, "rx_errors": 0, "tx_bytes": None}}


@pytest.mark.parametrize(
    ("after", "before_value", "after_value"),
    [
        ({"eth0": {"rx_packets": 9, "rx_errors": 1, "tx_bytes": 7}}, 10, 9),
        ({"eth0": {"rx_packets": None, "rx_errors": 0, "tx_bytes": None}}, 10, None),
    ],
)
def test_a_counter_that_shrinks_is_a_difference(
    after: dict[str, Any], before_value: int, after_value: int | None
) -> None:
    want = {
        "what": "statistics",
        "name": "eth0",
        "before": {"rx_packets": before_value},
        "after": {"rx_packets": after_value},
    }
    assert changed({"statistics": COUNTERS}, {"statistics": after}) == [want]


def test_a_counter_that_grows_is_none() -> None:
    after = {"eth0": {"rx_packets": 11, "rx_errors": 1, "tx_bytes": 5}}
    assert changed({"statistics": COUNTERS}, {"statistics": after}) == []
    other = {"network-device": COUNTERS}, {"network-device": after}
    assert [item["name"] for item in changed(*other)] == ["eth0"]  # no other kind may grow


def test_the_counters_of_a_device_that_is_gone() -> None:
    [lost] = changed({"statistics": COUNTERS}, {"statistics": {}})
    assert (lost["before"], lost["after"]) == (COUNTERS["eth0"], None)
