"""mountinfo as the kernel writes it, see proc_pid_mountinfo(5)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from issu_systemd import mounts
from issu_systemd.mounts import Mount, parse

DATA = Path(__file__).parent / "data"
SAMPLES = ["mountinfo-debian12.txt", "mountinfo-debian13.txt"]  # PID 1's, in systemd-nspawn


def sample(name: str) -> list[Mount]:
    return parse((DATA / name).read_text())


@pytest.mark.parametrize("name", SAMPLES)
def test_a_container(name: str) -> None:
    found = sample(name)
    by_point = {mount.point: mount for mount in found}
    assert len(found) == len((DATA / name).read_text().splitlines())
    assert by_point["/"]._replace(id=0, parent=0) == Mount(
        dev=os.makedev(7, 5),
        root="/",
        point="/",
        options=frozenset({"rw", "relatime"}),
        fstype="ext4",
        source="/dev/loop5",
        read_only=False,
        shared=True,
    )
    for api in ("/proc", "/sys", "/dev", "/run"):
        assert by_point[api].dev != by_point["/"].dev
        assert by_point[api].source == by_point[api].fstype
    assert by_point["/sys"].read_only
    assert by_point["/proc/sys"].root == "/sys"
    assert by_point["/sys/fs/cgroup"].fstype == "cgroup2"


@pytest.mark.parametrize("name", SAMPLES)
def test_the_topmost_mount_is_the_last(name: str) -> None:
    """nspawn mounts boot_id twice; the second one hides the first."""
    both = [m for m in sample(name) if m.point == "/proc/sys/kernel/random/boot_id"]
    assert [m.read_only for m in both] == [True, False]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (r"/a\040b", "/a b"),
        (r"/a\011b", "/a\tb"),
        (r"/a\012b", "/a\nb"),
        (r"/a\134b", "/a\\b"),
        (r"/a\134040b", r"/a\040b"),
        (r"/a\043b", "/a#b"),
        (r"/\040-\040tmpfs", "/ - tmpfs"),
        ("/ä", "/ä"),
    ],
    ids=["space", "tab", "newline", "backslash", "backslash-digits", "hash", "mark", "utf-8"],
)
def test_escapes(written: str, meant: str) -> None:
    [mount] = parse(f"36 35 98:0 {written} {written} rw - ext3 {written} rw")
    assert (mount.root, mount.point, mount.source) == (meant, meant, meant)


@pytest.mark.parametrize(
    ("line", "read_only"),
    [
        ("36 35 8:1 / /x rw - ext4 /dev/sda1 rw", False),
        ("36 35 8:1 / /x ro - ext4 /dev/sda1 rw", True),  # a read-only bind of a writable one
        ("36 35 8:1 / /x rw - ext4 /dev/sda1 ro", True),  # after an error
        ("36 35 8:1 / /x rw,noatime - ext4 /dev/sda1 rw,errors=remount-ro", False),
    ],
)
def test_read_only(line: str, read_only: bool) -> None:
    assert parse(line)[0].read_only is read_only


def test_optional_fields_and_an_empty_source() -> None:
    [shared] = parse("36 35 0:60 / /x rw shared:1 master:2 propagate_from:3 - tmpfs  rw")
    [plain] = parse("36 35 0:60 / /x rw - tmpfs  rw")
    assert shared.shared
    assert shared._replace(shared=False) == plain
    assert plain.source == ""


def test_a_device_number_is_st_dev() -> None:
    """The kernel's major:minor and Python's st_dev meet in one number, however large the minor."""
    assert parse("1 1 259:1048575 / / rw - ext4 /dev/x rw")[0].dev == os.makedev(259, 1048575)
    here = mounts.mounts()
    proc = [m for m in here if m.point == "/proc"][-1]
    assert proc.dev == Path("/proc").stat().st_dev


def test_nothing_is_mounted_in_an_empty_file() -> None:
    assert parse("") == []


@pytest.fixture
def nested(monkeypatch: pytest.MonkeyPatch) -> None:
    points = ["/", "/mnt", "/mnt/var", "/mnt/var/log", "/mnt2", "/mnt"]
    text = "".join(f"{n} 1 0:{n} / {point} rw - x x rw\n" for n, point in enumerate(points, 1))
    monkeypatch.setattr(mounts, "mounts", lambda: parse(text))


@pytest.mark.usefixtures("nested")
def test_below_gives_the_deepest_first_and_nothing_beside() -> None:
    found = [(m.dev, m.point) for m in mounts.below("/mnt")]
    assert found == [(6, "/mnt"), (4, "/mnt/var/log"), (3, "/mnt/var"), (2, "/mnt")]


@pytest.mark.usefixtures("nested")
def test_mount_at() -> None:
    found = mounts.mount_at("/mnt")
    assert found is not None
    assert found.dev == 6
    assert mounts.mount_at("/mnt/va") is None


def test_mounts_of_a_process_that_is_gone() -> None:
    with pytest.raises(FileNotFoundError):
        mounts.mounts("4194305")  # beyond the largest pid there can be
