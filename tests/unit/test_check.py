"""Preflight without an upgrade: how far it looks, and what it answers."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from issu_systemd import check, foresee, survey
from issu_systemd.devices import Device
from issu_systemd.errors import IssuError, Refused
from issu_systemd.evidence import Facts, Tree
from issu_systemd.request import Options
from issu_systemd.settings import Settings
from issu_systemd.trust import Doubts

DEVICE = Device("/dev/sdb2", 2066, "ext4", False)
GOOD = Facts(target="/dev/sdb2", target_dev=2066, root_dev=2049, root_device="/dev/sda1")
TREE = Tree(os="Debian", version="13", init="/usr/lib/systemd/systemd", machine=62,
            init_says="systemd 257 (257)", issu_says="issu 0.3.0")  # fmt: skip


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the machine is like; a test changes it."""
    machine: dict[str, Any] = {"facts": GOOD, "tree": TREE, "mount": "", "plan": "", "looked": 0,
                               "doubts": Doubts()}  # fmt: skip

    @contextmanager
    def look(device: Device, chosen: Settings) -> Iterator[tuple[Path, Doubts]]:
        machine["looked"] += 1
        if machine["mount"]:
            raise IssuError(machine["mount"])
        yield Path("/nowhere"), machine["doubts"]

    def plan_for(*words: object) -> list[object]:
        if machine["plan"]:
            raise IssuError(machine["plan"], hint="mend it")
        return []

    monkeypatch.setattr(check, "Manager", nullcontext)
    monkeypatch.setattr(check.devices, "resolve", lambda name: DEVICE)
    monkeypatch.setattr(
        check.facts, "gather",
        lambda manager, device, chosen: replace(machine["facts"], strategy=chosen.strategy),
    )  # fmt: skip
    monkeypatch.setattr(
        check.facts, "look", lambda facts, root, carried: replace(facts, tree=machine["tree"])
    )
    monkeypatch.setattr(foresee, "looked_into", look)
    monkeypatch.setattr(survey, "plan_for", plan_for)
    monkeypatch.setattr(check.facts, "read_all", lambda *words: ({}, []))
    return machine


def ids(answer: dict[str, Any]) -> list[str]:
    return [finding["id"] for finding in answer["findings"] if finding["severity"] == "block"]


def test_a_good_target(seen: dict[str, Any]) -> None:
    assert check.check("/dev/sdb2", Options()) == {"eligible": True, "findings": []}


def test_what_is_in_use_is_not_mounted_to_be_looked_at(seen: dict[str, Any]) -> None:
    seen["facts"] = replace(GOOD, mounted_rw=("/srv",))
    answer = check.check("/dev/sdb2", Options())
    assert not answer["eligible"]
    assert ids(answer) == ["mounted"]
    assert seen["looked"] == 0


def test_what_the_target_lacks_is_told_with_all_else(seen: dict[str, Any]) -> None:
    seen["facts"] = replace(GOOD, inhibitors=("backup (nightly), process 7 of user 0",))
    seen["tree"] = replace(TREE, issu_says="")
    answer = check.check("/dev/sdb2", Options())
    assert ids(answer) == ["inhibited", "issu-missing"]
    assert "backup (nightly)" in answer["findings"][0]["text"]


def test_a_target_that_does_not_mount_is_a_finding(seen: dict[str, Any]) -> None:
    seen["mount"] = "bad superblock"
    answer = check.check("/dev/sdb2", Options())
    assert ids(answer) == ["mount"]
    assert "bad superblock" in answer["findings"][0]["text"]


@pytest.mark.parametrize(
    ("doubts", "found"),
    [(Doubts("a wrong hash", "no seal"), ["verity", "verify-command"]),
     (Doubts(verify_command="no seal"), ["verify-command"])],
)  # fmt: skip
def test_what_is_not_trusted_is_not_looked_at(
    seen: dict[str, Any], doubts: Doubts, found: list[str]
) -> None:
    """But what the machine lacks is told with it."""
    seen["facts"] = replace(GOOD, inhibitors=("backup (nightly), process 7 of user 0",))
    seen["doubts"], seen["tree"] = doubts, replace(TREE, issu_says="")
    assert ids(check.check("/dev/sdb2", Options())) == ["inhibited", *found]


def test_a_plan_that_cannot_be_made_is_a_finding(seen: dict[str, Any]) -> None:
    seen["plan"] = "the new root's systemd does not run"
    assert ids(check.check("/dev/sdb2", Options())) == ["start-up"]


def test_the_strategy_that_is_asked_for_counts(seen: dict[str, Any]) -> None:
    seen["facts"] = replace(GOOD, on_rootfs=True)  # which only live minds
    assert check.check("/dev/sdb2", Options("halt"))["eligible"]
    assert ids(check.check("/dev/sdb2", Options("live"))) == ["pivot"]


def test_the_program_answers_in_json(
    seen: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["check", "/dev/sdb2", '{"strategy": null, "force": []}'])
    assert check.main() == 0
    assert json.loads(capsys.readouterr().out)["eligible"]

    def none(name: str) -> Device:
        raise Refused(f"{name}: no such device", hint="lsblk lists them")

    monkeypatch.setattr(check.devices, "resolve", none)
    assert check.main() == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer == {"error": "/dev/sdb2: no such device", "hint": "lsblk lists them"}
