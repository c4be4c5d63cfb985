"""The bell that the default target rings, with the command of the unit that rings it."""

from __future__ import annotations

import os
import select
import shlex
import subprocess
from pathlib import Path

import pytest

from issu_systemd import arrive, record
from issu_systemd.record import Record

UNIT = Path(__file__).parents[2] / "units/issu-reached.service"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A path in place of /run/issu/reached."""
    monkeypatch.setattr(record, "REACHED", tmp_path / "reached")
    return tmp_path / "reached"


def command(place: Path) -> list[str]:
    """ExecStart= of the unit, on the other path."""
    [line] = [x for x in UNIT.read_text().splitlines() if x.startswith("ExecStart=")]
    assert "/run/issu/reached" in line
    return shlex.split(line.partition("=")[2].replace("/run/issu/reached", str(place)))


def rung(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


def test_the_bell_is_heard(place: Path) -> None:
    with arrive.bell() as fd:
        assert not rung(fd)
        subprocess.run(command(place), check=True, timeout=60)
        assert rung(fd)


def test_the_bell_may_be_there_already(place: Path) -> None:
    """A killed arrive.py is started again."""
    with arrive.bell():
        pass
    with arrive.bell() as fd:
        assert not rung(fd)
        subprocess.run(command(place), check=True, timeout=60)
        assert rung(fd)


def test_to_ring_it_needs_nobody_who_listens(place: Path) -> None:
    os.mkfifo(place)
    subprocess.run(command(place), check=True, timeout=60)


def test_rung_before_anybody_listens_it_is_heard(place: Path) -> None:
    """arrive.py was killed, and is started again when the default target is reached already."""
    condition = "ConditionPathExists=/run/issu/record.json\n"
    assert condition in UNIT.read_text()  # and not on somebody's listening
    subprocess.run(command(place), check=True, timeout=60)
    with arrive.bell() as fd:
        assert rung(fd)


# --- the proof that the old root is gone --------------------------------------------------------


@pytest.mark.parametrize("device", [None, "", "/dev/nosuch"])
def test_a_root_without_a_device_cannot_be_shown_free(device: str | None) -> None:
    story = Record(id="x", started="y", source={"device": device})
    arrive.prove(story)
    assert story.findings == []


@pytest.mark.parametrize(
    ("free", "mounted", "holders", "told"),
    [
        (True, [], [], [("old-root-free", "info", "/dev/null is free")]),
        (True, [7], ["frr[7] (a mount)"], [("old-root-held", "warn", "frr[7]")]),
        (
            False,
            [],
            ["frr[7] (its program)", "sh[8] (an open file)"],
            [("old-root-held", "warn", "frr[7]"), ("old-root-held", "warn", "sh[8]")],
        ),
        (False, [], [], [("old-root-held", "warn", "another PID namespace")]),
    ],
    ids=["free", "mounted", "held", "unseen"],
)
def test_who_holds_the_old_root_is_told(
    monkeypatch: pytest.MonkeyPatch,
    free: bool,
    mounted: list[int],
    holders: list[str],
    told: list[tuple[str, str, str]],
) -> None:
    monkeypatch.setattr(arrive.oldroot, "wait_free", lambda node: free)  # type: ignore[attr-defined]
    monkeypatch.setattr(arrive.oldroot, "mounted_by", lambda dev: mounted)  # type: ignore[attr-defined]
    monkeypatch.setattr(arrive.oldroot, "holders", lambda dev: holders)  # type: ignore[attr-defined]
    story = Record(id="x", started="y", source={"device": "/dev/null"})
    arrive.prove(story)
    found = [(finding["id"], finding["severity"]) for finding in story.findings]
    assert found == [(id, severity) for id, severity, _ in told]
    for finding, (_, _, text) in zip(story.findings, told, strict=True):
        assert text in finding["text"]
