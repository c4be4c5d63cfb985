"""Manual acceptance: a healthy new root waits for a word, and goes back without one."""

import json
from pathlib import Path
from typing import Any

import pytest

from .back import check_back, wait_back
from .element import Element, element, shown
from .whole import check_traces, suite

ARRIVE = "issu-arrive.service"
PAIRS = [("bookworm", "trixie"), ("trixie", "bookworm")]


def manual(timeout: str, more: str = "") -> str:
    return f'[accept]\nmode = "manual"\ntimeout = "{timeout}"\n{more}'


def set_here(e: Element, text: str) -> None:
    """Change the settings of the running root."""
    e.machine.path("/etc/issu/conf.d").mkdir(parents=True, exist_ok=True)
    e.machine.path("/etc/issu/conf.d/50-test.toml").write_text(text)


def wait_waiting(e: Element) -> dict[str, Any]:
    """Wait until the upgrade waits to be accepted; its state."""

    def waits() -> dict[str, Any] | None:
        told = e.machine.run(["issu", "status", "--json"], check=False).stdout
        found: dict[str, Any] = json.loads(told or "{}")
        return found if found.get("accept_deadline_usec") and not found["result"] else None

    return e.machine.wait_for(waits, 120, "the upgrade waits")


def begin(e: Element) -> set[str]:
    """Start an upgrade; the reports that there were."""
    known = set(e.ids())
    assert e.start()[0] == 0
    return known


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_halt(tmp_path: Path, source: str, target: str) -> None:
    """Not accepted, taken back, accepted though its waiting was killed, and taken back later."""
    with element(tmp_path, source, target) as e:
        boot_id = e.machine.boot_id()
        assert e.machine.run(["issu", "accept"], check=False).returncode == 1  # nothing waits
        assert e.machine.run(["issu", "rollback"], check=False).returncode == 1  # nor ever did

        set_here(e, manual("3s"))
        known = begin(e)
        check_back(e, wait_back(e, known), source, "not accepted within 3 s")

        set_here(e, manual("45min"))
        known = begin(e)
        wait_waiting(e)
        assert suite(e) == target
        assert e.machine.state() == "running"
        e.machine.run(["mount", "-o", "ro", e.source, "/mnt"])
        e.machine.wait_for(
            lambda: "old-root-used" in str(wait_waiting(e)["findings"]), 20, "the mount is told"
        )
        e.machine.run(["issu", "rollback"])
        check_back(e, wait_back(e, known), source, "asked for by the operator")

        known = begin(e)
        deadline = wait_waiting(e)["accept_deadline_usec"]
        line = e.machine.run(["issu", "status"]).stdout
        assert "waits for `issu accept` until " in line
        assert f"(in 44 min), else goes back to {e.source}" in line
        assert e.machine.path("/run/issu/in-progress").exists()
        assert shown(e.machine, ARRIVE, "ActiveState") == "active"
        status, printed = e.start(e.source)  # meanwhile there is no other upgrade
        assert status != 0, printed
        e.machine.systemctl("reset-failed")
        e.machine.systemctl("kill", "--kill-whom=main", "--signal=KILL", ARRIVE)
        e.machine.wait_for(
            lambda: shown(e.machine, ARRIVE, "NRestarts") == "1"
            and shown(e.machine, ARRIVE, "StatusText") == "waiting for `issu accept`",
            20, "it was started again",
        )  # fmt: skip
        assert wait_waiting(e)["accept_deadline_usec"] == deadline
        known = set(e.ids())
        e.machine.run(["issu", "accept"])
        report = e.wait_end(known)
        assert (report["result"], report["accept_deadline_usec"]) == ("accepted", deadline)
        assert report["way_back"] is None
        assert suite(e) == target
        e.wait_quiet()
        check_traces(e)

        known = set(e.ids())
        e.machine.run(["issu", "rollback"])
        back = e.wait_end(known)
        assert back["result"] == "accepted", back["error"]
        reason = "asked for by the operator"
        assert back["way_back"] == {"of": report["id"], "reason": reason, "reboot": False}
        assert suite(e) == source
        assert e.machine.boot_id() == boot_id


def test_live(tmp_path: Path) -> None:
    """The old root was let go, though somebody still stands on it: whoever does is ended."""
    live = '[switch]\nstrategy = "live"\n'
    with element(tmp_path, "bookworm", "trixie") as e:
        boot_id = e.machine.boot_id()
        set_here(e, manual("45min", live))
        stays = e.machine.popen(["sleep", "infinity"])
        known = begin(e)
        found = wait_waiting(e)
        assert "old-root-pinned" in str(found["findings"])
        assert stays.poll() is None
        e.machine.run(["issu", "rollback"])
        check_back(e, wait_back(e, known), "bookworm", "asked for by the operator")
        assert stays.wait(10) == -15

        known = begin(e)
        wait_waiting(e)
        e.machine.run(["mount", "--bind", "/usr/share/doc", "/srv"])  # live would refuse
        e.machine.run(["issu", "rollback"])
        reports = wait_back(e, known)
        check_back(e, reports, "bookworm", "asked for by the operator")
        assert [report["strategy"] for report in reports] == ["live", "halt"]
        assert "/srv is mounted" in str(reports[1]["findings"])
        assert e.machine.boot_id() == boot_id

        known = begin(e)
        wait_waiting(e)
        e.machine.run(["issu", "accept"])
        assert e.wait_end(known)["result"] == "accepted"  # control
