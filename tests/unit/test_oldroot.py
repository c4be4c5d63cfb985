"""Whether the old root is gone, and who holds it: shown on a loop device."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from issu_systemd import oldroot

MIB = 1 << 20


def missing() -> str:
    """What these tests need and this machine does not have."""
    if os.geteuid() != 0:
        return "root"
    tools = [tool for tool in ("losetup", "mke2fs", "unshare", "mount") if not shutil.which(tool)]
    return ", ".join(tools) or ("" if Path("/dev/loop-control").exists() else "/dev/loop-control")


def run(*argv: str | Path) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A loop device with a file system in which `file` lies."""
    if need := missing():
        pytest.skip(f"needs {need}: a loop device is mounted")
    top = tmp_path_factory.mktemp("oldroot")
    (top / "tree").mkdir()
    shutil.copy(shutil.which("sleep") or "/bin/sleep", top / "tree/sleep")
    image = top / "image"
    with image.open("wb") as file:
        file.truncate(4 * MIB)
    run("mke2fs", "-q", "-t", "ext2", "-d", top / "tree", image)
    node = run("losetup", "--find", "--show", image)
    yield node
    run("losetup", "--detach", node)


MOUNT = """
import os, subprocess, sys
device, place = sys.argv[1:]
subprocess.run(["mount", "-o", "ro", device, place], check=True)
dev = os.stat(place).st_dev
"""
HOLD = """
os.chdir(place)
held = open("sleep")
print(os.getpid(), dev, flush=True)
sys.stdin.read()
"""
RUN_FROM_IT = """
child = subprocess.Popen([f"{place}/sleep", "300"])
subprocess.run(["umount", "--lazy", place], check=True)
print(child.pid, dev, flush=True)
sys.stdin.read()
child.kill()
child.wait()
"""


@contextmanager
def holder(script: str, device: str, place: Path) -> Iterator[tuple[int, int]]:
    """Somebody who holds the device where nobody else sees it; the pid and its st_dev."""
    argv = ["unshare", "--mount", sys.executable, "-c", MOUNT + script, device, str(place)]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout
        pid, dev = process.stdout.readline().split()
        yield int(pid), int(dev)


def test_a_device_is_free(device: str) -> None:
    assert oldroot.is_free(device)
    assert oldroot.wait_free(device, wait_sec=0)


def test_a_device_mounted_in_another_namespace_is_not_free(device: str, tmp_path: Path) -> None:
    with holder(HOLD, device, tmp_path):
        assert not oldroot.is_free(device)
        assert not oldroot.wait_free(device, wait_sec=0)
    assert oldroot.wait_free(device)  # the kernel may take a moment


def test_who_has_it_mounted(device: str, tmp_path: Path) -> None:
    with holder(HOLD, device, tmp_path) as (pid, dev):
        assert oldroot.mounted_by(dev) == [pid]
        [sentence] = oldroot.holders(dev)
        name = oldroot.name_of(pid)
    assert sentence == f"{name}[{pid}] (a mount, its directory, an open file)"
    assert oldroot.mounted_by(dev) == []
    assert oldroot.holders(dev) == []


def test_a_program_that_runs_from_it(device: str, tmp_path: Path) -> None:
    """A survivor of the switch: what it runs pins the old root after the unmount."""
    with holder(RUN_FROM_IT, device, tmp_path) as (pid, dev):
        assert oldroot.mounted_by(dev) == []  # no mountinfo tells
        assert not oldroot.is_free(device)
        [sentence] = oldroot.holders(dev)
    assert sentence.startswith(f"sleep[{pid}] (its program")
    assert oldroot.wait_free(device)


def test_a_device_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        oldroot.is_free(str(tmp_path / "nosuch"))


# --- on a fake /proc ----------------------------------------------------------------------------


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(oldroot, "PROC", tmp_path / "proc")
    for name in ("proc/7/fd", "proc/sys", "proc/8"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "proc/7/comm").write_text("frr\n")
    return tmp_path / "proc"


def test_mountinfo_tells(proc: Path) -> None:
    (proc / "7/mountinfo").write_text("22 1 8:17 / /old rw - ext4 /dev/sdb1 rw\n")
    (proc / "8/mountinfo").write_text("22 1 8:170 / /x rw - ext4 /dev/sdl10 rw,8:17\n")
    assert oldroot.mounted_by(os.makedev(8, 17)) == [7]
    assert oldroot.mounted_by(os.makedev(8, 1)) == []


def test_a_sentence_for_each_process_and_each_thing_once(proc: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for n in range(3):
        (proc / f"7/fd/{n}").symlink_to(file)
    (proc / "7/cwd").symlink_to(tmp_path)
    (proc / "7/exe").symlink_to("/proc/version")  # of another file system
    (proc / "8/cwd").symlink_to("nowhere")
    assert oldroot.holders(file.stat().st_dev) == ["frr[7] (its directory, an open file)"]


def test_a_process_without_a_name(proc: Path, tmp_path: Path) -> None:
    (proc / "8/root").symlink_to(tmp_path)
    assert oldroot.holders(tmp_path.stat().st_dev) == ["?[8] (its root)"]
