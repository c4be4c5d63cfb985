"""Paths of another root, held against what a process in that root sees."""

from __future__ import annotations

import errno
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from issu_systemd.tree import resolve, text


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root/usr/lib").mkdir(parents=True)
    (tmp_path / "root/etc").mkdir()
    return tmp_path / "root"


@pytest.mark.parametrize(
    ("path", "leads_to"),
    [
        ("/", ""),
        ("", ""),
        ("/etc", "etc"),
        ("etc//./hostname/", "etc/hostname"),
        ("/etc/../usr", "usr"),
        ("/../../../etc", "etc"),
        ("/nosuch/file", "nosuch/file"),
        ("/absolute/x", "usr/lib/x"),
        ("/relative/x", "usr/lib/x"),
        ("/above/x", "etc/x"),
        ("/twice/x", "usr/lib/x"),
        ("/outside/x", "home/x"),
    ],
)
def test_where_a_path_leads(root: Path, path: str, leads_to: str) -> None:
    for name, link in (
        ("absolute", "/usr/lib"),
        ("relative", "usr/lib"),
        ("above", "../../etc"),
        ("twice", "/absolute"),
        ("outside", "/home"),
    ):
        (root / name).symlink_to(link)
    assert resolve(root, path) == root / leads_to


def test_a_loop_ends(root: Path) -> None:
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("/a")
    with pytest.raises(OSError, match="symbolic links") as caught:
        resolve(root, "/a/x")
    assert caught.value.errno == errno.ELOOP


def test_many_links_are_no_loop(root: Path) -> None:
    for n in range(39):
        (root / f"{n}").symlink_to(f"{n + 1}")
    assert resolve(root, "/0") == root / "39"


IN_THE_ROOT = """
import json, os, sys
paths = json.load(sys.stdin)
os.chroot(sys.argv[1])
os.chdir("/")
print(json.dumps([os.path.realpath(path) for path in paths]))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: chroot(2)")
def test_random_links_lead_where_a_chroot_leads(root: Path) -> None:
    dice = random.Random(20260801)
    places = [f"{a}/{b}" for a in "abc" for b in "def"]
    for place in places:
        (root / place).mkdir(parents=True)

    def some_path(*, up: float) -> str:
        words = dice.choices([*"abcdef", "..", "x"], [1] * 6 + [up, 0.3], k=dice.randint(1, 5))
        return dice.choice(["/", ""]) + "/".join(words)

    for place in places:
        for name in dice.sample("abcdef", 2):
            (root / place / name).symlink_to(some_path(up=2))
    paths = [some_path(up=1) for _ in range(500)]
    argv = [sys.executable, "-c", IN_THE_ROOT, str(root)]
    done = subprocess.run(argv, input=json.dumps(paths), capture_output=True, text=True, check=True)
    compared = 0
    for path, seen in zip(paths, json.loads(done.stdout), strict=True):
        try:
            found = resolve(root, path)
        except OSError as error:
            assert error.errno == errno.ELOOP
            continue
        compared += 1
        assert found == root / seen.lstrip("/"), path
    assert compared > 300


def test_text_of_a_regular_file_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"a\xffb")
    (tmp_path / "link").symlink_to("/file")
    (tmp_path / "out").symlink_to("../outside")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "pipe")  # nobody writes: to read it would wait for good
    assert text(tmp_path, "file") == text(tmp_path, "link") == "a\ufffdb"
    assert text(tmp_path, "file", limit=1) == "a"
    for name in ("out", "loop", "directory", "pipe", "none", "nul\0"):
        assert text(tmp_path, name) == ""
