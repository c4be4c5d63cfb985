"""What is looked at when an upgrade has come back to the old root by an upgrade to it."""

from pathlib import Path
from typing import Any

from .element import UPGRADE_SEC, Element
from .whole import check_traces, suite

SERVICES = ("nginx.service", "dnsmasq.service", "version-echo.service")
RUNS = ("record.json", "way-back.json")
Reports = tuple[dict[str, Any], dict[str, Any]]


def change_target(e: Element, files: dict[str, str]) -> None:
    """Write files into the other root; those below verify.d can be executed, "" removes one."""
    for name, text in files.items():
        script = """
            mount "$0" /mnt; mkdir -p "$(dirname "/mnt$1")"
            if [ "$2" ]; then printf %s "$2" >"/mnt$1"; else rm -f "/mnt$1"; fi
            case $1 in */verify.d/*) test ! -e "/mnt$1" || chmod 755 "/mnt$1";; esac
            umount /mnt
        """
        e.machine.run(["sh", "-euc", script, e.target, name, text])


def wait_back(e: Element, before: set[str]) -> Reports:
    """Wait until two upgrades have ended, there and back; the reports of both, in that order."""

    def over() -> list[str] | None:
        runs = [name for name in RUNS if e.machine.path(f"/run/issu/{name}").exists()]
        fresh = sorted(set(e.ids()) - before)
        return fresh if not runs and len(fresh) == 2 else None

    there, back = e.machine.wait_for(over, UPGRADE_SEC, "the upgrade has come back")
    e.machine.wait_running(60)
    return e.report(there), e.report(back)


def check_back(e: Element, reports: Reports, source: str, reason: str) -> None:
    """Everything is as it was on the old root, and both histories say what was, and why."""
    there, back = reports
    assert there["result"] == "rolled-back", there
    assert reason in there["error"], there["error"]
    assert there["phases"][-1]["name"] == "roll-back"
    assert back["result"] == "accepted", back["error"]
    assert back["way_back"] == {"of": there["id"], "reason": there["error"], "reboot": True}
    assert suite(e) == source
    assert e.machine.run(["findmnt", "-no", "SOURCE", "/"]).stdout.strip() == e.source
    for unit in SERVICES:
        assert e.machine.systemctl("is-active", unit) == "active"
    assert e.machine.state() == "running", e.machine.systemctl("--failed")
    e.wait_quiet()
    check_traces(e)
    look = 'mount -o ro "$0" /mnt; cat "/mnt/var/lib/issu/history/$1.json"; umount /mnt'
    assert there["error"] in e.machine.run(["sh", "-euc", look, e.target, there["id"]]).stdout
    verdict, up = back["steps"]["verdict_usec"], back["outage_end_usec"]
    print(f"{reason}: {(up - verdict) / 1e6:.2f} s from the verdict until the services were back")
    assert 0 < up - verdict < 60_000_000


def history_of(image_root: Path) -> list[str]:
    """The texts of the reports in a root that is mounted."""
    place = image_root / "var/lib/issu/history"
    return [path.read_text() for path in sorted(place.glob("*.json"))]
