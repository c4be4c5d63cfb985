"""What lies below a root, what a superblock says, and whether there is room."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from issu_systemd import storage
from issu_systemd.evidence import Layer
from issu_systemd.mounts import Mount


@pytest.fixture
def sys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sysfs: 8:1 is a plain partition, 253:1 an LV on LUKS on MD on two disks' partitions."""
    block = tmp_path / "dev/block"
    block.mkdir(parents=True)
    monkeypatch.setattr(storage, "BLOCK", block)
    devices = tmp_path / "devices"
    for name, files in {
        "sda": {}, "sda/sda1": {"partition": "1"}, "sdb/sdb1": {"partition": "1"},
        "nbd0": {}, "session1/sdc": {},
        "md0": {"md/metadata_version": "1.2"}, "md1": {"md/metadata_version": "external:imsm"},
        "dm-0": {"dm/uuid": "CRYPT-LUKS2-00-disk", "dm/name": "disk"},
        "dm-1": {"dm/uuid": "LVM-abc", "dm/name": "vg-root"},
        "dm-2": {"dm/uuid": "mpath-1", "dm/name": "mpatha"},
        "dm-3": {"dm/uuid": "", "dm/name": "x"},
    }.items():  # fmt: skip
        (devices / name / "slaves").mkdir(parents=True)
        for file, text in files.items():
            (devices / name / file).parent.mkdir(exist_ok=True)
            (devices / name / file).write_text(f"{text}\n")
    for upper, lower in (("dm-1", "dm-0"), ("dm-0", "md0"), ("md0", "sda/sda1"),
                         ("md0", "sdb/sdb1")):  # fmt: skip
        (devices / upper / "slaves" / Path(lower).name).symlink_to(devices / lower)
    for number, name in (
        ("8:1", "sda/sda1"), ("253:1", "dm-1"), ("9:1", "md1"), ("43:0", "nbd0"),
        ("8:32", "session1/sdc"), ("253:2", "dm-2"), ("253:3", "dm-3"),
    ):  # fmt: skip
        (block / number).symlink_to(devices / name)
    return devices


@pytest.mark.parametrize(
    ("number", "found"),
    [
        ((8, 1), []),
        ((253, 1), [("LVM", "vg-root"), ("LUKS", "disk"), ("MD", "md0")]),
        ((9, 1), [("MD with mdmon", "md1")]),
        ((43, 0), [("network", "nbd0")]),
        ((8, 32), [("network", "sdc")]),
        ((253, 2), [("multipath", "mpatha")]),
        ((253, 3), [("device mapper", "x")]),
        ((1, 1), []),
    ],
)
def test_layers(sys: Path, number: tuple[int, int], found: list[tuple[str, str]]) -> None:
    expected = tuple(Layer("root", *row) for row in found)
    assert storage.layers("root", os.makedev(*number)) == expected


def test_a_circle_of_layers_ends(sys: Path) -> None:
    (sys / "dm-0/slaves/dm-1").symlink_to(sys / "dm-1")
    assert len(storage.layers("root", os.makedev(253, 1))) == 3


@pytest.mark.parametrize(("fstype", "found"), [("nfs4", True), ("9p", True), ("ext4", False)])
def test_a_root_that_another_machine_serves(fstype: str, *, found: bool) -> None:
    mount = Mount(1, "/", "/", frozenset(), fstype, "server:/root", read_only=False)
    layer = Layer("root", "network", "server:/root")
    assert storage.network_root(mount) == ((layer,) if found else ())
    assert storage.network_root(None) == ()


def test_crypttab(tmp_path: Path) -> None:
    assert storage.crypttab(tmp_path) == ()
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/crypttab").write_text("# name device\n\ndisk UUID=1 none luks\nb /dev/b\n")
    assert storage.crypttab(tmp_path) == ("disk", "b")


# --- the superblock -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ext4(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("ext4") / "image"
    path.write_bytes(bytes(1 << 20))
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-b", "1024", path], check=True)
    return path.read_bytes()[:4096]


@pytest.mark.parametrize(
    ("at", "value", "says"),
    [
        (58, 1, ""),
        (58, 3, "has errors"),
        (58, 2, "has errors"),
        (58, 0, "was not unmounted"),
        (101, 0x10, "marked read-only"),
        (56, 0, ""),  # no magic: none of ours
    ],
    ids=["clean", "errors", "errors-only", "not-clean", "read-only", "no-ext"],
)
def test_file_system_state(tmp_path: Path, ext4: bytes, at: int, value: int, says: str) -> None:
    data = bytearray(ext4)
    data[at + 1024] = value
    path = tmp_path / "image"
    path.write_bytes(data)
    found = storage.file_system_state(str(path), "ext4")
    assert says in found
    assert bool(found) == bool(says)
    assert storage.file_system_state(str(path), "xfs") == ""


def test_a_short_device_has_no_state(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(bytes(1050))
    assert storage.file_system_state(str(tmp_path / "image"), "ext4") == ""


# --- room ---------------------------------------------------------------------------------------


def test_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(bytes(5000))
    monkeypatch.setattr(storage, "JOURNALS", (f"{tmp_path}/j*",))

    def has(free: int, inodes: int, *, journal: bool = False) -> str:
        there = os.statvfs_result((4096, 4096, 0, 0, free, 1, 0, inodes, 0, 255))
        monkeypatch.setattr(storage.os, "statvfs", lambda _: there)
        return storage.no_room(tmp_path, (f"{tmp_path}/a",), journal=journal, copies=False)

    blocks = storage.MARGIN_BYTES // 4096 + 2  # the file takes two
    assert has(blocks, 257) == ""
    assert "17 MiB are needed" in has(blocks - 1, 257)
    assert "256 inodes free, 257 are needed" in has(blocks, 256)
    (tmp_path / "j1").write_bytes(bytes(4096))
    assert has(blocks, 257) == ""
    assert "MiB are needed" in has(blocks, 258, journal=True)
    os.utime(tmp_path / "j1", (0, 0))  # of an earlier boot
    assert has(blocks, 258, journal=True) == ""
