"""Who else is at work; real processes and locks where that can be, a false /proc where not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from issu_systemd import bystanders, mounts, plan, reap
from issu_systemd.systemd import Job

HOLD = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def locked(root: Path) -> Iterator[int]:
    """Another process holds the lock that apt and dpkg take; its id."""
    argv = [sys.executable, "-c", HOLD, str(root / "var/lib/dpkg/lock-frontend")]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        yield process.pid
        process.kill()


def test_a_package_manager_is_named(root: Path, locked: int) -> None:
    (found,) = bystanders.package_managers(root)
    assert f"[{locked}] holds {root}/var/lib/dpkg/lock-frontend" in found


def test_no_package_manager(root: Path) -> None:
    assert bystanders.package_managers(root) == ()
    for name in bystanders.LOCKS:
        (root / name).touch()
    assert bystanders.package_managers(root) == ()


def test_a_lock_file_that_is_a_pipe_is_not_waited_for(root: Path) -> None:
    os.mkfifo(root / "var/lib/dpkg/lock")
    assert bystanders.package_managers(root) == ()


# --- processes ----------------------------------------------------------------------------------

STAT = "{pid} ({name}) S {parent} 1 1 {tty} 0 0 0 0 0"
ROWS = {
    # pid: name, parent, terminal, cgroup
    11: ("lost", 1, 0, "/"),
    12: ("beside", 1, 0, "/init.scope"),
    13: ("systemd", 1, 0, "/init.scope"),  # PID 1's own child
    14: ("(executor)", 1, 0, "/init.scope"),
    15: ("nginx", 1, 0, "/system.slice/nginx.service"),
    16: ("sh", 1, 0, "/../../outside"),  # of the host
    17: ("sshd", 1, 0, "/user.slice/user-0.slice/session-1.scope"),  # the session's first
    18: ("bash", 17, 34816, "/user.slice/user-0.slice/session-1.scope"),
    19: ("nohup", 1, 0, "/user.slice/user-0.slice/session-1.scope"),
    20: ("login", 1, 1025, "/user.slice/user-0.slice/session-2.scope"),
    21: ("child", 18, 0, "/user.slice/user-0.slice/session-1.scope"),
}


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    top = tmp_path / "proc"
    for pid, (name, parent, tty, group) in ROWS.items():
        (top / str(pid) / "ns").mkdir(parents=True)
        (top / str(pid) / "comm").write_text(f"{name}\n")
        stat = STAT.format(pid=pid, name=name, parent=parent, tty=tty)
        (top / str(pid) / "stat").write_text(stat)
        (top / str(pid) / "cgroup").write_text(f"9:name=systemd:/../x\n4:memory:/x\n0::{group}\n")
    sessions = tmp_path / "sessions"
    sessions.mkdir()
    (sessions / "1").write_text("UID=0\nLEADER=17\n")
    os.mkfifo(sessions / "1.ref")
    monkeypatch.setattr(bystanders, "PROC", top)
    monkeypatch.setattr(bystanders, "SESSIONS", sessions)
    monkeypatch.setattr(reap, "PROC", top)
    return top


def test_strays(proc: Path) -> None:
    assert bystanders.strays() == (
        "lost[11] in /",
        "beside[12] in /init.scope",
        "nohup[19] in /user.slice/user-0.slice/session-1.scope",
    )


def test_only_ten_are_named(proc: Path) -> None:
    for pid in range(100, 130):
        (proc / str(pid)).mkdir()
        for name in ("comm", "stat", "cgroup"):
            (proc / str(pid) / name).write_text((proc / "11" / name).read_text())
    found = bystanders.strays()
    assert len(found) == bystanders.SHOWN + 1
    assert found[-1] == "23 more"


def test_pins(proc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted are processes of kept units, in another namespace, that see the old root."""
    (proc / "1/ns").mkdir(parents=True)
    own = {1: "a", 11: "b", 15: "b", 17: "a", 19: "c"}
    for pid, name in own.items():
        (proc / str(pid) / "ns/mnt").symlink_to(f"mnt:[{name}]")
    session = "session-1.scope"
    steps = [plan.Step(session, plan.KEPT, ""), plan.Step("nginx.service", plan.RESTARTED, "")]
    monkeypatch.setattr(bystanders, "sees", lambda _, dev: dev == 2049)
    assert bystanders.pins(steps, 2049) == (f"nohup[19] of {session}",)
    assert bystanders.pins(steps, 2050) == ()
    kept = [plan.Step("nginx.service", plan.KEPT, "")]
    assert bystanders.pins(kept, 2049) == ("nginx[15] of nginx.service",)


def test_who_sees_a_file_system() -> None:
    dev = Path("/").stat().st_dev
    here = {mount.dev for mount in mounts.mounts()}
    assert bystanders.sees(os.getpid(), next(iter(here)))
    assert not bystanders.sees(os.getpid(), max(here | {dev}) + 1)
    assert not bystanders.sees(0, dev)


# --- the rest -----------------------------------------------------------------------------------


def test_network_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    def at(point: str, fstype: str) -> mounts.Mount:
        return mounts.Mount(4, "net:[1]", point, frozenset(), fstype, "nsfs", read_only=False)

    listed = [at("/run/netns/b", "nsfs"), at("/run/netns/a", "nsfs"), at("/run/netns/a", "nsfs"),
              at("/run/netns/x", "tmpfs"), at("/run/docker/netns/1", "nsfs")]  # fmt: skip
    monkeypatch.setattr(bystanders.mounts, "mounts", lambda _: listed)
    assert bystanders.network_namespaces() == ("a", "b")


@pytest.mark.parametrize(
    ("supplies", "level"),
    [
        ({}, None),
        ({"BAT0": "Battery System Discharging 15"}, 15),
        ({"BAT0": "Battery System Discharging 15", "BAT1": "Battery x Discharging 9"}, 9),
        ({"BAT0": "Battery System Charging 15"}, None),
        ({"mouse": "Battery Device Discharging 3"}, None),
        ({"AC": "Mains x x 0"}, None),
        ({"BAT0": "Battery x Discharging lots"}, None),
    ],
)
def test_battery(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, supplies: dict[str, str], level: int | None
) -> None:
    monkeypatch.setattr(bystanders, "POWER", tmp_path)
    for name, words in supplies.items():
        (tmp_path / name).mkdir()
        for file, word in zip(("type", "scope", "status", "capacity"), words.split(), strict=True):
            (tmp_path / name / file).write_text(f"{word}\n")
    assert bystanders.battery() == level


def test_our_own_jobs_do_not_count() -> None:
    jobs = [Job(1, "issu@-dev-sdb.service", "start", "running"), Job(2, "a.service", "stop", "x"),
            Job(3, "issu-watch.service", "start", "waiting")]  # fmt: skip
    assert bystanders.foreign_jobs(jobs) == (("a.service", "stop"),)
