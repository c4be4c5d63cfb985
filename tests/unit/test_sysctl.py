"""[arrive] sysctl, from the record to the report: the gate of one unit is lifted, and no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from issu_systemd import gate, live, netgate, outcome, record, release
from issu_systemd.record import Record
from issu_systemd.settings import Settings

SYSCTL, BINFMT = gate.SYSCTL, "systemd-binfmt.service"


class Pid1:
    """Notes what it is asked."""

    def __init__(self, system: Path) -> None:
        self.system = system
        self.there: list[bool] = []  # whether the drop-in was there at a reload

    def call(self, method: str, *_: object) -> None:
        assert method == "Reload"
        self.there.append((self.system / f"{SYSCTL}.d" / gate.GATE).exists())


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory in place of /run/systemd/system; nothing runs."""
    monkeypatch.setattr(gate, "PLACE", tmp_path / "system")
    for name in ("RECORD", "IN_PROGRESS", "SKIP"):
        monkeypatch.setattr(record, name, tmp_path / "issu" / name)
    monkeypatch.setattr(record, "save", lambda story: None)
    for name in ("close", "stop_as_restart", "open_again"):  # of another test's concern
        monkeypatch.setattr(netgate, name, lambda *_: None)
    monkeypatch.setattr(release, "note", lambda manager, story: [])
    monkeypatch.setattr(release, "property_names", lambda manager: set())
    monkeypatch.setattr("issu_systemd.survey.both_have", lambda offer, stage: [])
    monkeypatch.setattr("issu_systemd.newroot.ask", lambda stage: None)
    monkeypatch.setattr(live, "post_guard", lambda manager: None)
    return tmp_path / "system"


@pytest.mark.parametrize("lifted", [[SYSCTL], []], ids=["true", "false"])
@pytest.mark.parametrize("strategy", ["halt", "live"])
def test_the_gate_is_lifted_before_anything_stops(
    system: Path, strategy: str, lifted: list[str]
) -> None:
    prepare: Any = {"halt": release.prepare, "live": live.prepare}[strategy]
    pid1 = Pid1(system)
    prepare(pid1, Record(id="x", started="y", lifted=lifted), Settings())
    found = [path.parent.name for path in system.rglob(gate.GATE)]
    assert found == [f"{unit}.d" for unit in lifted]
    if strategy == "halt":  # live: PID 1 reads everything when it re-executes
        assert pid1.there == [bool(lifted)]
    if lifted:
        assert release.undo_files()
    assert [*system.rglob(gate.GATE)] == []


@pytest.mark.parametrize(
    ("story", "barred"),
    [
        ({}, {SYSCTL, BINFMT}),
        ({"lifted": [SYSCTL]}, {BINFMT}),
        ({"lifted": [SYSCTL], "skip": [SYSCTL]}, {SYSCTL, BINFMT}),
    ],
    ids=["gated", "lifted", "lifted-and-skipped"],
)
def test_what_the_report_counts_as_gated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, story: dict[str, Any], barred: set[str]
) -> None:
    for unit in (SYSCTL, BINFMT):
        record.write_atomically(tmp_path / f"{unit}.d" / gate.GATE, "[Unit]\n")
    monkeypatch.setattr(outcome, "Path", lambda _: tmp_path)
    units = {SYSCTL, BINFMT, "frr.service"}
    assert outcome.gated(Record(id="x", started="y", **story), units) == barred
