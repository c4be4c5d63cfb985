"""Block devices. The only importer of pyudev."""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

import pyudev

from .errors import Refused
from .run import run


class Device(NamedTuple):
    """A block device; `dev` is its device number, `fstype` "" without a file system."""

    node: str
    dev: int
    fstype: str
    read_only: bool


def candidates(name: str) -> list[str]:
    """The paths that an instance name of issu@.service may mean.

    `issu@/dev/sdb2` reaches us as /dev/sdb2, the output of `systemd-escape --path` without
    its first slash.
    """
    return [name] if name.startswith("/") else [f"/{name}", f"/dev/{name}"]


def resolve(name: str) -> Device:
    """The one block device that `name` means; raises Refused saying why there is none."""
    path, number = find(name)
    return describe(os.path.realpath(path), number)


def find(name: str) -> tuple[str, int]:
    """The path and the number of the block device that `name` means; raises Refused."""
    escaped = "systemctl start \"$(systemd-escape --template=issu@.service --path DEVICE)\""
    for path in candidates(name):
        try:
            status = os.stat(path)  # noqa: PTH116
        except OSError:
            continue
        if not stat.S_ISBLK(status.st_mode):
            raise Refused(f"{path} is not a block device", hint="name a disk or a partition")
        return path, status.st_rdev
    raise Refused(
        f"{candidates(name)[0]}: no such device",
        hint=f"lsblk lists them; a name with a dash needs: {escaped}",
    )


def describe(node: str, number: int) -> Device:
    """What udev, and where it has no database blkid(8), know of a block device."""
    try:
        found = pyudev.Devices.from_device_number(pyudev.Context(), "block", number)
    except pyudev.DeviceNotFoundError:
        raise Refused(f"{node} is not known to the kernel", hint="lsblk lists what is") from None
    fstype = found.properties.get("ID_FS_TYPE", "") or probe(node)
    read_only = found.attributes.get("ro", b"0").strip() == b"1"
    return Device(node, number, fstype, read_only)


def probe(node: str) -> str:
    """The file system type that blkid(8) reads from the device itself, or ""."""
    return run(["blkid", "-p", "-s", "TYPE", "-o", "value", node], check=False).stdout.strip()


def uuid_of(number: int) -> str:
    """The UUID of the file system on a block device as udev knows it, or ""."""
    try:
        found = pyudev.Devices.from_device_number(pyudev.Context(), "block", number)
    except (pyudev.DeviceNotFoundError, ValueError):
        return ""
    return str(found.properties.get("ID_FS_UUID", ""))


def node_of(number: int) -> str | None:
    """The device node of a device number, or None for a file system without a device."""
    try:
        found = pyudev.Devices.from_device_number(pyudev.Context(), "block", number)
    except (pyudev.DeviceNotFoundError, ValueError):
        return None
    return str(found.device_node) if found.device_node else None
