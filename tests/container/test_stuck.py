"""What will not stop is killed, and named; what cannot even be killed stops the upgrade."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from .element import (
    Element,
    active,
    assert_as_before,
    besides,
    element,
    write_settings,
    write_unit,
)

PAIRS = [("bookworm", "trixie"), ("trixie", "bookworm")]
TROUBLE = ("warn", "block")
# Ready only when the trap is set: a SIGTERM before it would end the shell.
DEAF = """
[Service]
Type=notify
NotifyAccess=all
ExecStart=/usr/bin/sh -c 'trap "" TERM; systemd-notify --ready; while :; do sleep 1000; done'
TimeoutStopSec=infinity
"""
DOCILE = "[Service]\nExecStart=/usr/bin/sleep infinity\nTimeoutStopSec=infinity\n"
HOLD = "/run/hold"
ONLY_HERE = ("deaf.service", "docile.service", "hydra.service")  # not in the new root
# Each command must be killed for itself: one every half second, for ten seconds.
HYDRA = (
    "[Service]\nExecStart=/usr/bin/sleep infinity\nTimeoutStopSec=infinity\n"
    + f"ExecStopPost=-/usr/bin/sh -c 'test ! -e {HOLD} || exec sleep infinity'\n" * 40
)


def troubles(report: dict[str, Any]) -> list[dict[str, str]]:
    return [f for f in besides(report, ONLY_HERE) if f["severity"] in TROUBLE]


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_ignores_sigterm(tmp_path: Path, source: str, target: str) -> None:
    """A unit, and a process outside any, that ignore SIGTERM for ever; a docile one of each."""

    def prepare(root: Path) -> None:
        write_unit(root, "deaf.service", DEAF)
        write_unit(root, "docile.service", DOCILE)
        write_settings(root, '[release]\nstop-timeout = "2s"\n')

    with element(tmp_path, source, target, in_source=prepare) as e:
        stray, meek = outsider(e, deaf=True), outsider(e, deaf=False)
        report = e.upgrade()
        assert report["result"] == "accepted", report
        assert e.machine.state() == "running"
        assert stray.wait(10) == -9
        assert meek.wait(10) == -15

        found = troubles(report)
        assert sorted(f["id"] for f in found) == ["killed", "stop-timeout"], found
        late = next(f for f in found if f["id"] == "stop-timeout")
        assert "deaf.service" in late["text"]
        assert "2 s" in late["text"]
        assert "stop-timeout" in late["way_out"]
        killed = next(f for f in found if f["id"] == "killed")
        assert killed["text"].startswith("deaf-stray[")
        assert "no unit" in killed["text"]
        assert "docile" not in str(found)
        phases = {p["name"]: p["end_usec"] - p["start_usec"] for p in report["phases"]}
        assert 4_000_000 < phases["release"] < 8_000_000  # both waits, and no other


def outsider(e: Element, *, deaf: bool) -> subprocess.Popen[str]:
    """A process in a session of its own that no unit knows."""
    name = "/run/deaf-stray" if deaf else "/run/meek-stray"
    e.machine.run(["cp", "/usr/bin/sleep", name])
    mark = f"{name}.ready"
    trap = "trap '' TERM; " if deaf else ""
    process = e.machine.popen(["sh", "-c", f"{trap}touch {mark}; exec {name} infinity"])
    e.machine.wait_for(lambda: e.machine.path(mark).exists(), 10, f"{name} runs")
    return process


def test_cannot_be_killed(tmp_path: Path) -> None:
    """The upgrade ends before the switch and everything comes back.

    On systemd 252 a kill ends one stop command and the next begins; 257 ends all of them at once,
    and nothing was found there that SIGKILL to a whole unit leaves.
    """

    def prepare(root: Path) -> None:
        write_unit(root, "hydra.service", HYDRA)
        write_unit(root, "docile.service", DOCILE)
        write_settings(root, '[release]\nstop-timeout = "2s"\n')

    with element(tmp_path, "bookworm", "trixie", in_source=prepare) as e:
        e.machine.systemctl("daemon-reload")  # PID 1 looks what is mounted
        before, units, ids = e.state(), active(e.machine), set(e.ids())
        boot_id = e.machine.boot_id()
        e.machine.path(HOLD).touch()
        status, printed = e.start()
        assert status == 0, printed
        flag = e.machine.path("/run/issu/in-progress")
        e.machine.wait_for(lambda: flag.stat().st_size == 0, 60, "the upgrade is given up")
        e.machine.path(HOLD).unlink()
        e.machine.systemctl("kill", "--signal=KILL", "hydra.service", check=False)

        report = e.wait_end(ids)
        assert report["result"] == "failed"
        assert report["error"].startswith("hydra.service did not stop"), report["error"]
        assert "docile" not in report["error"]
        assert [f["id"] for f in troubles(report)] == ["stop-timeout"], troubles(report)
        assert "hydra.service" in troubles(report)[0]["text"]
        assert "switch" not in [p["name"] for p in report["phases"]]

        e.machine.systemctl("reset-failed")
        assert_as_before(e, before, units)
        assert e.machine.boot_id() == boot_id

        report = e.upgrade()  # nothing holds it now
        assert report["result"] == "accepted", report
        assert troubles(report) == []
