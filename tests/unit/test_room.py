"""Room on /run: what is kept, to whom it is given, and that it is kept again."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from issu_systemd import record, room
from tests.rig import sh


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(record, "DIRECTORY", tmp_path)
    return tmp_path


@pytest.fixture
def small(here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file system in memory that holds little more than what is kept."""
    if os.geteuid() != 0:
        pytest.skip("needs root: a file system of a size of its own")
    place = here / "run"
    place.mkdir()
    sh.run(["mount", "-t", "tmpfs", "-o", f"size={room.SIZE + (1 << 20)}", "tmpfs", place])
    monkeypatch.setattr(record, "DIRECTORY", place)
    yield place
    sh.run(["umount", place])


def free(place: Path) -> int:
    there = os.statvfs(place)
    return there.f_bavail * there.f_frsize


def fill(place: Path) -> None:
    """Take all that is left."""
    with pytest.raises(OSError, match="No space left"), (place / "fill").open("wb", 0) as file:
        while True:
            file.write(bytes(4096))


def test_what_is_kept_is_taken_from_others(small: Path) -> None:
    room.reserve()
    assert room.kept() == room.SIZE
    assert free(small) <= 1 << 20


def test_a_write_on_a_full_run_has_room_and_pid1_has_its_own_after_it(small: Path) -> None:
    room.reserve()
    fill(small)
    with pytest.raises(OSError, match="No space left"):
        record.replace(small / "control", "x" * 100_000)
    record.write_atomically(small / "file", "x" * 100_000)
    assert (small / "file").stat().st_size == 100_000
    with room.lent():
        assert free(small) >= room.PID1_BYTES
    assert free(small) < room.PID1_BYTES
    assert room.kept() == room.STEPS[0]


def test_without_what_is_kept_there_is_none(small: Path) -> None:
    fill(small)
    with pytest.raises(OSError, match="No space left"):
        record.write_atomically(small / "file", "x" * 100_000)
    with room.lent():
        assert free(small) < room.PID1_BYTES
    assert room.kept() == 0


def test_what_does_not_fit_is_not_kept_in_part(small: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        room.reserve(2 * room.SIZE)
    assert not room.place().exists()


def test_who_takes_what_was_lent_has_it(small: Path) -> None:
    room.reserve()
    with room.lent():
        fill(small)
    assert room.kept() == 0
    assert not room.place().exists()


def test_it_is_kept_again_though_the_body_fails(here: Path) -> None:
    room.reserve()
    with pytest.raises(ValueError, match="no"), room.lent():
        assert room.kept() == room.OURS_BYTES
        raise ValueError("no")
    assert room.kept() == room.SIZE


def test_it_never_grows_by_shrinking(here: Path) -> None:
    room.shrink(room.OURS_BYTES)
    assert not room.place().exists()
    room.reserve(4096)
    room.shrink(room.OURS_BYTES)
    assert room.kept() == 4096


def test_one_write_after_the_other_gets_it_until_there_is_none(here: Path) -> None:
    room.reserve()
    left = []
    while room.give():
        left.append(room.kept())
    assert left == [*room.STEPS]
    assert not room.give()


def test_what_is_given_for_a_file_goes_first(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room.reserve()
    spare = here / "given"
    spare.touch()
    written = record.replace

    def full(path: Path, text: str) -> None:
        if spare.exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        written(path, text)

    monkeypatch.setattr(record, "replace", full)
    record.write_atomically(here / "file", "new", spare=spare)
    assert (here / "file").read_text() == "new"
    assert room.kept() == room.SIZE


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_where_that_does_not_help_it_is_told(
    here: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    room.reserve()

    def fails(path: Path, text: str) -> None:
        raise OSError(code, "no")

    monkeypatch.setattr(record, "replace", fails)
    with pytest.raises(OSError, match="no"):
        record.write_atomically(here / "file", "new")
    assert room.place().exists() == (code == errno.EROFS)
