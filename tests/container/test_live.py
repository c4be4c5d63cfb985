"""Strategy live between every pair of releases, with units of every kind."""

from pathlib import Path

import pytest

from tests.rig import traces

from . import kinds
from .element import Element, element, row, write_settings
from .whole import check_accepted, check_kept, invocations

PAIRS = [(a, b) for a in ("bookworm", "trixie") for b in ("bookworm", "trixie")]
PACKAGE = "usr/lib/python3/dist-packages/issu_systemd"


def main_pids(e: Element) -> dict[str, str]:
    """The main process of each service."""
    return {u: e.machine.systemctl("show", "-P", "MainPID", u) for u in kinds.RESTARTED}


def user_runs(e: Element) -> bool:
    """Whether the service of the lingering user runs."""
    return e.machine.run(["pgrep", "-u", "1500", "-x", "sleep"], check=False).returncode == 0


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_live(source: str, target: str) -> None:
    with traces.workspace() as work, element(
        work, source, target, in_source=kinds.in_source, in_target=kinds.in_target
    ) as e:  # fmt: skip
        e.machine.wait_for(lambda: user_runs(e), 30, "the lingering user's service runs")
        boot_id, ids, pids = e.machine.boot_id(), invocations(e), main_pids(e)
        report = e.upgrade()
        check_accepted(e, report, target)
        assert e.machine.boot_id() == boot_id
        now, pids_now = invocations(e), main_pids(e)

        for unit in kinds.RESTARTED:
            assert row(report, unit)["action"] == "restarted", unit
            assert now[unit] != ids[unit], unit
            assert pids_now[unit] != pids[unit], unit
        check_kept(report, ids, now)
        for unit in kinds.KEPT:
            assert now[unit] == ids[unit] != "", unit
        for unit in kinds.GONE:
            assert row(report, unit)["action"] == "gone"
            assert e.machine.systemctl("is-active", unit, check=False) == "inactive"
        assert row(report, "new.service")["action"] == "new"
        assert e.machine.systemctl("is-active", "new.service") == "active"
        check_stopped(e)
        check_kinds(e)


def check_stopped(e: Element) -> None:
    """What the new root does not have was stopped as its own file says."""
    assert e.machine.path("/run/old-has-stopped").exists(), "old-has-stopped"


def check_kinds(e: Element) -> None:
    """Each kind of unit does what it is there for."""
    run = e.machine.run
    assert e.machine.path("/run/once").read_text() == "Start\n"
    assert run(["pgrep", "-f", "-x", "/bin/sleep 1000002"]).stdout
    assert run(["pgrep", "-f", "-x", "/bin/sleep 1000001"], check=False).stdout == ""
    limits = e.machine.systemctl("show", "--property=MemoryMax,TasksMax", "limited.slice")
    assert sorted(limits.splitlines()) == [f"MemoryMax={64 << 20}", "TasksMax=50"]
    inside = "/sys/fs/cgroup/limited.slice/limited.service/cgroup.procs"
    assert e.machine.path(inside).read_text().split()
    assert e.machine.systemctl("show", "-P", "NextElapseUSecMonotonic", "tick.timer")
    e.machine.path("/run/watched").touch()
    e.machine.wait_for(e.machine.path("/run/hit").exists, 20, "the path unit triggers")
    assert user_runs(e)
    assert "org.example.Test" in run(["busctl", "--system", "list"]).stdout
    private = e.machine.systemctl("show", "-P", "MainPID", "private.service")
    assert e.machine.path(f"/proc/{private}/mountinfo").read_text().count("systemd-private-") > 0


def late_stop(root: Path) -> None:
    """As the old root, but with an agent that stops what is gone only after the re-execution."""
    kinds.in_source(root)
    place = root / PACKAGE / "live.py"
    text = place.read_text()
    stop = (
        "    for unit in stop(manager, going(story), timeout_sec):\n"
        "        release.tell_killed(story, unit, timeout_sec)\n"
    )
    after = "        new.start(ARRIVE)\n"
    assert text.count(stop) == text.count(after) == 1
    late = f"        stop(new, going(story), timeout_sec)\n{after}"
    place.write_text(text.replace(stop, "").replace(after, late))


def test_what_goes_must_stop_before_the_re_execution() -> None:
    """Negative control: in the other order PID 1 no longer knows how to stop it."""
    with traces.workspace() as work, element(
        work, "bookworm", "trixie", in_source=late_stop, in_target=kinds.in_target
    ) as e:  # fmt: skip
        report = e.upgrade()
        assert report["result"] == "accepted"
        with pytest.raises(AssertionError, match="old-has-stopped"):
            check_stopped(e)


def test_after_the_other_strategy(tmp_path: Path) -> None:
    """A soft-reboot leaves another propagation of mounts behind; the old root gets free none the
    less, although services with mount namespaces of their own start while it is still mounted."""
    with element(tmp_path, "trixie", "trixie") as e:
        for strategy in ("halt", "live"):
            write_settings(e.machine.path("/"), f'[switch]\nstrategy = "{strategy}"\n')
            report = e.upgrade(e.target if strategy == "halt" else e.source)
            assert report["result"] == "accepted"
        assert row(report, "systemd-logind.service")["action"] == "restarted"
        check_accepted(e, report, "trixie")
