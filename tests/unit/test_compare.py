"""Snapshots in files: compared, and what is no snapshot named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from issu_systemd import compare, continuity
from issu_systemd.errors import IssuError
from issu_systemd.settings import Settings

LINE = {"ifindex": 2, "carrier_changes": 1}
BEFORE: dict[str, Any] = {
    "boot_id": "b",
    "module": {"ext4": {"sysfs_inode": 7}},
    "network-device": {"eth0": LINE},
    "statistics": {"eth0": {"rx_bytes": 5}},
}


def write(path: Path, snapshot: object) -> Path:
    path.write_text(json.dumps(snapshot))
    return path


def compared(tmp_path: Path, after: object) -> dict[str, Any]:
    return compare.diff(write(tmp_path / "a", BEFORE), write(tmp_path / "b", after))


def test_no_difference(tmp_path: Path) -> None:
    found = compared(tmp_path, BEFORE | {"statistics": {"eth0": {"rx_bytes": 6}}})
    assert found["differences"] == []
    kinds = "boot_id, module, network-device, statistics"
    assert compare.table(found) == f"no difference; compared: {kinds}"


def test_one_value(tmp_path: Path) -> None:
    after = BEFORE | {"network-device": {"eth0": LINE | {"carrier_changes": 3}}}
    head, row, last = compare.table(compared(tmp_path, after)).splitlines()
    assert head.split() == ["KIND", "NAME", "BEFORE", "AFTER"]
    assert row.split() == ["network-device", "eth0", "carrier_changes=1", "carrier_changes=3"]
    assert head.index("AFTER") == row.index("carrier_changes=3")
    assert last.startswith("1 difference; compared: boot_id, ")


def test_each_value_has_its_line_and_what_is_gone_has_none(tmp_path: Path) -> None:
    device = {"ifindex": 9, "carrier_changes": 3, "mtu": 1500}  # mtu: only a newer version has it
    after = BEFORE | {"module": {}, "network-device": {"eth0": device}, "boot_id": "c"}
    lines = [line.split() for line in compare.table(compared(tmp_path, after)).splitlines()]
    assert lines[1:-1] == [
        ["boot_id", "boot_id", "b", "c"],
        ["module", "ext4", '{"sysfs_inode":', "7}", "-"],
        ["network-device", "eth0", "ifindex=2", "ifindex=9"],
        ["network-device", "eth0", "carrier_changes=1", "carrier_changes=3"],
    ]
    assert lines[-1][:2] == ["3", "differences;"]


def test_a_long_value_is_cut(tmp_path: Path) -> None:
    after = BEFORE | {"module": {"ext4": BEFORE["module"]["ext4"], "x": {"state": "y" * 999}}}
    row = compare.table(compared(tmp_path, after)).splitlines()[1]
    assert row.endswith("y…")
    assert len(row.split(maxsplit=3)[3]) == compare.WIDEST


def test_nothing_in_common(tmp_path: Path) -> None:
    found = compare.diff(write(tmp_path / "a", {"boot_id": None}), write(tmp_path / "b", BEFORE))
    assert compare.table(found) == "no difference; compared: nothing"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "No such file"),
        (b"", "is not JSON"),
        (b'{"boot_id": ', "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "holds no snapshot"),
        (b'{"id": "a report"}', "holds no snapshot"),
    ],
    ids=["missing", "empty", "cut", "no-text", "deep", "list", "report"],
)
@pytest.mark.parametrize("bad", ["before", "after"])
def test_what_is_no_snapshot_is_named(
    tmp_path: Path, text: bytes | None, says: str, bad: str
) -> None:
    files = {name: write(tmp_path / name, BEFORE) for name in ("before", "after")}
    files[bad].unlink()
    if text is not None:
        files[bad].write_bytes(text)
    with pytest.raises(IssuError, match=f"{tmp_path}/{bad}.*{says}") as caught:
        compare.diff(files["before"], files["after"])
    assert caught.value.hint


def test_counters_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(IssuError, match="cannot be compared"):
        compared(tmp_path, BEFORE | {"statistics": {"eth0": {"rx_bytes": "many"}}})


def test_a_snapshot_is_of_what_an_upgrade_carries(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = Settings(carry_mounts=("/srv",))
    monkeypatch.setattr("issu_systemd.settings.load", lambda: chosen)
    monkeypatch.setattr(continuity, "snapshot", lambda source: {"points": source.points})
    assert compare.snapshot() == {"points": ("/proc", "/sys", "/dev", "/srv")}
