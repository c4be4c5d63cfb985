"""`issu plan`: it says what the upgrade then does, and changes nothing."""

import json
from pathlib import Path
from typing import Any

from tests.rig import traces

from .element import Element, changes, element, row, write_settings, write_unit

KEEP = '[release]\nkeep = ["keep.service"]\n[switch]\nstrategy = "{}"\n'
ONCE = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n"
SLEEP = "[Service]\nExecStart=/bin/sleep infinity\n"


def planned(e: Element, *words: str) -> dict[str, Any]:
    """What `issu plan --json` says; the plan and the hash."""
    done = e.machine.run(["issu", "plan", e.target, "--json", *words])
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def of(document: dict[str, Any], unit: str) -> str:
    """The action planned for a unit, "" if none."""
    return next((u["action"] for u in document["units"] if u["unit"] == unit), "")


def fit_out(root: Path) -> None:
    write_unit(root, "keep.service", ONCE)
    write_unit(root, "sleep.service", SLEEP)
    write_settings(root, KEEP.format("live"))


def in_source(root: Path) -> None:
    fit_out(root)
    write_unit(root, "old.service", SLEEP)


def in_target(root: Path) -> None:
    fit_out(root)
    write_unit(root, "new.service", SLEEP)


def test_the_upgrade_does_what_the_plan_says() -> None:
    with traces.workspace() as work, element(
        work, in_source=in_source, in_target=in_target
    ) as e:  # fmt: skip
        before = e.state()
        halt, live = planned(e, "--strategy", "halt"), planned(e)
        told = e.machine.run(["issu", "plan", e.target]).stdout
        assert changes(before, e.state()) == []
        assert (halt["strategy"], live["strategy"]) == ("halt", "live")
        assert halt["sha256"] != live["sha256"]
        assert live["sha256"] in told
        for document in (halt, live):
            assert of(document, "sleep.service") == "restarted"
            assert of(document, "old.service") == "gone"
            assert of(document, "new.service") == "new"
            assert of(document, "keep.service") == "kept"
        assert of(halt, "dbus.socket") == "restarted"
        assert of(live, "dbus.socket") == "reloaded"

        report = e.upgrade()
        assert report["plan"] == {"sha256": live["sha256"], "differences": []}
        for unit in ("sleep.service", "old.service", "new.service", "keep.service"):
            assert row(report, unit).get("action") == of(live, unit), (unit, report)

        again = e.machine.run(["issu", "plan", "/dev/null"], check=False)
        assert again.returncode == 3
        assert "/dev/null" in again.stderr
        user = ["setpriv", "--reuid=65534", "issu", "plan", e.source]
        assert e.machine.run(user, check=False).returncode == 5


def test_what_went_otherwise_is_told() -> None:
    """Negative control: a unit to be restarted that is stopped behind the back of the upgrade."""

    def sabotage(root: Path) -> None:
        in_source(root)
        write_settings(root, KEEP.format("halt"))

    def disobey(root: Path) -> None:
        in_target(root)
        late = ONCE.replace("/bin/true", "/usr/bin/systemctl stop sleep.service")
        write_unit(root, "late.service", f"[Unit]\nAfter=sleep.service\n{late}")

    with traces.workspace() as work, element(
        work, in_source=sabotage, in_target=disobey
    ) as e:  # fmt: skip
        report = e.upgrade()
    assert any("sleep.service was to be" in said for said in report["plan"]["differences"])
