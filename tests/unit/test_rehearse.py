"""The rehearsal: what its outcome means, and what is read where. tests/container has the rest."""

from __future__ import annotations

import json
import os
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, cast

import pytest

from issu_systemd import observe, record, rehearse, sandbox
from issu_systemd.errors import Busy, IssuError
from issu_systemd.finding import BLOCK, INFO, WARN, Finding
from issu_systemd.observe import INIT, LIMIT, TARGET, Outcome, Over, Scene, trouble_with
from issu_systemd.record import Record
from issu_systemd.settings import Settings
from issu_systemd.systemd import Manager

BAD = Outcome({"frr.service": "frr.service failed (exit-code): no such table"})
FINE = Outcome(seconds=1.25)


ACTIVE = {"frr.service", "nginx.service"}


def severities(outcome: Outcome, control: Outcome = FINE) -> list[str]:
    return [f.severity for f in rehearse.judge("/dev/sdx", outcome, control, ACTIVE)]


# --- what it means --------------------------------------------------------------------------------


def test_all_is_well() -> None:
    [found] = rehearse.judge("/dev/sdx", FINE, Outcome())
    assert (found.id, found.severity) == ("rehearsal", INFO)
    assert "1.2 s" in found.text


def test_what_fails_only_in_the_new_root_blocks() -> None:
    [found] = rehearse.judge("/dev/sdx", BAD, FINE)
    assert found.severity == BLOCK
    assert "frr.service failed (exit-code): no such table" in found.text
    assert "rehearse-skip" in found.way_out


def test_what_fails_in_the_running_root_too_warns() -> None:
    """It runs there without a container, so the container is what it cannot stand."""
    assert severities(BAD, BAD) == [WARN]
    assert severities(BAD, Outcome({"nginx.service": "failed"})) == [BLOCK]


def test_what_does_not_run_here_is_no_excuse() -> None:
    """A unit that is new in the new root cannot come up in the running root's rehearsal."""
    new = Outcome({"new.service": "new.service failed (exit-code)"})
    assert severities(new, Outcome({"new.service": "new.service is not-found"})) == [BLOCK]


def test_a_target_that_is_not_reached_for_another_reason_blocks() -> None:
    late = Outcome({TARGET: "x"}, failed=("a.service",))
    assert severities(late, Outcome({TARGET: "x"}, failed=("a.service", "b.service")))[0] == WARN
    assert severities(late, Outcome({TARGET: "x"}, failed=("b.service",)))[0] == BLOCK


@pytest.mark.parametrize("key", [INIT, TARGET, LIMIT])
def test_a_boot_that_does_not_end_blocks(key: str) -> None:
    assert severities(Outcome({key: "x"})) == [BLOCK]


def test_where_nothing_boots_in_a_container_nothing_is_said_of_the_target() -> None:
    [found] = rehearse.judge("/dev/sdx", Outcome({INIT: "x"}), Outcome({INIT: "y"}))
    assert found.severity == INFO
    assert "no rehearsal" in found.text
    assert severities(Outcome(impossible="no overlay")) == [INFO]


def test_other_units_warn_in_one_sentence() -> None:
    names = tuple(f"u{n:02}.service" for n in range(20))
    found = rehearse.judge("/dev/sdx", Outcome(failed=names), Outcome())
    assert [f.severity for f in found] == [WARN, INFO]
    assert "u09.service, ... failed" in found[0].text


def test_without_nspawn_it_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(rehearse, "NSPAWN", str(tmp_path / "none"))
    [found] = rehearse.rehearse(Path("/dev/sdx"), (), 1.0)
    assert (found.severity, found.way_out) == (INFO, "install systemd-container")


def test_an_upgrades_record_tells_that_it_rehearses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whoever undoes a dead agent's work must know; when it is over, there is nothing to end."""
    path, seen = tmp_path / "record.json", list[bool]()
    monkeypatch.setattr(record, "save", lambda story: path.write_text(record.dumps(story)))

    def play(target: Path, units: list[str], timeout: float) -> list[Finding]:
        seen.append(record.loads(path.read_text()).rehearses)
        if units:
            raise Busy("another rehearsal runs")
        return rehearse.judge(str(target), FINE, FINE)

    monkeypatch.setattr(rehearse, "rehearse", play)
    story = Record(id="x", started="y", target={"device": "/dev/sdx"})
    assert [f.severity for f in rehearse.for_upgrade(story, Settings())] == [INFO]
    assert (seen, record.loads(path.read_text()).rehearses) == ([True], False)
    story.verify_units = ["frr.service"]
    with pytest.raises(Busy):
        rehearse.for_upgrade(story, Settings())
    assert (seen, record.loads(path.read_text()).rehearses) == ([True, True], False)


# --- whether a unit is up -------------------------------------------------------------------------


class Inner:
    """A PID 1 that answers with one unit."""

    def __init__(self, **shown: Any) -> None:
        self.shown = {
            "LoadState": b"loaded", "ActiveState": b"active", "SubState": b"running",
            "ConditionResult": True, "ConditionTimestampMonotonic": 5, "Result": b"exit-code",
            "Requires": [], **shown,
        }  # fmt: skip

    def properties(self, unit: str, interface: str = "Unit") -> dict[str, Any]:
        return self.shown


@pytest.mark.parametrize(
    ("shown", "trouble"),
    [
        ({}, ""),
        ({"ActiveState": b"failed"}, "failed (exit-code)"),
        ({"ActiveState": b"inactive", "SubState": b"dead"}, "is inactive (dead)"),
        ({"ActiveState": b"inactive", "ConditionResult": False}, ""),  # not in a container
        (
            {
                "ActiveState": b"inactive", "SubState": b"dead",
                "ConditionResult": False, "ConditionTimestampMonotonic": 0,
            },
            "is inactive (dead)",  # nobody has asked for it
        ),
        ({"ActiveState": b"activating", "SubState": b"start"}, "is activating (start)"),
        ({"LoadState": b"not-found", "ActiveState": b"inactive"}, "is not-found"),
        ({"LoadState": b"masked", "ActiveState": b"inactive"}, "is masked"),
    ],
)  # fmt: skip
def test_a_unit(shown: dict[str, Any], trouble: str) -> None:
    assert trouble_with(cast("Manager", Inner(**shown)), "x.service") == trouble


# --- limits ---------------------------------------------------------------------------------------


def group(path: Path, **files: str) -> Path:
    path.mkdir(parents=True)
    for name, text in files.items():
        (path / name.replace("_", ".", 1)).write_text(text)
    return path


def scene(where: Path) -> Scene:
    return Scene("", os.getpid(), str(where), 0.0, 0.0)


@pytest.fixture(autouse=True)
def in_our_own_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observe.reap, "unit_of", lambda pid: "")


def test_tasks_are_what_the_kernel_counts(tmp_path: Path) -> None:
    assert observe.tasks(group(tmp_path / "a", pids_current="17\n", pids_events="max 0\n")) == 17
    full = group(tmp_path / "b", pids_current="17\n", pids_events="max 3\n")
    assert observe.tasks(full) == observe.TASKS_MAX
    with pytest.raises(Over, match="tasks"):
        observe.check(scene(full))


def test_where_it_does_not_count_them_processes_are(tmp_path: Path) -> None:
    top = group(tmp_path / "a", cgroup_procs="1\n2\n")
    group(top / "payload", cgroup_procs="3\n" * observe.TASKS_MAX)
    assert observe.tasks(top) == observe.TASKS_MAX + 2
    with pytest.raises(Over):
        observe.check(scene(top))


def test_a_cgroup_that_goes_meanwhile_counts_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = group(tmp_path / "a", cgroup_procs="1\n")
    monkeypatch.setattr(observe.os, "walk", lambda path: [(str(path), [], []), ("/gone", [], [])])
    assert observe.tasks(top) == 1


def told(monkeypatch: pytest.MonkeyPatch, status: int, out: str, error: str) -> None:
    """Let the process in the container's PID namespace end so."""
    done = CompletedProcess([], status, out, error)
    monkeypatch.setattr(observe, "run", lambda argv, **how: done)
    monkeypatch.setattr(observe, "leader_of", lambda main: 7)


def test_a_fault_of_ours_is_none_of_the_targets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told(monkeypatch, 1, "", "Traceback ...\nKeyError: 'x'\n")
    outcome = observe.attend(scene(tmp_path), ())
    assert outcome.impossible == "KeyError: 'x'"
    told(monkeypatch, 137, "", "")
    with pytest.raises(Over, match="PID 1 has ended"):
        observe.attend(scene(tmp_path), ())
    told(monkeypatch, 0, json.dumps({"troubles": {"a": "b"}, "failed": ["c"], "seconds": 2}), "")
    assert observe.attend(scene(tmp_path), ()) == Outcome({"a": "b"}, ("c",), 2)


def test_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    observe.check(scene(group(tmp_path / "a", memory_events="oom 1\noom_kill 0\n")))
    with pytest.raises(Over, match="memory"):
        observe.check(scene(group(tmp_path / "b", memory_events="oom 1\noom_kill 1\n")))
    monkeypatch.setattr(observe.facts, "available_memory", lambda: 1)
    with pytest.raises(Over, match="memory") as caught:
        observe.check(scene(tmp_path / "a"))
    assert caught.value.key == LIMIT


def test_one_that_has_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(observe.reap, "unit_of", lambda pid: "init.scope")
    with pytest.raises(Over) as caught:
        observe.check(scene(tmp_path))
    assert caught.value.key == INIT


def test_the_limit_is_that_of_the_unit() -> None:
    unit = Path(__file__).parents[2] / "units/issu-rehearsal@.service"
    assert f"TasksMax={observe.TASKS_MAX}" in unit.read_text().splitlines()


def test_a_scene_crosses_to_the_other_process(tmp_path: Path) -> None:
    told = Scene("u", 7, str(tmp_path), 1.5, 2.5)
    assert Scene(*json.loads(json.dumps(told))) == told


# --- what is not started --------------------------------------------------------------------------


def test_what_an_upgrade_does_not_start(tmp_path: Path) -> None:
    place = tmp_path / "etc/issu/conf.d/1.toml"
    place.parent.mkdir(parents=True)
    place.write_text('[arrive]\nskip = ["theirs.service"]\n')
    chosen = Settings(keep=("k.service",), skip=("s.service",), rehearse_skip=("r.service",))
    found = sandbox.unwanted(chosen, tmp_path)
    assert {"k.service", "s.service", "r.service", "theirs.service"} <= set(found)
    assert "networking.service" in found
    place.write_text("[nonsense]\n")
    assert "theirs.service" not in sandbox.unwanted(chosen, tmp_path)


def test_it_never_runs_in_the_machines_own_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "network", lambda process: "net:[1]")
    with pytest.raises(IssuError, match="network namespace"):
        sandbox.build(tmp_path, Settings())
