"""Which units of the new root wait for an update, and what is run for them."""

from __future__ import annotations

from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from issu_systemd import firstboot
from issu_systemd.firstboot import LAST, due

VENDOR, ADMIN = "usr/lib/systemd/system", "etc/systemd/system"
NEEDS = "[Unit]\nConditionNeedsUpdate=/etc\n"


class Tree:
    """A fake tree; `false` are the units whose conditions do not hold in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.false: set[str] = set()
        self.waits = True
        self.asked: list[list[str]] = []
        self.ran: list[list[str]] = []
        self.exits: dict[str, int] = {}

    def unit(self, name: str, text: str = NEEDS, *, place: str = VENDOR) -> Path:
        path = self.root / place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def wanted(self, name: str, *, by: str = "sysinit", place: str = VENDOR) -> None:
        link = self.root / place / f"{by}.target.wants" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(f"../{name}")

    def run_inside(self, root: Path, argv: list[str], **how: Any) -> CompletedProcess[str]:
        assert root == self.root
        if argv[:2] == ["systemd-analyze", "condition"]:
            self.asked.append(argv[2:])
            if argv[2:] == [*firstboot.ANY]:
                return CompletedProcess(argv, int(not self.waits), "", "")
            unit = argv[2].removeprefix("--unit=")
            return CompletedProcess(argv, int(unit in self.false), "", "")
        self.ran.append(argv)
        return CompletedProcess(argv, self.exits.get(argv[0], 0), "", "")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    fake = Tree(tmp_path)
    monkeypatch.setattr(firstboot, "run_inside", fake.run_inside)
    return fake


def test_nothing_is_due_in_an_empty_tree(tree: Tree) -> None:
    assert due(tree.root) == []
    assert firstboot.work(tree.root) == []


def test_what_waits_for_an_update_is_due(tree: Tree) -> None:
    for name in ("ldconfig.service", "plain.service", "unwanted.service"):
        tree.unit(name, NEEDS if name != "plain.service" else "[Unit]\n")
    for name in ("ldconfig.service", "plain.service"):
        tree.wanted(name)
    assert due(tree.root) == ["ldconfig.service"]


def test_where_nothing_waits_no_unit_is_asked(tree: Tree) -> None:
    tree.unit("a.service")
    tree.wanted("a.service")
    tree.waits = False
    assert due(tree.root) == []
    assert tree.asked == [[*firstboot.ANY]]


def test_what_the_administrator_enabled_counts_too(tree: Tree) -> None:
    tree.unit("vendor.service")
    tree.wanted("vendor.service", by="multi-user", place=ADMIN)
    tree.unit("own.service", place=ADMIN)
    tree.wanted("own.service", place=ADMIN)
    assert due(tree.root) == ["own.service", "vendor.service"]


def test_a_unit_whose_conditions_do_not_hold_is_not_due(tree: Tree) -> None:
    for name in ("a.service", "b.service"):
        tree.unit(name)
        tree.wanted(name)
    tree.false.add("a.service")
    assert due(tree.root) == ["b.service"]


def test_the_stamp_comes_last(tree: Tree) -> None:
    """systemd-update-done.service sorts before others, but makes their conditions false."""
    names = ["ldconfig.service", LAST, "systemd-hwdb-update.service", "zz-vendor.service"]
    for name in names:
        tree.unit(name)
        tree.wanted(name)
    assert sorted(names).index(LAST) < 3
    assert due(tree.root) == [name for name in sorted(names) if name != LAST] + [LAST]


def test_the_administrators_file_decides(tree: Tree) -> None:
    tree.unit("x.service")
    tree.wanted("x.service")
    tree.unit("x.service", "[Unit]\n", place=ADMIN)
    assert due(tree.root) == []


def test_a_link_is_not_followed_out_of_the_tree(tree: Tree, tmp_path: Path) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.write_text(NEEDS)
    tree.unit("x.service").unlink()
    (tree.root / VENDOR / "x.service").symlink_to(outside)
    tree.wanted("x.service")
    assert due(tree.root) == []


def test_a_unit_that_is_not_there(tree: Tree) -> None:
    tree.wanted("gone.service")
    assert due(tree.root) == []


def test_its_commands_are_run_without_their_prefixes(tree: Tree) -> None:
    tree.unit("x.service", NEEDS + '[Service]\nExecStart=-/sbin/a "b c"\nExecStart=+@/sbin/d e\n')
    tree.wanted("x.service")
    assert firstboot.work(tree.root) == ["x.service"]
    assert tree.ran == [["/sbin/a", "b c"], ["/sbin/d", "e"]]


def test_a_command_that_fails_ends_its_unit_only(
    tree: Tree, caplog: pytest.LogCaptureFixture
) -> None:
    tree.unit("a.service", NEEDS + "[Service]\nExecStart=/bad\nExecStart=/after\n")
    tree.unit("b.service", NEEDS + "[Service]\nExecStart=/good\n")
    for name in ("a.service", "b.service"):
        tree.wanted(name)
    tree.exits["/bad"] = 1
    assert firstboot.work(tree.root) == ["b.service"]
    assert tree.ran == [["/bad"], ["/good"]]
    assert "a.service" in caplog.text
