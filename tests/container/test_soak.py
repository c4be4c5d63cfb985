"""Upgrades to and fro in one machine, strategies in turn, under load: all is well, nothing grows.

`make soak` has a hundred of them. Everybody who is connected meanwhile lives through a live one.
"""

import json
import random
from pathlib import Path
from typing import Any

from issu_systemd import oldroot
from tests.rig import sh
from tests.rig.probe import Probe
from tests.rig.services import Tcp

from . import growth
from .clients import OFFERED, PLAIN, connection, offer_sockets, talk
from .element import PASSING, Element, element, write_settings
from .whole import check_traces

SLOW_SEC = 5.0  # a connection waits in the socket while its service is restarted
FIELDS = {
    *("schema", "id", "result", "mechanism", "strategy", "source", "target", "phases"),
    *("outage_usec", "units", "continuity", "findings", "error"),
    *("t1_usec", "t2_usec", "t3_usec", "t4_usec"),
}
SIDE = {"device", "fstype", "os", "version", "systemd"}
UNIT = {"unit", "stopped_usec", "started_usec", "outage_usec", "action"}
PHASES = ["preflight", "stage", "release", "switch", "arrive", "verify", "accept"]
ACTIONS = {"kept", "restarted", "skipped", "new", "gone"}
SUITES = {
    "bookworm": ("switch-root", "Debian GNU/Linux 12 (bookworm)", "12", "252."),
    "trixie": ("soft-reboot", "Debian GNU/Linux 13 (trixie)", "13", "257."),
}
RESTARTABLE = ("nginx.service", "dnsmasq.service", "version-echo.service", *growth.LOADS)


def expect_complete(report: dict[str, Any], strategy: str, source: str, target: str) -> None:
    """Everything that the contract promises of a report is there and makes sense."""
    assert report["result"] == "accepted", report
    assert report.keys() >= FIELDS
    for side, suite in (("source", source), ("target", target)):
        _, os, version, systemd = SUITES[suite]
        assert report[side].keys() >= SIDE
        assert (report[side]["os"], report[side]["version"]) == (os, version)
        assert report[side]["systemd"].startswith(systemd)
        assert report[side]["fstype"] == "ext4"
    assert report["mechanism"] == ("pivot" if strategy == "live" else SUITES[source][0])
    assert report["strategy"] == strategy
    assert report["error"] is None

    assert [phase["name"] for phase in report["phases"]] == PHASES
    times = [t for phase in report["phases"] for t in (phase["start_usec"], phase["end_usec"])]
    assert times == sorted(times)
    assert 0 < report["outage_usec"] < report["t4_usec"]
    parts = [report[f"t{n}_usec"] for n in (1, 2, 3)]
    assert min(parts) > 0 and report["t4_usec"] == sum(parts)

    assert len(report["units"]) > 30
    for unit in report["units"]:
        assert unit.keys() >= UNIT
        assert unit["action"] in ACTIONS
    served = [u for u in report["units"] if u["unit"] in ("nginx.service", "dnsmasq.service")]
    assert len(served) == 2
    assert all(0 < unit["outage_usec"] <= report["outage_usec"] for unit in served)
    if strategy == "live":
        assert [d for d in report["plan"]["differences"] if not PASSING.match(d)] == []
    assert report["continuity"]["differences"] == []
    assert report["continuity"]["boot_id"]["before"] == report["continuity"]["boot_id"]["after"]


def disturb(e: Element, dice: random.Random) -> None:
    """What an operator and his automation do between two upgrades."""
    run = e.machine.run
    for _ in range(dice.randrange(4)):
        match dice.randrange(4):
            case 0:
                e.machine.systemctl("restart", dice.choice(RESTARTABLE))
            case 1:
                run(["systemd-run", "--quiet", "--wait", "--collect", "/bin/true"])
            case 2:
                e.machine.systemctl("daemon-reload")
            case _:
                run(["logger"], stdin="a line\n" * dice.randrange(1000))


def upgrade_by_halt(e: Element, target: str) -> dict[str, Any]:
    """Nobody is connected."""
    report = e.upgrade(target)
    assert [finding["id"] for finding in report["findings"]] == ["old-root-free"], report
    return report


def upgrade_live(e: Element, target: str, source: str) -> tuple[dict[str, Any], int]:
    """One connection lives through it, and alone pins the old root meanwhile.

    And how often a service was refused that holds its socket itself.
    """
    address, outside = e.machine.network.address, e.machine.network.outside
    watched = {"offered": Tcp(address, OFFERED), "plain": Tcp(address, PLAIN)}
    with (
        talk(e.machine.network, connection(e.machine.network)) as held,
        Probe(outside, watched, timeout=SLOW_SEC) as probe,
    ):
        assert held.say("before") == "before"
        probe.wait_up(10)
        report = e.upgrade(target)
        assert held.say("after") == "after"
        (pin,) = report["findings"]
        assert pin["id"] == "old-root-pinned", report["findings"]
        assert "of held@" in pin["text"]
        assert not oldroot.is_free(source)
        probe.wait_up(10)
        seen = probe.stop()
    e.machine.wait_for(lambda: oldroot.is_free(source), 10, "the old root is free")
    assert seen["offered"].failures == 0, seen["offered"].last_error
    assert seen["offered"].answers[-1].count > 0
    return report, seen["plain"].failures


def measure(e: Element, images: Path) -> growth.Sizes:
    """The sizes, of loop devices those over our images: a container sees all of them."""
    e.wait_quiet()
    e.machine.systemctl("stop", "issu-bus.service")  # whoever asks for a report starts it
    sizes: growth.Sizes = json.loads(e.machine.run(["python3", "-c", growth.SIZES]).stdout)
    loops = sh.output(["losetup", "--list", "--noheadings", "--output=BACK-FILE"]).splitlines()
    return sizes | {"loop devices": sum(str(images) in line for line in loops)}


def test_soak(tmp_path: Path) -> None:
    seed, most = growth.seed(), growth.upgrades("SOAK", 10)
    dice = random.Random(seed)

    def fit_out(root: Path) -> None:
        growth.load(root, seed)
        offer_sockets(root)

    with element(tmp_path, "bookworm", "trixie", in_source=fit_out, in_target=fit_out) as e:
        boot_id, reports, sizes, refused = e.machine.boot_id(), [], list[growth.Sizes](), 0
        for count in range(most):
            strategy = growth.STRATEGIES[count % growth.CYCLE]
            there = count % 2 == 0
            target, source = (e.target, e.source) if there else (e.source, e.target)
            disturb(e, dice)
            write_settings(e.machine.path("/"), f'[switch]\nstrategy = "{strategy}"\n')
            if strategy == "live":
                report, failures = upgrade_live(e, target, source)
                refused += failures
            else:
                report = upgrade_by_halt(e, target)
            expect_complete(report, strategy, *(tuple(SUITES) if there else tuple(SUITES)[::-1]))
            e.wait_quiet()
            check_traces(e)
            assert e.machine.state() == "running"
            reports.append(report)
            sizes.append(measure(e, tmp_path))
            print(f"{count + 1} of {most}: {strategy}, {report['outage_usec'] / 1e6:.3f} s")
        print(growth.table(sizes))
        assert e.machine.boot_id() == boot_id
        assert not any(grown := growth.grown(sizes)), grown
        # Negative control of the socket that PID 1 holds.
        assert refused >= sum(report["strategy"] == "live" for report in reports)

        ids = [report["id"] for report in reports]
        assert ids == sorted(set(ids)) == e.ids()  # one each, as is promised; and nothing else
        for report in reports:
            told = e.machine.run(["issu", "report", report["id"], "--json"]).stdout
            assert json.loads(told) == report
        control(e, tmp_path, sizes[-1])


def control(e: Element, images: Path, before: growth.Sizes) -> None:
    """What is left behind is seen, of every kind."""
    e.machine.run(["mount", "-t", "tmpfs", "tmpfs", "/mnt"])
    for path in ("/run/left-behind", "/etc/systemd/left-behind", "/var/tmp/left-behind"):
        e.machine.path(path).touch()
    e.machine.path("/run/systemd/system/left-behind.service.d").mkdir()
    e.machine.path("/sys/fs/cgroup/left-behind").mkdir()
    stays = e.machine.popen(["sleep", "infinity"])
    asks = e.machine.popen(["busctl", "monitor"])
    logs = e.machine.popen(["systemd-cat", "sleep", "infinity"])
    image = images / "left-behind.img"
    sh.run(["truncate", "--size=1M", image])
    device = sh.output(["losetup", "--find", "--show", image])
    try:
        e.machine.wait_for(
            lambda: growth.growth(before, measure(e, images)).keys() >= LEFT, 20, "all is seen"
        )
    finally:
        sh.run(["losetup", "--detach", device])
        for process in (stays, asks, logs):
            sh.kill(process)
            process.communicate()


LEFT = {
    "mounts", "entries of /run", "entries of /etc/systemd", "entries of /tmp", "drop-ins",
    "cgroups", "units", "processes", "descriptors of the bus", "descriptors of journald",
    "loop devices",
}  # fmt: skip
