"""accept.d and rollback.d: which programs run, what they are told, and what becomes of failures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from issu_systemd import hooks
from issu_systemd.record import RECORD, Record


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """What stands for /usr/lib/issu and /etc/issu."""
    found = (tmp_path / "usr", tmp_path / "etc")
    for place in found:
        for name in ("accept.d", "rollback.d"):
            (place / name).mkdir(parents=True)
    monkeypatch.setattr(hooks, "PLACES", found)
    return found


def write(path: Path, script: str, mode: int = 0o755) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(mode)
    return path


def ended(result: str, **more: Any) -> Record:
    here = Path("/").stat().st_dev
    story = Record(id="x1", started="y", result=result, old_dev=here, hook_timeout_usec=5_000_000)
    story.source, story.target = {"device": "/dev/sda2"}, {"device": "/dev/sdb2"}
    for key, value in more.items():
        setattr(story, key, value)
    return story


def test_the_administrators_win_by_name_and_names_are_the_order(
    places: tuple[Path, Path],
) -> None:
    vendor, admin = (place / "accept.d" for place in places)
    write(vendor / "20-both", "exit 0")
    last = write(vendor / "90-last", "exit 0")
    both = write(admin / "20-both", "exit 0")
    first = write(admin / "10-first", "exit 0")
    write(vendor / "30-off", "exit 0")
    (admin / "30-off").symlink_to("/dev/null")
    write(vendor / "40-not-executable", "exit 0", 0o644)
    (vendor / "50-directory").mkdir()
    assert hooks.programs("accept.d") == [first, both, last]
    assert hooks.programs("rollback.d") == []


@pytest.mark.parametrize(
    ("result", "old_root", "ran"),
    [
        ("accepted", False, "accept"), ("accepted", True, "accept"),
        ("rolled-back", True, "rollback"),
        ("rolled-back", False, ""),  # not there yet
        ("failed", True, ""), ("failed", False, ""), ("refused", True, ""),
    ],
)  # fmt: skip
def test_whose_turn_it_is(
    places: tuple[Path, Path], tmp_path: Path, result: str, *, old_root: bool, ran: str
) -> None:
    for name in ("accept", "rollback"):
        write(places[0] / f"{name}.d/10-x", f"echo {name} >>{tmp_path}/ran")
    story = ended(result, **({} if old_root else {"old_dev": 1}))
    hooks.run(story)
    place = tmp_path / "ran"
    assert (place.read_text().strip() if place.exists() else "") == ran
    assert story.findings == []


def way_back(result: str, *, reboot: bool, there: bool, **more: Any) -> Record:
    """An upgrade that is the way back of another, and has arrived or is still where it began."""
    here = Path("/").stat().st_dev
    devs = {"old_dev": 1, "new_dev": here} if there else {"old_dev": here, "new_dev": 1}
    return ended(result, way_back={"of": "w", "reason": "", "reboot": reboot}, **devs, **more)


@pytest.mark.parametrize("reboot", [True, False])
@pytest.mark.parametrize(
    ("result", "there", "ran"),
    [
        ("accepted", True, "rollback"),
        ("failed", True, "rollback"),  # not healthy, and it stays
        ("rolled-back", False, "rollback"),  # of the way back itself
        ("rolled-back", True, ""), ("failed", False, ""), ("refused", False, ""),
    ],
)  # fmt: skip
def test_an_upgrade_that_is_a_way_back_ends_with_rollback_d(
    places: tuple[Path, Path], tmp_path: Path, result: str, ran: str, *, there: bool, reboot: bool
) -> None:
    for name in ("accept", "rollback"):
        write(places[0] / f"{name}.d/10-x", f"echo {name} >>{tmp_path}/ran")
    hooks.run(way_back(result, there=there, reboot=reboot))
    place = tmp_path / "ran"
    assert (place.read_text().strip() if place.exists() else "") == ran


@pytest.mark.parametrize(
    ("story", "root", "result", "boot_loader"),
    [
        (ended("accepted", boot_loader="grub"), "/dev/sdb2", "accepted", "grub"),
        # What was never accepted leaves the boot loader alone.
        (ended("rolled-back", boot_loader="grub"), "/dev/sda2", "rolled-back", "none"),
        (way_back("accepted", reboot=True, there=True, boot_loader="grub"), "/dev/sdb2",
         "rolled-back", "none"),
        (way_back("failed", reboot=True, there=True, boot_loader="grub"), "/dev/sdb2",
         "rolled-back", "none"),
        # `issu rollback` of one that was accepted: the boot loader starts the other root by now.
        (way_back("accepted", reboot=False, there=True, boot_loader="grub"), "/dev/sdb2",
         "rolled-back", "grub"),
        (way_back("rolled-back", reboot=False, there=False, boot_loader="grub"), "/dev/sda2",
         "rolled-back", "none"),
    ],
)  # fmt: skip
def test_what_the_boot_loader_is_told(
    story: Record, root: str, result: str, boot_loader: str
) -> None:
    told = hooks.environment(story)
    assert (told["ISSU_ROOT"], told["ISSU_RESULT"], told["ISSU_BOOT_LOADER"]) == (
        root, result, boot_loader,
    )  # fmt: skip


def test_what_a_program_is_told(places: tuple[Path, Path], tmp_path: Path) -> None:
    names = ("ID", "SOURCE", "TARGET", "ROOT", "RESULT", "BOOT_LOADER")
    words = " ".join(["$1", *(f"$ISSU_{name}" for name in names), "$PATH"])
    write(places[1] / "accept.d/10-x", f'echo "{words}" >{tmp_path}/told')
    hooks.run(ended("accepted", boot_loader="grub"))
    assert (tmp_path / "told").read_text().split() == [
        str(RECORD), "x1", "/dev/sda2", "/dev/sdb2", "/dev/sdb2", "accepted", "grub",
        "/usr/sbin:/usr/bin:/sbin:/bin",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo first; echo the entry is missing; exit 7", "ended with 7: the entry is missing"),
        ("exit 1", "ended with 1: it said nothing"),
        ("kill -9 $$", "ended with -9"),
        ("echo now it hangs; sleep 60", "did not end within 0.5 s: now it hangs"),
        ("sleep 60 & echo it goes, and leaves something; exit 2", "and leaves something"),
        ("yes | head -c 100000000; echo; echo the end; exit 3", "ended with 3: the end"),
    ],
)
def test_a_failure_is_a_finding_and_the_next_one_runs(
    places: tuple[Path, Path], tmp_path: Path, script: str, says: str
) -> None:
    path = write(places[0] / "accept.d/10-x", script)
    write(places[0] / "accept.d/20-y", f"touch {tmp_path}/next")
    usec = 500_000 if "hangs" in script else 20_000_000
    story = ended("accepted", hook_timeout_usec=usec)
    hooks.run(story)
    [finding] = story.findings
    assert (finding["id"], finding["severity"]) == ("hook", "warn")
    assert str(path) in finding["text"]
    assert says in finding["text"]
    assert len(finding["text"]) < 1000
    assert story.result == "accepted"
    assert (tmp_path / "next").exists()


def test_what_cannot_be_executed_is_a_finding(places: tuple[Path, Path]) -> None:
    path = places[0] / "accept.d/10-x"
    path.write_bytes(b"\x7fELF")
    path.chmod(0o755)
    story = ended("accepted")
    hooks.run(story)
    assert "cannot be run" in story.findings[0]["text"]
