"""Preflight without an upgrade: how far it looks, and what it answers."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from issu_systemd import check, foresee, inquiry, survey
from issu_systemd.devices import Device
from issu_systemd.errors import Busy, IssuError, Refused, SettingsError
from issu_systemd.evidence import Facts, Tree
from issu_systemd.finding import BLOCK, WARN, Finding
from issu_systemd.request import Options
from issu_systemd.settings import Settings
from issu_systemd.trust import Doubts

DEVICE = Device("/dev/sdb2", 2066, "ext4", False)
GOOD = Facts(target="/dev/sdb2", target_dev=2066, root_dev=2049, root_device="/dev/sda1")
TREE = Tree(os="Debian", version="13", init="/usr/lib/systemd/systemd", machine=62,
            init_says="systemd 257 (257)", issu_says="issu 0.4.0")  # fmt: skip


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
    words = json.dumps(asdict(Options()))
    monkeypatch.setattr(sys, "argv", ["check", "/dev/sdb2", words])
    assert check.main() == 0
    assert json.loads(capsys.readouterr().out)["eligible"]

    def none(name: str) -> Device:
        raise Refused(f"{name}: no such device", hint="lsblk lists them")

    monkeypatch.setattr(check.devices, "resolve", none)
    assert check.main() == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer == {"error": "/dev/sdb2: no such device", "hint": "lsblk lists them"}


# --- with a rehearsal ---------------------------------------------------------------------------

ASKED = Options(rehearse=True)


Played = list[tuple[Path, tuple[str, ...], float]]


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Played:
    """What is rehearsed; each time something is wrong with it."""
    calls: Played = []

    def rehearse(target: Path, units: tuple[str, ...], timeout: float) -> list[Finding]:
        calls.append((target, units, timeout))
        return [Finding("rehearsal", WARN, "x", ""), Finding("rehearsal", BLOCK, "y failed", "")]

    monkeypatch.setattr(check.rehearse, "rehearse", rehearse)
    return calls


def test_only_who_asks_for_it_gets_a_rehearsal(
    seen: dict[str, Any], played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Settings(rehearse=True, verify_units=("b.service",), rehearse_timeout_usec=7_000_000)
    monkeypatch.setattr(check.settings, "load", lambda *root: here)
    there = Settings(verify_units=("a.service", "b.service"))
    monkeypatch.setattr(check.facts, "own_settings", lambda root: (there, ""))
    assert check.check("/dev/sdb2", Options())["eligible"]
    assert played == []
    answer = check.check("/dev/sdb2", ASKED)
    assert (answer["eligible"], ids(answer)) == (False, ["rehearsal"])
    assert [finding["severity"] for finding in answer["findings"]] == ["block", "warn"]
    assert played == [(Path("/dev/sdb2"), ("a.service", "b.service"), 7.0)]


def test_it_is_rehearsed_in_spite_of_what_the_machine_lacks(
    seen: dict[str, Any], played: Played
) -> None:
    seen["facts"] = replace(GOOD, inhibitors=("backup (nightly), process 7 of user 0",))
    assert ids(check.check("/dev/sdb2", ASKED)) == ["inhibited", "rehearsal"]


@pytest.mark.parametrize(
    "lack",
    [{"tree": replace(TREE, issu_says="")}, {"doubts": Doubts("a wrong hash")}, {"mount": "bad"},
     {"facts": replace(GOOD, mounted_rw=("/srv",))}],
)  # fmt: skip
def test_what_cannot_be_booted_or_is_not_trusted_is_not(
    seen: dict[str, Any], played: Played, lack: dict[str, Any]
) -> None:
    seen.update(lack)
    answer = check.check("/dev/sdb2", ASKED)
    assert played == []
    assert "rehearsal" not in ids(answer)
    assert answer["findings"][-1]["text"] == "no rehearsal: /dev/sdb2 cannot be booted as it is"


def test_one_at_a_time(seen: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*words: object) -> list[Finding]:
        raise Busy("another rehearsal runs", hint="systemctl list-units")

    monkeypatch.setattr(check.rehearse, "rehearse", busy)
    answer = check.check("/dev/sdb2", ASKED)
    assert answer["eligible"]
    assert answer["findings"][0]["text"] == "no rehearsal: another rehearsal runs"


def test_a_check_may_take_as_long_as_the_settings_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = Settings(verify_command=("/x",), rehearse_timeout_usec=1_000_000_000)
    monkeypatch.setattr(inquiry.settings, "load", lambda: chosen)
    trusted = inquiry.CHECK_SEC + chosen.trust_timeout_usec / 1e6
    assert inquiry.limit(Options()) == trusted
    assert inquiry.limit(ASKED) > trusted + 2 * 1000

    def wrong() -> Settings:
        raise SettingsError("x.toml: kep")

    monkeypatch.setattr(inquiry.settings, "load", wrong)
    assert inquiry.limit(ASKED) == inquiry.CHECK_SEC
