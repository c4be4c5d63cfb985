"""Units that are enabled here and lost or broken there, as the two systemds say it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from issu_systemd import newroot, plan, unitset

FILES = """\
here.service enabled enabled
masked.service masked enabled
tmpl@.service disabled enabled
"""
SAYS = """\
/etc/systemd/system/a.service:5: Unknown key 'Colour' in section [Service], ignoring.
Unit x.service not found.
a.service: Failed to create a.service/start: Unit nope.service not found.
a.service: Command /usr/bin/none is not executable: No such file or directory
a.service: Command /usr/bin/none is not executable: No such file or directory
"""


class Manager:
    """PID 1 as far as it is asked: what is enabled."""

    def properties(self, unit: str) -> dict[str, Any]:
        return {"UnitFileState": b"static" if unit == "static.service" else b"enabled"}


@pytest.fixture(autouse=True)
def target(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newroot, "unit_files", lambda _: FILES)
    monkeypatch.setattr(newroot, "dry_run", lambda _: "")


@pytest.mark.parametrize(
    ("unit", "action", "says"),
    [
        ("here.service", plan.RESTARTED, None),
        ("tmpl@1.service", plan.RESTARTED, None),
        ("masked.service", plan.GONE, "masks it"),
        ("none.timer", plan.GONE, "does not have it"),
        ("none.service", plan.KEPT, "does not have it"),
        ("static.service", plan.GONE, None),
        ("none.mount", plan.GONE, None),
        ("none.service", plan.NEW, None),
    ],
)
def test_lost(unit: str, action: str, says: str | None) -> None:
    found = unitset.lost(Manager(), Path("/x"), [plan.Step(unit, action, "")])  # type: ignore[arg-type]
    assert found == (((unit, says),) if says else ())


def test_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Done:
        stderr = SAYS

    def run_inside(root: Path, argv: list[str], **_: object) -> Done:
        asked.extend(argv)
        return Done()

    monkeypatch.setattr(unitset, "run_inside", run_inside)
    assert unitset.faults(Path("/x")) == (
        ("a.service", "Failed to create a.service/start: Unit nope.service not found."),
        ("a.service", "Command /usr/bin/none is not executable: No such file or directory"),
    )
    assert asked[asked.index("--") + 1 :] == ["here.service"]


@pytest.mark.parametrize(
    ("name", "line", "found"),
    [
        ("a.service", "RootDirectory=/srv/jail", 1),
        ("a.service.d/x.conf", " RootImage = /srv/jail.raw", 1),
        ("a.service", "WorkingDirectory=/srv", 2),
        ("b.service", "RootDirectory=/srv/jail", 2),
        ("a.service", "RootDirectory=", 2),
    ],
)
def test_a_command_of_another_root_is_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, line: str, found: int
) -> None:
    place = tmp_path / "etc/systemd/system" / name
    place.parent.mkdir(parents=True)
    place.write_text(f"[Service]\n{line}\n")

    class Done:
        stderr = SAYS

    monkeypatch.setattr(unitset, "run_inside", lambda root, argv, **_: Done())
    assert len(unitset.faults(tmp_path)) == found


def test_a_target_that_enables_nothing_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newroot, "unit_files", lambda _: "a.service static -\n")
    monkeypatch.setattr(unitset, "run_inside", None)
    assert unitset.faults(Path("/x")) == ()
