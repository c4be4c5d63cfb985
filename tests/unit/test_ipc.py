"""System V objects: what /proc/sysvipc tells, and what goes and what stays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from issu_systemd.ipc import Object, keys, parse

ROOT = Path(__file__).parents[2]

# Linux 6.18, the columns at their full width.
SHM = (
    "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid"
    "      atime      dtime      ctime                   rss                  swap\n"
    "1229341185         12   600                  4096   812   901      1     0     0     0     0"
    " 1785000000          0 1785000000                  4096                     0\n"
    " -559038737         13  1666               1048576    77     0      0   107   115   107   115"
    "          0          0 1785000001                     0                     0\n"
)
SEM = (
    "       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n"
    "         0          3   600          4     0     0     0     0          0 1785000000\n"
)
MSG = (
    "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid"
    "      stime      rtime      ctime\n"
    "        16          0   644           5          1   812     0     0     0     0     0"
    " 1785000000          0 1785000000\n"
)


def test_parse_shared_memory() -> None:
    """A key is unsigned; the kernel prints it signed."""
    assert parse("shm", SHM) == [
        Object("shm", 0x49464201, 12, (812, 901), 0, attached=1),
        Object("shm", 0xDEADBEEF, 13, (77, 0), 0),
    ]


def test_parse_semaphores_and_queues() -> None:
    assert parse("sem", SEM) == [Object("sem", 0, 3, (), 4)]
    assert parse("msg", MSG) == [Object("msg", 16, 0, (812, 0), 0)]


@pytest.mark.parametrize(("kind", "text"), [("shm", SHM), ("sem", SEM), ("msg", MSG)])
def test_parse_without_objects(kind: str, text: str) -> None:
    assert parse(kind, text.splitlines()[0] + "\n") == []


@pytest.mark.parametrize("kind", ["shm", "sem", "msg"])
def test_this_kernel_has_the_columns(kind: str) -> None:
    text = (Path("/proc/sysvipc") / kind).read_text()
    assert isinstance(parse(kind, text), list)
    wanted = {"shm": {"cpid", "lpid", "shmid"}, "msg": {"lspid", "lrpid"}, "sem": {"nsems"}}
    assert wanted[kind] <= set(text.splitlines()[0].split())


@pytest.mark.parametrize(
    ("name", "pair"),
    [
        ("shm:0x49464201", ("shm", 0x49464201)),
        ("shm:1229341185", ("shm", 1229341185)),
        ("sem:0XFF", ("sem", 255)),
        ("msg:0", ("msg", 0)),
        ("shm:0xdeadbeef", ("shm", 0xDEADBEEF)),
    ],
)
def test_keys(name: str, pair: tuple[str, int]) -> None:
    assert keys([name]) == {pair}


def test_no_keys() -> None:
    assert keys([]) == set()


# --- real objects, in an IPC and PID namespace that end with the test ---------------------------

MAKE = """
import ctypes, json, os, sys
from issu_systemd import ipc
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p

def there():
    return sorted(
        (kind, o.key) for kind in ("shm", "sem", "msg")
        for o in ipc.parse(kind, open(f"/proc/sysvipc/{kind}").read())
    )

def make(base):
    # one of each kind, every one used, so that the kernel knows who used it
    shm = libc.shmget(base, 4096, 0o1600)
    at = libc.shmat(shm, None, 0)
    ctypes.memmove(at, b"content", 7)
    sem = libc.semget(base, 2, 0o1600)
    assert libc.semctl(sem, 1, 16, 1) == 0
    msg = libc.msgget(base, 0o1600)
    assert libc.msgsnd(msg, ctypes.create_string_buffer(b"\\1" + bytes(7) + b"x"), 1, 0) == 0

def gone(base):
    pid = os.fork()
    if pid == 0:
        make(base)
        os._exit(0)
    os.waitpid(pid, 0)
"""


def in_namespace(script: str) -> object:
    """What the script prints as JSON, run with IPC objects and processes of its own."""
    if os.geteuid() != 0:
        pytest.skip("needs root: unshare(2) of the IPC and PID namespaces")
    argv = ["unshare", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"]
    done = subprocess.run(
        [*argv, sys.executable, "-c", MAKE + script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def kinds(*bases: int) -> list[list[object]]:
    return sorted([kind, base] for base in bases for kind in ("shm", "sem", "msg"))


def test_objects_of_dead_processes_go_and_those_of_living_ones_stay() -> None:
    found = in_namespace("""
gone(1)
make(2)
before = there()
removed = ipc.release([])
print(json.dumps([before, sorted((o.kind, o.key) for o in removed), there()]))
""")
    assert found == [kinds(1, 2), kinds(1), kinds(2)]


def test_what_is_to_be_kept_stays_with_its_content() -> None:
    """The negative control is in the same run: a second release without the keep-list."""
    found = in_namespace("""
gone(0x49464201)
gone(7)
ipc.release(["shm:0x49464201"])
left = there()
at = libc.shmat(libc.shmget(0x49464201, 0, 0), None, 0)
content = ctypes.string_at(at, 7).decode()
libc.shmdt.argtypes = [ctypes.c_void_p]
libc.shmdt(at)
ipc.release(["sem:0x49464201", "shm:7"])
print(json.dumps([left, content, there()]))
""")
    assert found == [[["shm", 0x49464201]], "content", [["shm", 0x49464201]]]


def test_without_a_keep_list_nothing_of_the_dead_is_left() -> None:
    found = in_namespace("""
gone(0x49464201)
before = len(there())
ipc.release([])
ipc.release([])
print(json.dumps([before, there()]))
""")
    assert found == [3, []]


def test_the_last_user_counts_too() -> None:
    """Made by a process that is gone, used by one that lives: it stays."""
    found = in_namespace("""
gone(5)
at = libc.shmat(libc.shmget(5, 0, 0), None, 0)
assert libc.semctl(libc.semget(5, 0, 0), 0, 16, 1) == 0
ipc.release([])
print(json.dumps(there()))
""")
    assert found == [["sem", 5], ["shm", 5]]


def test_an_object_without_a_key() -> None:
    found = in_namespace("""
pid = os.fork()
if pid == 0:
    libc.shmget(0, 4096, 0o1600)
    os._exit(0)
os.waitpid(pid, 0)
before = there()
ipc.release([])
print(json.dumps([before, there()]))
""")
    assert found == [[["shm", 0]], []]
