"""The running kernel's modules in another root: all of them, in that root, or none."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from issu_systemd import carry, facts, modules, stage
from issu_systemd.errors import IssuError
from issu_systemd.evidence import Facts, Tree
from issu_systemd.settings import Settings

RUNNING = "6.1.0-40-amd64"
FILES = ("modules.dep", "kernel/drivers/net/veth.ko")


class Statvfs(NamedTuple):
    """What obstacle() looks at; 4096 bytes a block."""

    f_bavail: int = 1000
    f_favail: int = 1000
    f_files: int = 2000
    f_frsize: int = 4096


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The modules of the running kernel, two files and a link that leads nowhere."""
    place = tmp_path / "running" / modules.PLACE / RUNNING
    for name in FILES:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(name)
    (place / "modules.dep").chmod(0o640)
    os.utime(place / "modules.dep", (1, 1))
    (place / "build").symlink_to(f"/usr/src/linux-headers-{RUNNING}")
    monkeypatch.setattr(modules, "release", lambda: RUNNING)
    monkeypatch.setattr(modules, "ours", lambda: place)
    real = modules.resolve  # the running root is another one here
    top = tmp_path / "running"
    monkeypatch.setattr(
        modules, "resolve", lambda root, path: real(top if root == Path("/") else root, path)
    )
    return place


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A target that has /usr/lib and no modules."""
    (tmp_path / "root/usr/lib").mkdir(parents=True)
    return tmp_path / "root"


def top(root: Path) -> Path:
    return root / modules.PLACE


def names(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir())


def add_kernel(root: Path, release: str, index: str = modules.INDEX) -> Path:
    place = top(root) / release
    place.mkdir(parents=True)
    (place / index).touch()
    return place


# --- what is there ------------------------------------------------------------------------------


@pytest.mark.usefixtures("ours")
def test_are_in(root: Path) -> None:
    assert modules.are_in(Path("/"))
    assert not modules.are_in(root)
    add_kernel(root, "6.12.1")
    assert not modules.are_in(root)
    assert modules.are_in(root, "6.12.1")
    add_kernel(root, RUNNING)
    assert modules.are_in(root)


def test_modules_elsewhere_are_not_in_the_tree(root: Path, tmp_path: Path) -> None:
    """An absolute link means in the tree what it means in a chroot."""
    add_kernel(tmp_path / "other", RUNNING)
    top(root).symlink_to(top(tmp_path / "other"))
    assert not modules.are_in(root, RUNNING)
    assert modules.kernels(root) == ()


def test_kernels_have_an_index_and_no_dot(root: Path) -> None:
    assert modules.kernels(root) == ()
    for release in ("6.12.1", "6.1.0", f".{RUNNING}.issu"):
        add_kernel(root, release)
    add_kernel(root, "5.10", index="build")
    assert modules.kernels(root) == ("6.1.0", "6.12.1")


@pytest.mark.parametrize(
    ("have", "chosen", "lacks", "copy"),
    [
        ((), "require", True, True),
        ((), "bind", True, True),
        ((RUNNING,), "bind", False, True),
        (("6.12.1",), "require", True, True),
    ],
    ids=str,
)
@pytest.mark.usefixtures("ours")
def test_look(root: Path, have: tuple[str, ...], chosen: str, *, lacks: bool, copy: bool) -> None:
    (root / "usr/lib/os-release").write_text("NAME=x\n")
    for release in have:
        add_kernel(root, release)
    tree = facts.look(Facts(modules=chosen), root).tree
    assert tree
    assert (tree.lacks_modules, tree.no_copy is None, tree.kernels) == (lacks, copy, have)


def test_a_root_without_modules_asks_for_none(root: Path, ours: Path) -> None:
    """A container has none of its host's kernel."""
    shutil.rmtree(ours)
    (root / "usr/lib/os-release").write_text("NAME=x\n")
    found = facts.look(Facts(modules="bind"), root).tree
    assert isinstance(found, Tree)
    assert (found.lacks_modules, found.no_copy) == (False, None)
    assert not modules.copy(root)
    assert not top(root).exists()


# --- the copy -----------------------------------------------------------------------------------


def test_all_is_copied_as_it_is(root: Path, ours: Path) -> None:
    assert modules.copy(root)
    place = top(root) / RUNNING
    assert {str(p.relative_to(place)) for p in place.rglob("*") if p.is_file()} == {*FILES}
    for name in FILES:
        was, now = (ours / name).stat(), (place / name).stat()
        assert (place / name).read_text() == name
        assert (was.st_mode, was.st_uid, was.st_mtime) == (now.st_mode, now.st_uid, now.st_mtime)
    assert (place / "build").readlink() == (ours / "build").readlink()
    assert names(top(root)) == [RUNNING]
    assert modules.are_in(root)


@pytest.mark.usefixtures("ours")
def test_what_is_there_stays(root: Path) -> None:
    place = add_kernel(root, RUNNING)
    other = add_kernel(root, "6.12.1")
    assert not modules.copy(root)
    assert names(place) == [modules.INDEX]
    assert other.exists()


@pytest.mark.usefixtures("ours")
def test_a_link_is_followed_in_the_tree_only(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (root / "usr/lib").rmdir()
    (root / "usr/lib").symlink_to(outside)
    assert modules.copy(root)
    assert list(outside.iterdir()) == []
    assert (root / str(outside).lstrip("/") / "modules" / RUNNING / modules.INDEX).exists()


@pytest.mark.usefixtures("ours")
@pytest.mark.parametrize("kind", ["directory", "link", "file"])
def test_what_is_left_of_one_that_was_killed(root: Path, tmp_path: Path, kind: str) -> None:
    draft = modules.draft_in(top(root))
    draft.parent.mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").touch()
    if kind == "directory":
        (draft / "kernel").mkdir(parents=True)
        (draft / "kernel/half.ko").touch()
    elif kind == "link":
        draft.symlink_to(outside)
    else:
        draft.touch()
    assert modules.copy(root)
    assert names(top(root)) == [RUNNING]
    assert not (top(root) / RUNNING / "kernel/half.ko").exists()
    assert names(outside) == ["file"]


@pytest.mark.usefixtures("ours")
@pytest.mark.parametrize("step", ["copy", "sync", "rename"])
def test_an_error_leaves_nothing(root: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    copied = carry.copy

    def half(source: Path, place: Path) -> None:
        copied(source, place)
        full()

    where = {"copy": (carry, "copy"), "sync": (os, "sync"), "rename": (Path, "rename")}[step]
    monkeypatch.setattr(*where, half if step == "copy" else full)
    with pytest.raises(IssuError, match=r"modules cannot be copied.*No space left") as caught:
        modules.copy(root)
    assert "make room" in caught.value.hint
    assert names(top(root)) == []


# --- what stands against it ---------------------------------------------------------------------


@pytest.mark.usefixtures("ours")
@pytest.mark.parametrize(
    ("free", "says"),
    [
        (Statvfs(), ""),
        (Statvfs(f_bavail=6), ""),
        (Statvfs(f_bavail=5), "MiB"),
        (Statvfs(f_bavail=0), "0 MiB are free"),
        (Statvfs(f_favail=7), ""),
        (Statvfs(f_favail=6), "6 inodes"),
        (Statvfs(f_favail=0, f_files=0), ""),  # btrfs
    ],
    ids=str,
)
def test_room_is_looked_for_first(
    root: Path, monkeypatch: pytest.MonkeyPatch, free: Statvfs, says: str
) -> None:
    monkeypatch.setattr(modules, "size_of", lambda path, block: measured(path))
    monkeypatch.setattr(os, "statvfs", lambda path: free)

    def measured(path: Path) -> tuple[int, int]:
        return (0, 0) if path.name.startswith(".") else (6 * 4096, 7)

    found = modules.obstacle(root)
    assert (found is None) == (not says)
    if found:
        assert says in found[0] and found[1] == modules.MAKE_ROOM
        with pytest.raises(IssuError, match=says):
            modules.copy(root)
        assert not top(root).exists()
    else:
        assert modules.copy(root)


def test_what_was_left_counts_as_room(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modules, "size_of", lambda path, block: (6 * 4096, 7))
    monkeypatch.setattr(os, "statvfs", lambda path: Statvfs(f_bavail=0))
    assert modules.obstacle(root) is None


def test_size_is_in_whole_blocks(ours: Path) -> None:
    """Four directories, two files and a link, none of them empty."""
    need, files = modules.size_of(ours, 1 << 20)
    assert (need, files) == (7 << 20, 7)
    assert modules.size_of(ours / "no", 4096) == (0, 0)


@pytest.mark.usefixtures("ours")
@pytest.mark.parametrize("kind", ["directory", "dangling-link"])
def test_a_name_that_is_taken(root: Path, kind: str) -> None:
    """As the kernel's headers leave it; whoever put it there knows whether it may go."""
    place = top(root) / RUNNING
    if kind == "directory":
        add_kernel(root, RUNNING, index="build")
    else:
        place.parent.mkdir()
        place.symlink_to("nowhere")
    with pytest.raises(IssuError, match=f"/usr/lib/modules/{RUNNING} is there") as caught:
        modules.copy(root)
    assert f"/usr/lib/modules/{RUNNING}" in caught.value.hint
    assert str(root) not in str(caught.value)
    assert names(top(root)) == [RUNNING]


def test_a_loop_of_links(root: Path, ours: Path) -> None:
    assert ours
    top(root).symlink_to("modules")
    with pytest.raises(IssuError, match="cannot be copied"):
        modules.copy(root)


# --- as a part of stage -------------------------------------------------------------------------


@pytest.mark.parametrize(("chosen", "copies"), [("require", 0), ("bind", 1)])
def test_stage_copies_if_it_may(
    root: Path, monkeypatch: pytest.MonkeyPatch, chosen: str, copies: int
) -> None:
    asked: list[Path] = []
    monkeypatch.setattr(modules, "copy", asked.append)
    monkeypatch.setattr("issu_systemd.mounts.remount", lambda *_: None)
    monkeypatch.setattr("issu_systemd.firstboot.work", lambda _: None)
    monkeypatch.setattr("issu_systemd.warm.warm", lambda _: None)
    monkeypatch.setattr(carry, "history", lambda _: None)
    stage.stage(root, Settings(carry_files=(), carry_journal=False, modules=chosen))
    assert asked == [root] * copies
