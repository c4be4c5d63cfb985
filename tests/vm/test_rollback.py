"""A new root that is not healthy, on a real kernel: back on the old one, and no packet is lost.

The element has a vendor's unit (see test_controls.py) that would reset its ports on the way back:
the program that refuses the new root arms it.
"""

import json
from typing import Any

import pytest

from tests.rig import traces

from . import figures, network
from .guest import UPGRADE_SEC, Guest, guest
from .test_continuity import MODULE, RATE, TCP_PORT, no_loss_without_an_upgrade
from .test_controls import MOUNTED, SKIP, UNSET, vendor

# Live does the same whatever the releases are, halt goes by another mechanism from each.
PAIRS = [("trixie", "bookworm", ("halt", "live")), ("bookworm", "bookworm", ("halt",))]
PROGRAM = "/etc/issu/verify.d/50-look"
REASON = f"{PROGRAM} ended with 1: no neighbour is up"
REFUSE = f"""\
mkdir -p $(dirname /mnt{PROGRAM})
printf '#!/bin/sh\\ntouch /run/armed\\necho no neighbour is up\\nexit 1\\n' >/mnt{PROGRAM}
chmod 755 /mnt{PROGRAM}"""
SERVICES = "nginx.service dnsmasq.service version-echo.service nftables.service"
COME_BACK = "while [ -e /run/issu/record.json -o -e /run/issu/way-back.json ]; do sleep 0.2; done"
SERVED = "until systemctl is-active --quiet version-echo; do sleep 0.1; done"
BOOT_ID = "cat /proc/sys/kernel/random/boot_id"
HISTORY = "/var/lib/issu/history"
Reports = list[dict[str, Any]]


def ids(g: Guest) -> set[str]:
    """The reports in the history of the root that runs."""
    return set(g.run(f"ls {HISTORY} 2>/dev/null || true").split())


def go_and_come_back(g: Guest) -> tuple[Reports, figures.Seen]:
    """Upgrade under traffic to a root that is refused there; the reports, and what was seen."""
    known = ids(g)
    with g.traffic(RATE, TCP_PORT) as seen:
        out = g.run(f"systemctl start --no-block issu@{g.other()}; true")
        try:
            for _ in ("there", "back"):  # the line's own service starts in each root
                g.root = g.channel.hello(UPGRADE_SEC)
        except Exception:
            raise AssertionError(f"{out}\n{g.tail()}") from None
        g.run(COME_BACK, UPGRADE_SEC)
        g.run(SERVED)
    fresh = sorted(ids(g) - known)
    return [json.loads(g.run(f"cat {HISTORY}/{name}")) for name in fresh], seen


def check_there(report: dict[str, Any]) -> None:
    """The upgrade itself has ended as rolled-back, for the reason that the program gave."""
    assert report["result"] == "rolled-back", report["error"]
    assert report["error"] == REASON
    assert report["phases"][-1]["name"] == "roll-back"


def check_lossless(g: Guest, reports: Reports, seen: figures.Seen) -> None:
    """The kernel is as it was, and nothing was lost, there and back."""
    for report in reports:
        assert report["continuity"]["differences"] == []
        assert report["uevents"]["forbidden"] == [] and not report["uevents"]["lost"]
    assert figures.lost(seen) == 0, seen["flows"]
    assert figures.leaked(seen) == 0, seen["flows"]
    assert figures.sent(seen) > RATE and figures.duplicates(seen) == 0
    assert seen["tcp"]["up"] > 0
    assert "No such file" in g.run("cat /run/resets", check=False)


def from_the_verdict(reports: Reports) -> float:
    """Seconds from the verdict until the services were back on the old root."""
    *there, last = reports
    if there:
        begin, end = last["steps"]["verdict_usec"], last["outage_end_usec"]
    else:
        begin = last["phases"][-1]["start_usec"]
        end = max(unit["started_usec"] or 0 for unit in last["units"])
    assert begin < end
    return float(end - begin) / 1e6


def roll_back(g: Guest, strategy: str) -> None:
    """One upgrade that comes back, with all that must hold of it; its figures are printed."""
    g.configure(f'[switch]\nstrategy = "{strategy}"\n{SKIP}')
    g.run("rm -f /run/armed /run/resets")
    source, modules, boot = g.here(), g.modules(), g.run(BOOT_ID)
    reports, seen = go_and_come_back(g)
    check_there(reports[0])
    assert [report["strategy"] for report in reports] == [strategy] * len(reports)
    if strategy == "halt":  # the old root was let go: one more upgrade, to it
        there, back = reports
        assert back["result"] == "accepted", back["error"]
        assert back["way_back"] == {"of": there["id"], "reason": there["error"], "reboot": True}
    else:
        assert len(reports) == 1
    assert g.here() == source and g.run(BOOT_ID) == boot
    assert g.modules() == modules and MODULE not in modules
    g.run("test -e /run/armed")  # or the port could not have been reset
    check_lossless(g, reports, seen)
    assert g.run(f"systemctl is-active {SERVICES}").split() == ["active"] * 4
    assert g.run("systemctl is-system-running --wait").strip() == "running"
    print(
        f"{reports[0]['source']['version']} to {reports[0]['target']['version']} and back, "
        f"{strategy}: {from_the_verdict(reports):.2f} s from the verdict until the services were "
        f"back; {figures.lost(seen)} of {figures.sent(seen)} frames lost; a TCP service was away "
        f"for {seen['tcp']['longest_gap'] / 1e6:.2f} s at the longest"
    )


def without_skip_the_way_back_loses(g: Guest) -> None:
    """Negative control: the port is reset when the old root starts again, and only then."""
    g.configure("")
    g.run(MOUNTED.format(disk=g.other(), script=UNSET))
    g.run("rm -f /run/armed /run/resets")
    (there, back), seen = go_and_come_back(g)
    check_there(there)
    assert there["uevents"]["forbidden"] == []
    assert back["result"] == "accepted", back["error"]
    assert ("remove", "/module/virtio_net") in {
        (event["action"], event["device"]) for event in back["uevents"]["forbidden"]
    }
    assert g.run("cat /run/resets") == "reset\n"
    assert figures.lost(seen) > 0


@pytest.mark.parametrize(("source", "target", "strategies"), PAIRS)
def test_back_without_a_loss(source: str, target: str, strategies: tuple[str, ...]) -> None:
    with (
        traces.workspace() as work,
        guest(work, (source, target), settings=SKIP, customize=[network.ifupdown, vendor]) as g,
    ):
        g.run(f"rmmod {MODULE}")
        no_loss_without_an_upgrade(g)
        g.run(MOUNTED.format(disk=g.other(), script=REFUSE))
        for strategy in strategies:
            roll_back(g, strategy)
        if source == target:
            without_skip_the_way_back_loses(g)
