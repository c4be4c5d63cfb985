"""Inhibitors are held by a descriptor and by nothing else, whoever holds it and whoever looks."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from issu_systemd import inhibit, record
from issu_systemd.errors import InvalidArgument, IssuError
from issu_systemd.inhibit import Inhibitor

BACKUP = Inhibitor("backup", "the nightly one runs", 1000, 7)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(record, "DIRECTORY", tmp_path)
    return tmp_path / "inhibit"


def take(told: Inhibitor = BACKUP) -> int:
    return inhibit.take(told.who, told.why, told.uid, told.pid)


def test_nobody_ever_took_one(place: Path) -> None:
    assert inhibit.held() == []
    assert not place.exists()


def test_it_is_held_until_the_descriptor_is_closed(place: Path) -> None:
    fd = take()
    assert inhibit.held() == [BACKUP] == inhibit.held()
    os.close(fd)
    assert inhibit.held() == []
    assert list(place.iterdir()) == []


def test_every_copy_counts() -> None:
    fd = take()
    copy = os.dup(fd)
    os.close(fd)
    assert inhibit.held() == [BACKUP]
    os.close(copy)
    assert inhibit.held() == []


def test_a_holder_that_is_killed_lets_go() -> None:
    fd = take()
    holder = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[fd],
    )  # fmt: skip
    with holder:
        assert holder.stdout
        holder.stdout.readline()
        os.close(fd)
        assert inhibit.held() == [BACKUP]
        holder.kill()
    assert inhibit.held() == []


def test_what_the_holder_writes_does_not_matter(place: Path) -> None:
    fd = take()
    with pytest.raises(BrokenPipeError):
        os.write(fd, b"x")  # nobody reads it
    assert inhibit.held() == [BACKUP]
    with (place / "1.ref").open("rb", buffering=0):  # but while somebody looks it is kept
        os.write(fd, b"x" * 1000)
        assert inhibit.held() == [BACKUP]
        os.write(fd, b"x" * 1000)
        os.close(fd)
        assert inhibit.held() == []


def test_the_descriptor_is_not_inherited_and_only_root_gets_another(place: Path) -> None:
    fd = take()
    assert not os.get_inheritable(fd)
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert stat.S_IMODE((place / "1.ref").stat().st_mode) == 0o600
    os.close(fd)


def test_many_at_once_get_one_each() -> None:
    told = [Inhibitor(f"who {n}", "why", n, n) for n in range(40)]
    with ThreadPoolExecutor(8) as pool:
        fds = list(pool.map(take, told))
    assert sorted(inhibit.held(), key=lambda one: one.uid) == told
    for fd in fds[::2]:
        os.close(fd)
    assert sorted(inhibit.held(), key=lambda one: one.uid) == told[1::2]
    for fd in fds[1::2]:
        os.close(fd)


def test_there_is_an_end_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inhibit, "MOST", 2)
    fds = [take(), take()]
    with pytest.raises(IssuError, match="2 inhibitors"):
        take()
    os.close(fds[0])
    fds[0] = take()  # what is released makes room
    for fd in fds:
        os.close(fd)


def test_one_that_died_before_it_was_told_is_none(place: Path) -> None:
    place.mkdir(mode=0o700)
    os.mkfifo(place / "1.ref")
    assert inhibit.held() == []
    assert list(place.iterdir()) == []


def test_one_whose_words_are_lost_still_counts(place: Path) -> None:
    fd = take()
    (place / "1").write_text("{")
    assert [one.who for one in inhibit.held()] == ["somebody"]
    os.close(fd)
    assert inhibit.held() == []


def test_words_are_bounded() -> None:
    for who, why in (("", "why"), ("who", ""), ("x" * 257, "why"), ("who", "a\nb")):
        with pytest.raises(InvalidArgument):
            inhibit.take(who, why, 0, 1)
    assert inhibit.held() == []


def test_a_disk_that_is_full_leaves_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(record, "write_atomically", full)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(OSError, match="No space"):
        take()
    assert list(place.iterdir()) == []
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_what_is_on_disk_is_json(place: Path) -> None:
    fd = take()
    assert json.loads((place / "1").read_text())["who"] == "backup"
    os.close(fd)
