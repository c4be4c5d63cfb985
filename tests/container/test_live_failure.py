"""Strategy live when a service does not come back: everything is back on the old root."""

from pathlib import Path
from typing import Any

import pytest

from tests.rig import traces

from .back import wait_back
from .element import Element, element, write_settings, write_unit
from .kinds import SLEEP
from .whole import check_accepted, check_of, invocations

PAIRS = [("bookworm", "trixie"), ("trixie", "bookworm")]
WORDS = "the frob is not there"
SETTINGS = '[switch]\nstrategy = "live"\n[live]\ntimeout = "4s"\n'
# What becomes of frail.service on the new root, and what the report says of it. A service of
# Type=simple counts as started as soon as its program runs.
DEATHS = {
    "fails": (f"Type=exec\nExecStartPre=/bin/sh -c 'echo {WORDS}; exit 3'\n", "it is failed"),
    "dies": (f"ExecStart=/bin/sh -c 'echo {WORDS}; exit 3'\n", "it is"),
    "hangs": (f"Type=notify\nExecStart=/bin/sh -c 'echo {WORDS}; exec sleep 1d'\n", "too long"),
    "loops": (f"Restart=always\nExecStart=/bin/sh -c 'echo {WORDS}; exit 3'\n", "it is"),
}


def frail(lines: str) -> str:
    """The unit, with a program that runs if `lines` names no other."""
    more = "" if "ExecStart=" in lines else f"ExecStart={SLEEP}\n"
    return f"[Unit]\nAfter=nginx.service\n[Service]\n{lines}{more}"


def in_source(root: Path) -> None:
    write_settings(root, SETTINGS)
    write_unit(root, "frail.service", frail(""))
    write_unit(root, "gone.service", f"[Service]\nExecStart={SLEEP}\n")


def in_target(root: Path) -> None:
    write_settings(root, SETTINGS)
    write_unit(root, "frail.service", frail(""))
    write_unit(root, "new.socket", "[Socket]\nListenStream=7913\nAccept=yes\n")
    write_unit(root, "new@.service", "[Service]\nExecStart=/bin/true\n", wanted_by="")


def change_frail(e: Element, lines: str) -> None:
    """Give the other root another frail.service."""
    script = 'mount "$0" /mnt; printf %s "$1" >/mnt/etc/systemd/system/frail.service; umount /mnt'
    e.machine.run(["sh", "-euc", script, e.target, frail(lines)])


def services(e: Element) -> set[str]:
    """What runs, listens or waits, without what comes and goes."""
    states = "--state=running,listening,waiting"
    listed = e.machine.systemctl("list-units", states, "--no-legend", "--plain")
    names = {line.split()[0] for line in listed.splitlines()}
    return {name for name in names if not name.startswith(("issu", "user@", "systemd-tmpfiles-c"))}


def check_rolled_back(e: Element, report: dict[str, Any], how: str) -> None:
    """The report says who did not come back, why, and what it said last."""
    assert report["result"] == "rolled-back", report
    assert "frail.service did not come back on the new root" in report["error"]
    assert how in report["error"]
    (finding,) = [f for f in report["findings"] if f["id"] == "did-not-come-back"]
    assert WORDS in finding["text"]
    names = [phase["name"] for phase in report["phases"]]
    assert names[names.index("switch") :] in (
        ["switch", "arrive", "roll-back"], ["switch", "arrive", "verify", "roll-back"],
    )  # fmt: skip
    assert report["phases"][-1]["end_usec"] > report["phases"][-1]["start_usec"]


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_a_service_does_not_come_back(source: str, target: str) -> None:
    with traces.workspace() as work, element(
        work, source, target, in_source=in_source, in_target=in_target
    ) as e:  # fmt: skip
        boot_id, before, ids = e.machine.boot_id(), services(e), invocations(e)
        for lines, how in DEATHS.values():
            change_frail(e, lines)
            known = set(e.ids())
            done = e.machine.run(["issu", "start", e.target], check=False, timeout=120)
            report = e.wait_end(known)
            assert done.returncode == 4, done.stdout + done.stderr
            assert "rolled back to the old root: frail.service" in done.stderr
            check_rolled_back(e, report, how)
            check_of(e, source, e.target)
            assert services(e) == before
            assert e.machine.boot_id() == boot_id
            # What never was to be restarted was not, going back included.
            now = invocations(e)
            assert now["systemd-tmpfiles-clean.timer"] == ids["systemd-tmpfiles-clean.timer"]
            assert now["nginx.service"] != ids["nginx.service"]

        change_frail(e, "")
        check_accepted(e, e.upgrade(), target)  # control
        assert e.machine.systemctl("is-active", "new.socket") == "active"


def test_the_old_root_is_not_at_hand(tmp_path: Path) -> None:
    """It is unmounted by somebody: the way back is another upgrade, and the report says why."""
    with element(tmp_path, in_source=in_source, in_target=in_target) as e:
        boot_id = e.machine.boot_id()
        lost = "ExecStartPre=/usr/bin/umount --lazy /sysroot\n"
        change_frail(e, f"Type=exec\n{lost}ExecStartPre=/usr/bin/false\n")
        known = set(e.ids())
        assert e.start()[0] == 0
        there, back = wait_back(e, known)
        assert there["result"] == "rolled-back"
        assert "frail.service did not come back on the new root" in there["error"]
        assert "; and /sysroot" in there["error"]
        assert (back["result"], back["strategy"]) == ("accepted", "live"), back
        assert back["way_back"]["of"] == there["id"]
        e.wait_quiet()
        check_of(e, "bookworm", e.target)
        assert e.machine.boot_id() == boot_id
        assert e.machine.systemctl("is-active", "frail.service") == "active"
