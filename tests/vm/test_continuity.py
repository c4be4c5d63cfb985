"""On a real kernel, with packets going through: what must hold of an upgrade, there and back.

Every guest boots once and goes to the other root with halt, and back with live. Meanwhile the dead
man's switch is armed; what it does is in test_watchdog.py.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.container.element import write_unit
from tests.rig import traces

from . import figures, kernel, network
from .guest import BUSY, Guest, guest

RATE = 240.0  # frames a second; that the guest carries as many is shown first
TCP_PORT = 7777  # version-echo
MODULE = "serio_raw"  # autoloaded by coldplug in this guest, used by nobody
KINDS = {
    "module", "driver", "network-device", "statistics", "sysctl", "mount", "link", "address",
    "route", "nexthop", "rule", "neighbour", "vlan", "nftables",
}  # fmt: skip
UNMOUNTED = "dmesg | grep -c 'EXT4-fs ({name}): unmounting filesystem' || true"
FREE = "python3 -c 'import os, sys; os.close(os.open(sys.argv[1], os.O_RDWR | os.O_EXCL))' {disk}"
DOG = "modprobe i6300esb || modprobe softdog"  # Debian 12 has no driver for the hardware
DOG_STATE = "cd /sys/class/watchdog/watchdog0; cat identity state timeout"
DOG_SETTING = 'watchdog = "90s"'  # no default of either
HANDED_ON = "dmesg | grep -c 'watchdog did not stop' || true"  # closed by the agent, and it runs
INVOCATIONS = "systemctl show --value --property=InvocationID dbus.socket limited.slice"
LIMITS = "cat /sys/fs/cgroup/limited.slice/memory.max /sys/fs/cgroup/limited.slice/pids.max"


def limited(top: Path) -> None:
    """A slice with limits, and something in it."""
    write_unit(top, "limited.slice", "[Slice]\nMemoryMax=64M\nTasksMax=50\n", wanted_by="")
    text = "[Service]\nSlice=limited.slice\nExecStart=/bin/sleep infinity\n"
    write_unit(top, "limited.service", text)


def other_kernel(top: Path) -> None:
    """The modules of Debian 13's kernel, as if it were installed."""
    modules = kernel.tree("trixie") / "lib/modules"
    for place in modules.iterdir():
        target = top / "usr/lib/modules" / place.name
        target.mkdir(parents=True)
        for name in ("modules.dep", "modules.dep.bin", "modules.alias.bin"):
            (target / name).write_bytes((place / name).read_bytes())


def without_modules(top: Path) -> None:
    """Debian 13 without the modules of Debian 12's kernel, which runs."""
    if (top / "etc/issu-root").read_text().strip() == "trixie":
        shutil.rmtree(top / "usr/lib/modules" / kernel.release(kernel.tree("bookworm")))


def refused_without_modules(g: Guest) -> None:
    """The running kernel has no modules there: that is said before anything is touched."""
    g.configure("")
    assert "failed" in g.run(f"systemctl start issu@{g.other()} 2>&1", check=False)
    report = json.loads(g.run("issu report --json"))
    assert report["result"] == "refused"
    assert [f["id"] for f in report["findings"] if f["severity"] == "block"] == ["modules"]


def no_loss_without_an_upgrade(g: Guest) -> None:
    """The tester and the guest lose nothing by themselves, both processors being busy."""
    with g.traffic(RATE) as seen:
        g.run(BUSY)
    assert figures.lost(seen) == 0 and figures.sent(seen) > RATE, seen["flows"]


def upgrade(g: Guest, strategy: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """One upgrade under traffic: the report, and what the tester saw."""
    g.configure(f'[switch]\nstrategy = "{strategy}"\n{DOG_SETTING}\n[stage]\nmodules = "bind"\n')
    with g.traffic(RATE, TCP_PORT) as seen:
        report = g.upgrade()
        g.run("until systemctl is-active --quiet version-echo; do sleep 0.1; done")
    return report, seen


def untouched(g: Guest, report: dict[str, Any], seen: dict[str, Any]) -> None:
    """What must hold after every gated upgrade."""
    assert report["result"] == "accepted", report["error"]
    assert report["continuity"]["differences"] == []
    assert {*report["continuity"]["read"]} == {"boot_id", *KINDS}
    assert report["uevents"]["forbidden"] == [] and not report["uevents"]["lost"]
    assert report["uevents"]["devices"] > 100
    assert report["plan"]["differences"] == []
    assert "old-root-free" in [finding["id"] for finding in report["findings"]], report["findings"]
    assert figures.lost(seen) == 0, seen["flows"]
    assert figures.leaked(seen) == 0, seen["flows"]
    assert figures.sent(seen) > RATE and figures.duplicates(seen) == 0
    assert seen["tcp"]["up"] > 0  # and so the gap in it is one
    assert g.run("systemctl is-system-running --wait").strip() == "running"


@pytest.mark.parametrize(
    ("kernel_of", "variant", "partitions"),
    [
        ("bookworm", "networkd", False), ("bookworm", "ifupdown", True),
        ("trixie", "networkd", True), ("trixie", "ifupdown", False),
    ],
)  # fmt: skip
def test_kernel_is_untouched_and_no_packet_lost(
    kernel_of: str, variant: str, partitions: bool
) -> None:
    setup = [network.VARIANTS[variant], limited]
    lacks = (kernel_of, variant) == ("bookworm", "ifupdown")
    if kernel_of == "bookworm":
        setup.append(other_kernel)
    if lacks:
        setup.append(without_modules)
    with (
        traces.workspace() as work,
        guest(
            work, ("bookworm", "trixie"), kernel_of=kernel_of, customize=setup,
            partitions=partitions,
        ) as g,
    ):  # fmt: skip
        g.run(f"rmmod {MODULE}")
        g.run(DOG)
        dog = g.run(DOG_STATE)
        assert "inactive" in dog
        no_loss_without_an_upgrade(g)
        if lacks:
            refused_without_modules(g)
        boot = g.run("cat /proc/sys/kernel/random/boot_id")
        for strategy, root in (("halt", "trixie"), ("live", "bookworm")):
            source, modules = g.here(), g.modules()
            invocations = g.run(INVOCATIONS)
            unmounted = UNMOUNTED.format(name=Path(source).name)
            before, handed_on = int(g.run(unmounted)), int(g.run(HANDED_ON))
            report, seen = upgrade(g, strategy)
            assert g.root == root and report["strategy"] == strategy
            untouched(g, report, seen)
            assert g.modules() == modules and MODULE not in modules
            assert (g.run(DOG_STATE), int(g.run(HANDED_ON))) == (dog, handed_on + 1)
            assert g.run("cat /proc/sys/kernel/random/boot_id") == boot
            # A socket and a slice stay as they are in PID 1; the limits of cgroups are in force.
            assert (g.run(INVOCATIONS) == invocations) == (strategy == "live")
            assert g.run(LIMITS).split() == [str(64 << 20), "50"]
            assert int(g.run(unmounted)) > before  # again when it was told of the end
            waits = [f["text"] for f in report["findings"] if f["id"] == "kernel-waits"]
            assert bool(waits) == (kernel_of == "bookworm"), report["findings"]
        # The disk of the root that was left can be taken and formatted anew.
        left = g.other()
        g.run(FREE.format(disk=left))
        g.run(f"mkfs.ext4 -q -F {left}")
        assert "busy" in g.run(FREE.format(disk=g.here()), check=False)
