"""`issu status` in a hurry says what it says at leisure, or leaves it to that."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from issu_systemd import cli, glance, history, record
from issu_systemd.phase import Phase
from issu_systemd.record import Record

ROOT = Path(__file__).parents[2]
REPORT = json.loads((ROOT / "tests/unit/data/report-accepted.json").read_text())
OTHER_BOOT = {"boot_id": {"after": "0"}}
PINNED = {"id": "old-root-pinned", "severity": "warn", "text": "", "way_out": ""}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where record and history lie, for both of them."""
    monkeypatch.setattr(record.load, "__defaults__", (tmp_path / "record.json",))
    monkeypatch.setattr(history, "PLACE", tmp_path)
    monkeypatch.setattr(glance, "RECORD", f"{tmp_path}/record.json")
    monkeypatch.setattr(glance, "HISTORY", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["issu", "status"])
    return tmp_path


def report(place: Path, id: str, **more: Any) -> None:
    boot = {"boot_id": {"after": glance.boot_id()}}
    document = REPORT | {"id": id, "continuity": boot} | more
    (place / f"{id}.json").write_text(json.dumps(document))


def at_leisure(capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main() == 0
    return capsys.readouterr().out


def test_the_last_upgrade(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report(place, "a", result="failed", error="once")
    report(place, "b")
    assert glance.status() is not None
    assert glance.main() == 0
    assert capsys.readouterr().out == at_leisure(capsys)


@pytest.mark.parametrize("phase", [Phase.PREFLIGHT, None])
def test_the_one_that_runs(
    place: Path, capsys: pytest.CaptureFixture[str], phase: Phase | None
) -> None:
    story = Record(id="z", started="y", target={"device": "/dev/sdb2", "os": "Debian 13"})
    story.phase = phase
    record.save(story, place / "record.json")
    assert glance.main() == 0
    said = capsys.readouterr().out
    assert said == f"z: {phase}, going to Debian 13 on /dev/sdb2\n" == at_leisure(capsys)


@pytest.mark.parametrize(
    "more",
    [{"result": "failed"}, {"findings": [PINNED]}, {"findings": None}, {"continuity": OTHER_BOOT}],
    ids=str,
)
def test_what_takes_more_is_left_to_others(place: Path, more: dict[str, Any]) -> None:
    report(place, "b")
    assert glance.status() is not None  # control
    report(place, "c", **more)
    assert glance.status() is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 2, "id": "x"}', "\xff"])
def test_what_cannot_be_read_is_left_to_others(place: Path, text: str) -> None:
    assert glance.status() is None  # nothing there
    (place / "record.json").write_bytes(text.encode("latin-1"))
    assert glance.status() is None


def test_every_other_word_is_left_to_others(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report(place, "b")
    monkeypatch.setattr(sys, "argv", ["issu", "status", "--json=short"])
    assert glance.main() == 0
    assert json.loads(capsys.readouterr().out)["id"] == "b"


def test_it_reads_what_an_upgrade_writes() -> None:
    written = (str(record.RECORD), str(record.HISTORY), record.SCHEMA)
    assert written == (glance.RECORD, glance.HISTORY, glance.SCHEMA)


def imported(place: Path, *words: str) -> set[str]:
    """What one run has imported of what costs time."""
    code = f"""if True:
        import sys
        sys.path.append({str(ROOT)!r})
        sys.argv = ["issu", *{words!r}]
        from issu_systemd import glance
        glance.HISTORY, glance.RECORD = {str(place)!r}, "/none"
        glance.main()
        print(*{{"argparse", "pathlib", "typing", "dataclasses", "asyncio"}} & {{*sys.modules}})
    """
    argv = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_nothing_is_imported_that_costs_time(place: Path) -> None:
    report(place, "b")
    assert imported(place, "status") == set()
    report(place, "c", result="failed")  # control
    assert imported(place, "status") >= {"argparse", "pathlib"}
