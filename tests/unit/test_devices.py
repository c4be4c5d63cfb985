"""Which block device an instance name means."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from issu_systemd import devices
from issu_systemd.devices import candidates
from issu_systemd.errors import Refused


@pytest.mark.parametrize(
    ("name", "paths"),
    [
        ("/dev/sdb2", ["/dev/sdb2"]),  # systemctl start issu@/dev/sdb2
        ("dev/sdb2", ["/dev/sdb2", "/dev/dev/sdb2"]),  # systemd-escape --path /dev/sdb2
        ("sdb2", ["/sdb2", "/dev/sdb2"]),
        ("dev/disk/by-uuid/1-2", ["/dev/disk/by-uuid/1-2", "/dev/dev/disk/by-uuid/1-2"]),
    ],
)
def test_candidates(name: str, paths: list[str]) -> None:
    assert candidates(name) == paths


def test_no_such_device_says_how_to_name_one() -> None:
    with pytest.raises(Refused, match="/dev/nosuch: no such device") as caught:
        devices.resolve("dev/nosuch")
    assert "systemd-escape" in caught.value.hint


@pytest.mark.parametrize("kind", ["file", "directory", "character-device"])
def test_what_is_no_block_device(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    if kind == "file":
        path.touch()
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to("/dev/null")
    with pytest.raises(Refused, match=f"{path} is not a block device"):
        devices.resolve(str(path))


def test_a_number_that_is_no_block_device() -> None:
    assert devices.node_of(Path("/proc").stat().st_dev) is None
    assert devices.node_of(os.makedev(4095, 7)) is None


def test_a_device_the_kernel_does_not_know() -> None:
    with pytest.raises(Refused, match="/dev/x is not known to the kernel"):
        devices.describe("/dev/x", os.makedev(4095, 7))
