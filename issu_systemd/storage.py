"""What lies below a root, what its superblock says, and whether it has room for what is carried.

The layers are those that sysfs tells: Documentation/ABI/testing/sysfs-block, sysfs-block-dm.
"""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from . import modules
from .evidence import Layer
from .mounts import Mount
from .tree import text

BLOCK = Path("/sys/dev/block")
MAX_DEPTH = 8
JOURNALS = ("/var/log/journal/*/*.journal", "/run/log/journal/*/*.journal")
MARGIN_BYTES = 16 << 20  # caches that the first start makes: ld.so.cache, hwdb, the journal catalog
MARGIN_FILES = 256
NETWORK = ("nbd", "drbd", "rbd")
SERVED = ("nfs", "cifs", "ceph", "9p", "fuse.")  # file systems of another machine, or of a program
# superblock of ext2, ext3 and ext4: Documentation/filesystems/ext4/super.rst
EXT_SUPER, EXT_MAGIC = 1024, 0xEF53
VALID_FS, ERROR_FS = 1, 2
RO_COMPAT_READONLY = 0x1000


def layers(of: str, number: int) -> tuple[Layer, ...]:
    """What lies below the block device with this number; `of` says whose it is."""
    try:
        top = (BLOCK / f"{os.major(number)}:{os.minor(number)}").resolve(strict=True)
    except OSError:
        return ()
    return tuple(dict.fromkeys(Layer(of, *found) for found in below(top, MAX_DEPTH)))


def network_root(mount: Mount | None) -> tuple[Layer, ...]:
    """The layer of a running root that another machine serves."""
    served = mount is not None and mount.fstype.startswith(SERVED)
    return (Layer("root", "network", mount.source),) if mount and served else ()


def below(node: Path, depth: int) -> Iterator[tuple[str, str]]:
    """Kind and name of each layer from a device's directory in sysfs downwards."""
    if depth == 0:
        return
    if (node / "partition").exists():
        node = node.parent
    if kind := kind_of(node):
        yield kind, word(node / "dm/name") or node.name
    with suppress(OSError):
        for slave in sorted((node / "slaves").iterdir()):
            yield from below(slave.resolve(), depth - 1)


def kind_of(node: Path) -> str:
    """What makes a block device, "" for a plain one."""
    uuid = word(node / "dm/uuid")
    for prefix, kind in (("CRYPT-", "LUKS"), ("LVM-", "LVM"), ("mpath-", "multipath")):
        if uuid.startswith(prefix):
            return kind
    if (node / "dm").is_dir():
        return "device mapper"
    if (node / "md").is_dir():
        outside = word(node / "md/metadata_version").startswith("external")
        return "MD with mdmon" if outside else "MD"
    return "network" if node.name.startswith(NETWORK) or "/session" in str(node) else ""


def word(path: Path) -> str:
    """A line of sysfs, "" if it is not there."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def crypttab(root: Path) -> tuple[str, ...]:
    """The names in the tree's crypttab(5)."""
    lines = (line.split() for line in text(root, "etc/crypttab").splitlines())
    return tuple(words[0] for words in lines if words and not words[0].startswith("#"))


def file_system_state(node: str, fstype: str) -> str:
    """What the superblock says is wrong, "" if nothing or if it is none of ext's.

    Raises OSError. Others say it when they are mounted.
    """
    if not fstype.startswith("ext"):
        return ""
    with open(node, "rb") as file:  # noqa: PTH123
        file.seek(EXT_SUPER)
        data = file.read(104)
    if len(data) < 104 or int.from_bytes(data[56:58], "little") != EXT_MAGIC:
        return ""
    state = int.from_bytes(data[58:60], "little")
    if state & ERROR_FS:
        return "has errors, its superblock says"
    if not state & VALID_FS:
        return "was not unmounted, and it has no journal to mend it"
    if int.from_bytes(data[100:104], "little") & RO_COMPAT_READONLY:
        return "is marked read-only (feature readonly of tune2fs(8))"
    return ""


def no_room(root: Path, patterns: tuple[str, ...], *, journal: bool, copies: bool) -> str:
    """Why what is carried does not fit into the tree at `root`; "" if it does. Raises OSError."""
    there = os.statvfs(root)
    tops = [Path(path) for pattern in patterns for path in glob.glob(pattern)]  # noqa: PTH207
    tops += journals() if journal else []
    tops += [modules.ours()] if copies else []
    sizes = [modules.size_of(top, there.f_frsize) for top in tops]
    need = MARGIN_BYTES + sum(size for size, _ in sizes)
    files = MARGIN_FILES + sum(count for _, count in sizes)
    have = there.f_bavail * there.f_frsize
    if have < need:
        return f"has {have >> 20} MiB free, {-(-need >> 20)} MiB are needed for what is carried"
    if there.f_files and there.f_favail < files:
        return f"has {there.f_favail} inodes free, {files} are needed for what is carried"
    return ""


def journals() -> list[Path]:
    """The journal files of this boot, which go along; see carry.journal."""
    boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    found = [Path(path) for pattern in JOURNALS for path in glob.glob(pattern)]  # noqa: PTH207
    return [path for path in found if path.exists() and path.stat().st_mtime >= boot]
