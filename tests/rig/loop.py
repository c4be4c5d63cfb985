"""Loop devices and short mounts on the host, as context managers that leave nothing behind."""

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import sh, wait
from .traces import PREFIX

GPT_SIGNATURE = (512, b"EFI PART")  # offset in bytes, content


def has_partitions(image: Path) -> bool:
    """Does the image begin with a GPT?"""
    offset, signature = GPT_SIGNATURE
    with image.open("rb") as file:
        file.seek(offset)
        return file.read(len(signature)) == signature


def attached(image: Path) -> list[Path]:
    """Every loop device that has `image` behind it, in the hands of anybody."""
    found = sh.output(["losetup", "--noheadings", "--output=NAME", "--associated", image])
    return [Path(line.strip()) for line in found.splitlines()]


@contextmanager
def attach(image: Path) -> Iterator[Path]:
    """Device node of a loop device over `image`, with its partitions if it has a GPT.

    The device goes by itself when nobody has it open or mounted any longer (autoclear), this
    process being one who has: so it goes even if this process is killed. Leaving waits until
    the kernel has let the image go.
    """
    scan = ["--partscan"] if has_partitions(image) else []
    device = Path(sh.output(["losetup", "--find", "--show", *scan, str(image)]))
    try:
        descriptor = os.open(device, os.O_RDONLY)  # not O_EXCL: takes nothing from others
    finally:
        sh.run(["losetup", "--detach", device])
    nodes: list[Path] = []
    try:
        if scan:
            _add_partitions(device)
            nodes = partitions(device)
        yield device
    finally:
        for node in nodes:  # before the device is another process's
            node.unlink(missing_ok=True)
        os.close(descriptor)
        wait.until(lambda: device not in attached(image), 20, f"{device} lets {image} go")


def partitions(device: Path) -> list[Path]:
    """Nodes of the partitions of a loop device, by number."""
    found = Path("/sys/class/block", device.name).glob(f"{device.name}p*")
    return sorted((Path("/dev") / p.name for p in found), key=lambda p: int(p.name.split("p")[-1]))


@contextmanager
def mounted(image: Path) -> Iterator[Path]:
    """The file system of `image` mounted below a temporary directory.

    Removing the mount point afterwards also ends copies of the mount that mount namespaces
    made meanwhile have (umount(2) does not: it only sees the caller's).
    """
    top = Path(tempfile.mkdtemp(prefix=f"{PREFIX}-{os.getpid()}-mount-"))
    try:
        with attach(image) as device:
            sh.run(["mount", device, top])
            try:
                yield top
            finally:
                sh.run(["umount", top])
                top.rmdir()
    finally:
        if top.exists():
            top.rmdir()


def _add_partitions(device: Path) -> None:
    """Have partitions and nodes for them even if the kernel knows no GPT or nobody runs udev."""
    if not partitions(device):
        sh.run(["partx", "--add", device])
    for node in partitions(device):
        if not node.exists():
            major, minor = Path("/sys/class/block", node.name, "dev").read_text().split(":")
            os.mknod(node, 0o600 | stat.S_IFBLK, os.makedev(int(major), int(minor)))
