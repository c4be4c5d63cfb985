"""The processes that are left: which they are, whose, and how they end."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from issu_systemd import reap

NGINX = """9:name=systemd:/
1:cpu:/
0::/system.slice/nginx.service
"""  # of systemd-nspawn on a host with both hierarchies


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A fake /proc; the function adds a process to it."""
    monkeypatch.setattr(reap, "PROC", tmp_path)
    (tmp_path / "sysvipc").mkdir()

    def add(pid: int, *, comm: str = "sh", flags: int = 0x400100, cgroup: str = "0::/\n") -> None:
        base = tmp_path / str(pid)
        base.mkdir()
        base.joinpath("comm").write_text(f"{comm}\n")
        base.joinpath("stat").write_text(f"{pid} ({comm}) S 1 {pid} {pid} 0 -1 {flags} 1 2 3\n")
        base.joinpath("cgroup").write_text(cgroup)

    return add


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        (NGINX, "nginx.service"),
        ("0::/init.scope\n", "init.scope"),
        ("0::/\n", ""),
        ("", ""),
        ("0::/system.slice/ssh.service/child\n", "ssh.service"),
        (r"0::/system.slice/system-ifup.slice/ifup@eth0.service" + "\n", "ifup@eth0.service"),
        (r"0::/system.slice/dev-disk\x2da.mount" + "\n", r"dev-disk\x2da.mount"),
        ("0::/user.slice/user-0.slice/session-1.scope\n", "session-1.scope"),
        (
            "0::/user.slice/user-0.slice/user@0.service/app.slice/dbus.service\n",
            "user@0.service",
        ),
        ("0::/system.slice\n", ""),
        ("4:memory:/system.slice/other.service\n0::/system.slice/own.service\n", "own.service"),
    ],
    ids=[
        "nspawn",
        "init",
        "root",
        "empty",
        "delegated",
        "instance",
        "escaped",
        "session",
        "user-manager",
        "slice",
        "both-hierarchies",
    ],
)
def test_unit_of(proc: Callable[..., None], cgroup: str, unit: str) -> None:
    proc(7, cgroup=cgroup)
    assert reap.unit_of(7) == unit


@pytest.mark.parametrize(
    ("comm", "flags", "kernel"),
    [
        ("kthreadd", 0x208040, True),
        ("kworker/0:0", 0x4208060, True),
        ("sh", 0x400100, False),
        ("a) S 1 1 1 0 -1 2097152", 0x400100, False),  # a name made to look like one
        ("a b) (c", 0x208040, True),
    ],
)
def test_is_kernel_thread(
    proc: Callable[..., None], comm: str, flags: int, *, kernel: bool
) -> None:
    proc(7, comm=comm, flags=flags)
    assert reap.is_kernel_thread(7) is kernel


@pytest.mark.usefixtures("proc")
def test_a_process_that_is_gone() -> None:
    assert reap.unit_of(7) == ""
    assert reap.name_of(7) == ""
    assert reap.is_kernel_thread(7)


def test_who_is_to_be_ended(proc: Callable[..., None]) -> None:
    for pid in (1, 7, os.getpid()):
        proc(pid)
    proc(2, comm="kthreadd", flags=0x208040)
    assert reap.processes() == [7]


# --- ending real ones ---------------------------------------------------------------------------

OBEYS = ["sleep", "300"]
IGNORES = ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 300; done"]


class Children:
    """Processes of this test's own, and never any other's, for `reap` to end."""

    def __init__(self) -> None:
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, argv: list[str], *, ready: bool = False) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True)
        self.started.append(child)
        if ready:
            assert child.stdout
            assert child.stdout.readline() == b"ready\n"
        return child

    def end(self) -> None:
        for child in self.started:
            if child.poll() is None:  # not waited for, so the number is still its own
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            if child.stdout:
                child.stdout.close()


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> Iterator[Children]:
    """What `processes` lists of this machine, cut down to the children of the test."""
    mine = Children()
    everyone = reap.processes

    def own() -> list[int]:
        pids = {child.pid for child in mine.started}
        assert not pids & {0, 1, os.getpid(), os.getppid()}
        return [pid for pid in everyone() if pid in pids]

    monkeypatch.setattr(reap, "processes", own)
    yield mine
    mine.end()


def spare_none(unit: str) -> bool:
    return False


def test_nothing_to_end(children: Children) -> None:
    assert reap.reap(spare_none, grace_sec=1) == []
    assert children.started == []


def test_what_obeys_is_not_killed_hard(children: Children) -> None:
    """Nobody has waited for it yet when `reap` looks again: it is a zombie, and no offender."""
    child = children.start(OBEYS)
    hard = reap.reap(spare_none, grace_sec=10)
    assert child.wait() == -signal.SIGTERM
    assert hard == []


def test_what_ignores_sigterm_is_killed_and_named(children: Children) -> None:
    child = children.start(IGNORES, ready=True)
    hard = reap.reap(spare_none, grace_sec=0.2)
    assert child.wait() == -signal.SIGKILL
    assert len(hard) == 1
    assert hard[0].startswith(f"sh[{child.pid}] of ")


def test_only_what_ignores_sigterm_is_named(children: Children) -> None:
    good, bad = children.start(OBEYS), children.start(IGNORES, ready=True)
    hard = reap.reap(spare_none, grace_sec=0.2)
    assert (good.wait(), bad.wait()) == (-signal.SIGTERM, -signal.SIGKILL)
    assert [name.partition(" of ")[0] for name in hard] == [f"sh[{bad.pid}]"]


def test_what_is_spared_lives(children: Children, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, other = children.start(OBEYS), children.start(OBEYS)
    units = {kept.pid: "kept.service"}
    monkeypatch.setattr(reap, "unit_of", lambda pid: units.get(pid, "other.service"))
    asked: list[str] = []

    def spare(unit: str) -> bool:
        asked.append(unit)
        return unit == "kept.service"

    reap.reap(spare, grace_sec=10)
    assert other.wait() == -signal.SIGTERM
    assert kept.poll() is None
    assert {"kept.service", "other.service"} == set(asked)


def test_a_signal_to_one_that_is_gone(children: Children) -> None:
    child = children.start(["true"])
    child.wait()
    before = len(list(Path("/proc/self/fd").iterdir()))
    reap.signal_and_wait([child.pid], signal.SIGTERM, 10)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_no_descriptor_is_left_open(children: Children) -> None:
    good, bad = children.start(OBEYS), children.start(IGNORES, ready=True)
    before = len(list(Path("/proc/self/fd").iterdir()))
    reap.signal_and_wait([good.pid, bad.pid], signal.SIGTERM, 0.1)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert bad.poll() is None
