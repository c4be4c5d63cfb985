"""What is read from the target's tree; nothing in that tree may lead out of it."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import pytest

from issu_systemd import facts
from issu_systemd.elf import elf_machine
from issu_systemd.errors import IssuError
from issu_systemd.evidence import Facts
from issu_systemd.facts import os_release

DEBIAN = """PRETTY_NAME="Debian GNU/Linux 13 (trixie)"
NAME="Debian GNU/Linux"
VERSION_ID="13"
VERSION="13 (trixie)"
# a comment with = in it

ID=debian
"""
NOTHING = {"os": "", "version": ""}
FOUND = {"os": "Debian GNU/Linux 13 (trixie)", "version": "13"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree, and beside it a file that is none of its business."""
    (tmp_path / "host").write_text('PRETTY_NAME="the host\'s"\n')
    for name in ("etc", "usr/lib"):
        (tmp_path / "tree" / name).mkdir(parents=True)
    return tmp_path / "tree"


def write(path: Path, text: str = DEBIAN) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


# --- os-release(5) ------------------------------------------------------------------------------


def test_no_os_release(root: Path) -> None:
    assert os_release(root) == NOTHING


@pytest.mark.parametrize("name", ["etc/os-release", "usr/lib/os-release"])
def test_either_place(root: Path, name: str) -> None:
    write(root / name)
    assert os_release(root) == FOUND


def test_etc_comes_first(root: Path) -> None:
    write(root / "etc/os-release", "PRETTY_NAME=Ours\nVERSION_ID=2\n")
    write(root / "usr/lib/os-release")
    assert os_release(root) == {"os": "Ours", "version": "2"}


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("NAME='Element OS'\nBUILD_ID=2026-08\n", {"os": "Element OS", "version": "2026-08"}),
        ("ID=x\n", {"os": "Linux", "version": ""}),
        ("", {"os": "Linux", "version": ""}),
        ("no pairs in here\n", {"os": "Linux", "version": ""}),
        ("PRETTY_NAME=a=b\n", {"os": "a=b", "version": ""}),
    ],
    ids=["name", "id-only", "empty", "nonsense", "two-signs"],
)
def test_what_it_says(root: Path, text: str, want: dict[str, str]) -> None:
    write(root / "etc/os-release", text)
    assert os_release(root) == want


@pytest.mark.parametrize("link", ["../usr/lib/os-release", "/usr/lib/os-release"])
def test_a_link_is_followed_in_the_tree(root: Path, link: str) -> None:
    write(root / "usr/lib/os-release")
    (root / "etc/os-release").symlink_to(link)
    assert os_release(root) == FOUND


def test_links_that_lead_to_links(root: Path) -> None:
    write(root / "usr/lib/release/debian")
    (root / "usr/lib/os-release").symlink_to("/usr/lib/release/debian")
    (root / "etc/os-release").symlink_to("../usr/lib/os-release")
    assert os_release(root) == FOUND


def test_an_absolute_link_does_not_leave_the_tree(root: Path) -> None:
    (root / "etc/os-release").symlink_to(root.parent / "host")
    assert os_release(root) == NOTHING


def test_dots_do_not_leave_the_tree(root: Path) -> None:
    """In the tree, as in a chroot, the parent of its root is the root itself."""
    (root / "etc/os-release").symlink_to("../../host")
    assert (root / "etc/os-release").read_text()  # the link is not dangling for us
    assert os_release(root) == NOTHING


def test_a_second_link_does_not_leave_the_tree(root: Path) -> None:
    (root / "etc/os-release").symlink_to("../usr/lib/os-release")
    (root / "usr/lib/os-release").symlink_to(root.parent / "host")
    assert os_release(root) == NOTHING


def test_a_linked_directory_does_not_leave_the_tree(root: Path) -> None:
    write(root.parent / "outside/os-release", (root.parent / "host").read_text())
    (root / "etc").rmdir()
    (root / "etc").symlink_to(root.parent / "outside")
    assert os_release(root) == NOTHING


def test_a_loop_of_links_ends(root: Path) -> None:
    (root / "etc/os-release").symlink_to("/usr/lib/os-release")
    (root / "usr/lib/os-release").symlink_to("/etc/os-release")
    assert os_release(root) == NOTHING


def test_a_directory_is_no_os_release(root: Path) -> None:
    (root / "etc/os-release").mkdir()
    write(root / "usr/lib/os-release")
    assert os_release(root) == FOUND


def test_bytes_that_are_no_text_do_not_stop_preflight(root: Path) -> None:
    (root / "etc/os-release").write_bytes(b"PRETTY_NAME=Caf\xe9\nVERSION_ID=1\n")
    found = os_release(root)
    assert found["version"] == "1"
    assert found["os"].startswith("Caf")


# --- the rest of the tree -----------------------------------------------------------------------


def elf(machine: int, *, big: bool = False) -> bytes:
    order = ">" if big else "<"
    ident = b"\x7fELF" + bytes([2, 2 if big else 1, 1]) + bytes(9)
    return ident + struct.pack(f"{order}HH", 3, machine) + bytes(44)


@pytest.mark.parametrize(
    ("content", "machine"),
    [
        (elf(62), 62),  # x86-64
        (elf(183), 183),  # AArch64
        (elf(22, big=True), 22),  # s390x
        (elf(258), 258),  # LoongArch: both bytes count
        (b"#!/bin/sh\nexit 0 # long enough\n", 0),
        (b"", 0),
        (b"\x7fELF", 0),
        (elf(62)[:17], 0),
    ],
    ids=["amd64", "arm64", "s390x", "loong64", "script", "empty", "magic-only", "cut"],
)
def test_elf_machine(tmp_path: Path, content: bytes, machine: int) -> None:
    path = tmp_path / "init"
    path.write_bytes(content)
    assert elf_machine(path) == machine


def test_elf_machine_of_a_real_program() -> None:
    with Path(sys.executable).open("rb") as file:
        head = file.read(20)
    assert elf_machine(Path(sys.executable)) == struct.unpack_from("<H", head, 18)[0] > 0


def test_look_at_an_empty_tree(root: Path) -> None:
    tree = facts.look(Facts(), root).tree
    assert tree is not None
    assert (tree.os, tree.init, tree.issu_says) == ("", "", "")


def test_look_at_a_tree_of_another_architecture(root: Path) -> None:
    """Nothing of it is executed."""
    write(root / "etc/os-release")
    init = root / "usr/lib/systemd/systemd"
    init.parent.mkdir()
    init.write_bytes(elf(183))
    tree = facts.look(Facts(machine=62), root).tree
    assert tree is not None
    assert (tree.init, tree.machine, tree.init_says) == ("/usr/lib/systemd/systemd", 183, "")
    assert not tree.merged_usr


def test_look_finds_merged_usr_and_wrong_settings(root: Path) -> None:
    write(root / "etc/os-release")
    wrong = write(root / "etc/issu/conf.d/1.toml", "[release]\nkep = []\n")
    for name in ("bin", "sbin", "lib"):
        (root / name).symlink_to(f"usr/{name}")
    tree = facts.look(Facts(), root).tree
    assert tree is not None
    assert tree.merged_usr
    assert str(wrong) in tree.settings_error


@pytest.mark.parametrize("says", ["true", "false"])
def test_look_finds_the_trees_own_wish(root: Path, says: str) -> None:
    write(root / "etc/os-release")
    write(root / "etc/issu/conf.d/1.toml", f"[arrive]\nsysctl = {says}\n")
    tree = facts.look(Facts(), root).tree
    assert tree is not None
    assert tree.sysctl is (says == "true")


# --- where the new root is mounted --------------------------------------------------------------


@pytest.fixture
def stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    pair = (tmp_path / "sysroot", tmp_path / "mnt")
    monkeypatch.setattr(facts, "STAGES", pair)
    return pair


def test_the_first_stage_is_made(stages: tuple[Path, Path]) -> None:
    assert facts.stage_directory() == (stages[0], True)
    assert stages[0].is_dir()


def test_an_empty_stage_is_taken_and_not_ours(stages: tuple[Path, Path]) -> None:
    stages[0].mkdir()
    assert facts.stage_directory() == (stages[0], False)


def test_a_stage_in_use_is_left_alone(stages: tuple[Path, Path]) -> None:
    write(stages[0] / "file")
    assert facts.stage_directory() == (stages[1], True)


def test_no_stage_is_left(stages: tuple[Path, Path]) -> None:
    for stage in stages:
        write(stage / "file")
    with pytest.raises(IssuError) as caught:
        facts.stage_directory()
    assert all(str(stage) in str(caught.value) for stage in stages)
    assert caught.value.hint


@pytest.mark.parametrize(("made", "left"), [(True, False), (False, True)], ids=["ours", "theirs"])
def test_unstage_removes_only_what_was_made(
    stages: tuple[Path, Path], *, made: bool, left: bool
) -> None:
    stages[0].mkdir()
    facts.unstage(stages[0], made=made)
    assert stages[0].exists() == left
    facts.unstage(stages[0], made=made)  # a second time there is nothing to do


def test_unstage_keeps_what_somebody_put_there(stages: tuple[Path, Path]) -> None:
    write(stages[0] / "file")
    facts.unstage(stages[0], made=True)
    assert (stages[0] / "file").exists()


def test_sizes_are_of_this_machine(tmp_path: Path) -> None:
    assert 0 < facts.available_memory() < 1 << 50
    assert facts.free_bytes(tmp_path) > 0
