"""What is read ahead: out of `systemd --test` and ldd of Debian 12 and 13."""

from __future__ import annotations

from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from issu_systemd import newroot, warm

DATA = Path(__file__).parent / "data"
NGINX = ["/sbin/start-stop-daemon", "/usr/sbin/nginx"]


def answer(monkeypatch: pytest.MonkeyPatch, text: str) -> list[list[str]]:
    """Let every program of the tree print `text`; the list fills with what is run."""
    asked: list[list[str]] = []

    def run_inside(root: Path, argv: list[str], **how: Any) -> CompletedProcess[str]:
        asked.append([str(word) for word in argv])
        return CompletedProcess(argv, 0, text, "")

    monkeypatch.setattr(warm, "run_inside", run_inside)
    monkeypatch.setattr(newroot, "run_inside", run_inside)
    warm.forget()
    return asked


def lay(top: Path, files: dict[str, int]) -> None:
    """Files of these sizes, in bytes, below `top`."""
    for name, size in files.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)


@pytest.mark.parametrize("version", ["252", "257"])
def test_the_libraries_of_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    (tmp_path / "usr/sbin").mkdir(parents=True)
    (tmp_path / "usr/sbin/nginx").touch()
    asked = answer(monkeypatch, (DATA / f"ldd-{version}.txt").read_text())
    found = warm.libraries(tmp_path, frozenset({"/usr/sbin/nginx", "/usr/sbin/nosuch"}))
    assert asked == [["ldd", "/usr/sbin/nginx"]]
    assert "/lib64/ld-linux-x86-64.so.2" in found
    assert "/lib/x86_64-linux-gnu/libc.so.6" in found
    assert found == sorted(set(found))
    assert [path for path in found if ".so" not in path] == []


def test_a_file_is_read_once_and_a_link_is_not(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 3_000_000)
    (tmp_path / "link").symlink_to(file)
    (tmp_path / "dangling").symlink_to("nowhere")
    assert warm.read(file) == 3_000_000
    for name in ("link", "dangling", "nosuch", "."):
        assert warm.read(tmp_path / name) == 0


def test_warm_reads_programs_libraries_and_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        "usr/sbin/nginx": 1000,
        "lib/x86_64-linux-gnu/libcrypt.so.1": 200,
        "usr/lib/systemd/system/nginx.service": 30,
        "etc/hostname": 4,
    }
    lay(tmp_path, files)
    (tmp_path / "usr/share").mkdir()
    (tmp_path / "usr/share/unread").write_bytes(b"x" * 50_000)
    plan, ldd = ((DATA / name).read_text() for name in ("systemd-test-257.txt", "ldd-257.txt"))
    answer(monkeypatch, plan + ldd)
    assert warm.warm(tmp_path) == 1234


def test_python_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the services are: what arrives is written in it. Its sources are not read."""
    files = {
        "usr/lib/python3.13/__pycache__/x.pyc": 100,
        "usr/lib/python3/dist-packages/issu_systemd/__pycache__/arrive.pyc": 30,
        "usr/lib/python3.13/lib-dynload/mmap.cpython-313-x86_64-linux-gnu.so": 7,
        "usr/lib/python3.13/x.py": 50_000,
    }
    lay(tmp_path, files)
    answer(monkeypatch, "")
    assert warm.warm(tmp_path) == 137
