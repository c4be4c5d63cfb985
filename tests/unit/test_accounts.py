"""Whose numbers go along, and whether they mean the same there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from issu_systemd import accounts
from issu_systemd.evidence import Owner

HERE = "root:x:0:0::/:\nweb:x:33:33::/:\nalias:x:33:33::/:\nold:x:70:70::/:\n"


def tree(top: Path, passwd: str, group: str = "root:x:0:\n") -> Path:
    (top / "etc").mkdir(parents=True)
    (top / "etc/passwd").write_text(passwd)
    (top / "etc/group").write_text(group)
    return top


@pytest.mark.parametrize(
    ("there", "found"),
    [
        (HERE, []),
        ("root:x:0:0\nweb:x:34:34\nold:x:70:70\n", [("web", 33, 34)]),
        ("root:x:0:0\nweb:x:33:33\n", [("old", 70, None)]),
        ("", [("old", 70, None), ("root", 0, None), ("web", 33, None)]),
    ],
)
def test_clashes(tmp_path: Path, there: str, found: list[tuple[str, int, int | None]]) -> None:
    here, target = tree(tmp_path / "a", HERE), tree(tmp_path / "b", there)
    owned = {("user", 0): "/r", ("user", 33): "/w", ("user", 70): "/o", ("user", 99): "/nobody"}
    paths = {"root": "/r", "web": "/w", "old": "/o"}
    assert accounts.clashes(here, target, owned) == tuple(
        Owner("user", name, number, other, paths[name]) for name, number, other in found
    )


def test_users_and_groups_are_apart(tmp_path: Path) -> None:
    here = tree(tmp_path / "a", HERE, "staff:x:33:\n")
    there = tree(tmp_path / "b", HERE, "staff:x:50:\n")
    owned = {("user", 33): "/w", ("group", 33): "/w"}
    assert accounts.clashes(here, there, owned) == (Owner("group", "staff", 33, 50, "/w"),)


def test_odd_lines(tmp_path: Path) -> None:
    text = "\n:::\nx\na:x:notanumber:\nb:x:\u0663:\nc:x:5:\nc:x:6:\nd:x:" + "9" * 5000 + ":\n"
    found = accounts.numbers(tree(tmp_path / "a", text), "user")
    assert found == {"c": 5, "d": 9_999_999_999}


def test_owners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, uid in (("files/a", 1001), ("mount/deep/b", 1002), ("other/c", 1003)):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.touch()
        os.chown(path, uid, 2000)
    (tmp_path / "files/link").symlink_to(tmp_path / "other")
    owned = accounts.owners([f"{tmp_path}/files/*"], [f"{tmp_path}/mount"])
    assert owned[("user", 1001)] == f"{tmp_path}/files/a"
    assert owned[("user", 1002)] == f"{tmp_path}/mount/deep/b"
    assert ("group", 2000) in owned
    assert ("user", 1003) not in owned
    monkeypatch.setattr(accounts, "MAX_FILES", 1)
    assert ("user", 1002) not in accounts.owners([f"{tmp_path}/files/*"], [f"{tmp_path}/mount"])
    assert accounts.owners(["/nowhere/*"], ["/nowhere"]) == {}
