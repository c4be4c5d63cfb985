"""The change of the root, with real mounts, in a child that has them for itself."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from issu_systemd import mounts, pivot
from issu_systemd.errors import IssuError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: pivot_root(2)")
POINTS = ("/proc", "/dev", "/run")
PLACE = Path("/issu-test-root")  # directly below /, as the stage is


def apart(work: Callable[[], None]) -> None:
    """Do `work` in a child with a shared root of its own; fails if it does."""
    child = os.fork()
    if child == 0:
        try:
            PLACE.mkdir()
            mounts.apart()
            mounts.change(None, Path("/"), mounts.SHARED | mounts.RECURSIVE)
            work()
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    ended = os.waitpid(child, 0)[1]
    if PLACE.is_dir():
        PLACE.rmdir()
    assert ended == 0, "see what the child printed"


def new_root() -> Path:
    """A root to go to, mounted at PLACE."""
    place = PLACE
    mounts.mount("tmpfs", place, fstype="tmpfs")
    (place / "new").touch()
    return place


def shared() -> bool:
    top = mounts.mount_at("/")
    return top is not None and top.shared


def test_there_and_back() -> None:
    def work() -> None:
        place, old = new_root(), os.stat("/").st_dev  # noqa: PTH116
        os.chdir("/")
        assert pivot.prepare(place, POINTS)  # it made the directory for the old root
        took = pivot.swap(place)
        assert 0 <= took < 10_000_000
        assert Path("/new").exists()
        assert PLACE.stat().st_dev == old
        assert shared()
        mounts.strip(place)
        assert [m.point for m in mounts.below(str(PLACE))] == [str(PLACE)]
        assert Path("/proc/self/stat").exists()
        assert Path("/run").is_dir()
        assert not pivot.prepare(place, POINTS)
        pivot.swap(place)
        mounts.strip(place)
        assert os.stat("/").st_dev == old  # noqa: PTH116
        assert (PLACE / "new").exists()
        assert shared()

    apart(work)


def test_at_any_point_there_is_one_whole_root() -> None:
    """Whoever is killed between two steps leaves a / with all that must be in it."""

    def whole() -> bool:
        points = {m.point for m in mounts.mounts()}
        return {"/proc", "/dev"} <= points and Path("/proc/self/stat").exists()

    def work() -> None:
        place = new_root()
        for step in (
            lambda: pivot.prepare(place, POINTS),
            lambda: pivot.swap(place),
            lambda: mounts.strip(place),
            lambda: pivot.drop(place, made=True),
        ):
            assert whole()
            step()
        assert whole()
        assert not PLACE.exists()
        assert Path("/new").exists()

    apart(work)


def test_a_pivot_that_fails_names_step_and_errno_and_changes_nothing() -> None:
    def work() -> None:
        place = PLACE  # nothing is mounted there: not a root to go to
        mounts.mount("tmpfs", place, fstype="tmpfs")
        pivot.prepare(place, POINTS)
        (place / PLACE.name).rmdir()
        before = [m.point for m in mounts.mounts()]
        with pytest.raises(IssuError, match=rf"pivot_root\({PLACE}, {PLACE}{PLACE}\): .*ENOENT"):
            pivot.swap(place)
        assert [m.point for m in mounts.mounts()] == before
        assert shared()

    apart(work)


def test_a_link_where_a_mount_must_be() -> None:
    def work() -> None:
        place = new_root()
        (place / "run").symlink_to("/proc")
        with pytest.raises(IssuError, match="/run is a link"):
            pivot.prepare(place, POINTS)

    apart(work)


def test_what_is_stripped_stays_where_it_came_from() -> None:
    def work() -> None:
        place = new_root()
        mounts.mount("tmpfs", Path("/srv"), fstype="tmpfs")
        mounts.change(None, Path("/srv"), mounts.SHARED)
        Path("/srv/inner").mkdir()
        mounts.mount("tmpfs", Path("/srv/inner"), fstype="tmpfs")
        (place / "srv").mkdir()
        mounts.bind_peer("/srv", place / "srv")
        assert mounts.mount_at(f"{PLACE}/srv/inner")
        mounts.unmount_all(place)
        assert mounts.mount_at(str(PLACE)) is None
        assert mounts.mount_at("/srv/inner")

    apart(work)


def test_mounts_that_hide_others_are_stripped() -> None:
    def work() -> None:
        place = new_root()
        inner = place / "a"
        inner.mkdir()
        mounts.mount("tmpfs", inner, fstype="tmpfs")
        (inner / "b").mkdir()
        mounts.mount("tmpfs", inner / "b", fstype="tmpfs")
        mounts.mount("tmpfs", inner, fstype="tmpfs")  # hides the other two
        mounts.strip(place)
        assert [m.point for m in mounts.below(str(PLACE))] == [str(PLACE)]

    apart(work)


def test_tops() -> None:
    assert mounts.tops(["/a/b", "/a", "/ab", "/c/d"]) == ["/a", "/ab", "/c/d"]
