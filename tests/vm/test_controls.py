"""What the gates are for: each is taken away in turn, and its loss is seen.

The element has a vendor's unit that resets its ports by unloading and loading their driver. One
guest goes to and fro between its roots with strategy halt; what is spoilt last is spoilt for good.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.container.element import write_unit
from tests.rig import traces

from . import figures, network
from .guest import Guest, guest
from .test_continuity import MODULE, RATE, untouched

VENDOR = """\
[Unit]
Description=Resets the ports
Before=multi-user.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/sbin/vendor-nic reset
"""
STOP = "[Service]\nExecStop=/usr/local/sbin/vendor-nic stop\n"
PROGRAM = """\
#!/bin/sh -e
# Once the ports are in service (/run/armed), not when the guest boots.
[ -e /run/armed ] || exit 0
echo "$1" >>/run/resets
modprobe -r virtio_net
modprobe virtio_net
"""
KEEP = '[release]\nkeep = ["vendor-nic.service"]\n'
SKIP = '[arrive]\nskip = ["vendor-nic.service"]\n'
SYSCTL = SKIP + "sysctl = true\n"
MARTIANS = "net.ipv4.conf.all.log_martians"
STOP_PLACE = "/run/systemd/system/vendor-nic.service.d"
MOUNTED = "mount {disk} /mnt && {{ {script}; }}; umount /mnt"
UNGATE = "rm -v /mnt/usr/lib/systemd/system/*.d/50-issu.conf"
UNSET = "rm -v /mnt/etc/issu/conf.d/50-test.toml"
UNHOLD = "rm -v /usr/lib/issu/hold/nftables.service.conf"


def vendor(top: Path) -> None:
    """The vendor's unit, and in Debian 13 a setting that an upgrade does not apply by itself."""
    write_unit(top, "vendor-nic.service", VENDOR)
    program = top / "usr/local/sbin/vendor-nic"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    if (top / "etc/issu-root").read_text().strip() == "trixie":
        (top / "etc/sysctl.d/95-other.conf").write_text(f"{MARTIANS}=1\n")


@pytest.fixture(scope="module")
def element() -> Iterator[Guest]:
    setup = [network.ifupdown, vendor]
    with (
        traces.workspace() as work,
        guest(work, ("bookworm", "trixie"), customize=setup) as g,
    ):
        g.run(f"rmmod {MODULE}; touch /run/armed")
        yield g


def upgrade(g: Guest, settings: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """One upgrade by halt under traffic."""
    g.configure(settings)
    with g.traffic(RATE, 7777) as seen:
        report = g.upgrade()
        g.run("until systemctl is-active --quiet version-echo; do sleep 0.1; done")
    return report, seen


def what(report: dict[str, Any]) -> set[str]:
    """The kinds of state that differ."""
    return {found["what"] for found in report["continuity"]["differences"]}


def test_keep_protects_a_port_from_stop_and_start(element: Guest) -> None:
    element.run(f"mkdir -p {STOP_PLACE}; cat >{STOP_PLACE}/stop.conf <<'EOF'\n{STOP}\nEOF")
    element.run("systemctl daemon-reload; rm -f /run/resets")
    report, seen = upgrade(element, KEEP)
    untouched(element, report, seen)
    assert "No such file" in element.run("cat /run/resets", check=False)
    element.run(f"rm -r {STOP_PLACE}; systemctl daemon-reload")


def test_skip_protects_a_port_from_the_start(element: Guest) -> None:
    report, seen = upgrade(element, SKIP)
    untouched(element, report, seen)
    assert "No such file" in element.run("cat /run/resets", check=False)


def test_without_the_hold_of_nftables_the_firewall_opens(element: Guest) -> None:
    element.run(UNHOLD)
    assert element.run(f"sysctl -n {MARTIANS}").strip() == "0"  # it was on Debian 13 before
    report, seen = upgrade(element, SYSCTL)
    assert report["result"] == "accepted", report["error"]
    assert figures.leaked(seen) > 0
    assert what(report) == {"nftables", "sysctl"}
    assert element.run(f"sysctl -n {MARTIANS}").strip() == "1"  # as [arrive] sysctl says
    assert figures.lost(seen) == 0  # and nothing else


def test_without_the_gating_events_are_replayed_and_modules_loaded(element: Guest) -> None:
    element.run(MOUNTED.format(disk=element.other(), script=UNGATE))
    assert MODULE not in element.modules()
    report, _ = upgrade(element, SKIP)
    assert report["result"] == "accepted", report["error"]
    assert MODULE in element.modules()
    assert "module" in what(report)
    assert len(report["uevents"]["forbidden"]) > 100
    assert {"uevent"} <= {finding["id"] for finding in report["findings"]}


def test_without_keep_and_skip_the_port_is_reset_and_packets_are_lost(element: Guest) -> None:
    # The new root's own [arrive] skip counts too.
    element.run(MOUNTED.format(disk=element.other(), script=UNSET))
    report, seen = upgrade(element, "")
    assert report["result"] == "accepted", report["error"]
    assert "reset" in element.run("cat /run/resets")
    assert figures.lost(seen) > 0
    assert {"module", "driver", "network-device"} <= what(report)
    actions = {(e["action"], e["device"]) for e in report["uevents"]["forbidden"]}
    assert ("remove", "/module/virtio_net") in actions
    changed = [d for d in report["continuity"]["differences"] if d["what"] == "network-device"]
    assert {d["name"] for d in changed} >= set(network.PORTS)
