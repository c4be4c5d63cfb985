"""Ten upgrades to and fro in one machine: nothing piles up, and every report is complete."""

import json
from pathlib import Path
from typing import Any

from tests.rig import sh

from .element import Element, element

UPGRADES = 10
NOISE_KIB = 256  # of 3 MiB, which is what PID 1 has; pages come and go with its heap
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


def measure(e: Element, images: Path) -> dict[str, int]:
    """What may not grow: the memory of PID 1 in KiB, of everything else the number."""
    e.wait_quiet()
    pid = Path("/proc", str(e.machine.pid))
    status = dict(line.split(":", 1) for line in (pid / "status").read_text().splitlines())
    loops = sh.output(["losetup", "--list", "--noheadings", "--output=BACK-FILE"]).splitlines()
    groups = e.machine.path("/sys/fs/cgroup").rglob("*/")
    return {
        "memory": int(status["RssAnon"].split()[0]),
        "descriptors": len(list((pid / "fd").iterdir())),
        "mounts": len((pid / "mountinfo").read_text().splitlines()),
        "loop devices": sum(str(images) in line for line in loops),
        "cgroups": sum(group.is_dir() for group in groups),
        "entries of /run": len(e.machine.run(["find", "/run", "-xdev"]).stdout.splitlines()),
        "units": len(e.machine.systemctl("list-units", "--all", "--no-legend").splitlines()),
        "processes": len(e.machine.run(["ps", "-e"]).stdout.splitlines()),
        "drop-ins": len(list(e.machine.path("/run/systemd/system").iterdir())),
    }


def growth(early: dict[str, int], late: dict[str, int]) -> dict[str, tuple[int, int]]:
    """What has become more than it was."""
    noise = {"memory": NOISE_KIB}
    return {k: (early[k], late[k]) for k in early if late[k] > early[k] + noise.get(k, 0)}


def expect_complete(report: dict[str, Any], source: str, target: str) -> None:
    """Everything that the contract promises of a report is there and makes sense."""
    assert report["result"] == "accepted", report
    assert report.keys() >= FIELDS
    for side, suite in (("source", source), ("target", target)):
        _, os, version, systemd = SUITES[suite]
        assert report[side].keys() >= SIDE
        assert (report[side]["os"], report[side]["version"]) == (os, version)
        assert report[side]["systemd"].startswith(systemd)
        assert report[side]["fstype"] == "ext4"
    assert report["mechanism"] == SUITES[source][0]
    assert report["strategy"] == "halt"
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
    assert report["continuity"]["differences"] == []
    assert report["continuity"]["boot_id"]["before"] == report["continuity"]["boot_id"]["after"]
    assert [finding["id"] for finding in report["findings"]] == ["old-root-free"]


def test_ten_upgrades(tmp_path: Path) -> None:
    with element(tmp_path, "bookworm", "trixie") as e:
        boot_id = e.machine.boot_id()
        sizes, reports = [], []
        for count in range(UPGRADES):
            there = count % 2 == 0
            report = e.upgrade(e.target if there else e.source)
            expect_complete(report, *(tuple(SUITES) if there else tuple(SUITES)[::-1]))
            reports.append(report)
            sizes.append(measure(e, tmp_path))
        assert e.machine.state() == "running"
        assert e.machine.boot_id() == boot_id

        assert growth(sizes[2], sizes[-2]) == {}  # both in the one release
        assert growth(sizes[3], sizes[-1]) == {}  # both in the other
        ids = [report["id"] for report in reports]
        assert ids == sorted(set(ids)) == e.ids()
        for report in reports:
            told = e.machine.run(["issu", "report", report["id"], "--json"]).stdout
            assert json.loads(told) == report

        e.machine.systemctl("stop", "issu-bus.service")  # it was asked for the reports
        # The measure does see what is left behind.
        e.machine.run(["mount", "-t", "tmpfs", "tmpfs", "/mnt"])
        e.machine.path("/run/left-behind").touch()
        e.machine.path("/sys/fs/cgroup/left-behind").mkdir()
        left = growth(sizes[-1], measure(e, tmp_path))
        assert left.keys() == {"mounts", "entries of /run", "cgroups", "units"}
