"""Without an upgrade it is as if the package were not there: install, ordinary boot, shutdown."""

import json
import re
import shutil
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.rig import loop, roots, sh
from tests.rig.machine import Machine

from .element import package

GENERATOR = "/usr/lib/systemd/system-generators/issu-generator"
GENERATED = ("generator", "generator.early", "generator.late", "system", "transient")
OWN = re.compile(r"\bissu\b")


class Life(NamedTuple):
    """What one boot and one shutdown did."""

    units: list[str]  # of every unit: name, load, active and sub state, verdict of its conditions
    generated: list[str]  # below /run/systemd
    shutdown: list[str]  # the jobs of the shutdown: type, unit, result


def units(machine: Machine) -> list[str]:
    """Every unit, with what only differs from machine to machine taken out."""
    names = ("Id", "LoadState", "ActiveState", "SubState", "ConditionResult")
    text = machine.systemctl("show", "--all", "*", *(f"--property={name}" for name in names))
    blocks = (dict(line.split("=", 1) for line in b.splitlines()) for b in text.split("\n\n"))
    states = {" ".join(block.get(name, "-") for name in names) for block in blocks}
    return sorted(re.sub(r"loop\d+", "loop", state) for state in states)


def generated(machine: Machine) -> list[str]:
    find = ["find", *(f"/run/systemd/{name}" for name in GENERATED)]
    return sorted(machine.run(find, check=False).stdout.splitlines())


def jobs(image: Path, since_usec: int) -> list[str]:
    """The jobs that PID 1 ended after a monotonic time, as the journal of the image has them."""
    with loop.mounted(image) as top:
        argv = ["journalctl", "--quiet", "--directory=/var/log/journal", "--output=json", "_PID=1"]
        lines = sh.output(["chroot", top, *argv]).splitlines()
    entries = [e for e in map(json.loads, lines) if int(e["__MONOTONIC_TIMESTAMP"]) > since_usec]
    return sorted({" ".join((e["JOB_TYPE"], e["UNIT"], e["JOB_RESULT"])) for e in entries
                   if "JOB_RESULT" in e})  # fmt: skip


def without_calendar(root: Path) -> None:
    """Nothing in a root starts because of the time of day."""
    for wanted in (root / "etc/systemd/system/timers.target.wants").iterdir():
        wanted.unlink()


def live(image: Path) -> Life:
    """One ordinary boot of an image, and one ordinary shutdown."""
    with Machine(image) as machine:
        assert machine.state() == "running"
        assert machine.systemctl("--failed", "--no-legend") == ""
        seen = units(machine), generated(machine)
        begin = time.monotonic_ns() // 1000
        machine.poweroff()
    return Life(*seen, jobs(image, begin))


@pytest.mark.parametrize("suite", roots.SUITES)
def test_boot_and_shutdown(tmp_path: Path, suite: str) -> None:
    trees = roots.installed(suite), roots.installed(suite, package())
    images = tmp_path / "without.img", tmp_path / "with.img"
    without, with_it = (
        live(roots.image(tree, image, customize=without_calendar))
        for tree, image in zip(trees, images, strict=True)
    )
    assert len(without.units) > 100 and len(without.shutdown) > 30
    assert "stop nginx.service done" in without.shutdown
    assert with_it.units == without.units
    assert with_it.generated == without.generated
    assert with_it.shutdown == without.shutdown
    assert not [unit for unit in with_it.units if OWN.search(unit)]


def processes(machine: Machine) -> list[str]:
    lines = machine.run(["ps", "-e", "-o", "pid=,args="]).stdout.splitlines()
    return sorted(line for line in lines if " ps -e " not in line)


@pytest.mark.parametrize("suite", roots.SUITES)
def test_installation(tmp_path: Path, suite: str) -> None:
    """On a running system, where it starts, stops and loads nothing."""
    image = tmp_path / "a.img"
    with Machine(roots.image(roots.installed(suite), image, customize=without_calendar)) as machine:
        before = units(machine), processes(machine)
        shutil.copy(package(), machine.path("/root/issu.deb"))
        machine.run(["dpkg", "-i", "/root/issu.deb"])
        assert machine.run(["issu", "--version"]).stdout.startswith("issu ")
        assert (units(machine), processes(machine)) == before
        assert list(machine.path("/run/issu").glob("*")) == []

        # At the next boot it is as quiet.
        out = machine.path("/root/out")
        out.mkdir()
        trace = machine.run(["sh", "-x", GENERATOR, "/root/out", "/root/out", "/root/out"])
        assert trace.stderr == "+ [ -s /run/issu/in-progress ]\n+ exit 0\n"  # both built in
        assert list(out.iterdir()) == []
        machine.path("/run/issu/in-progress").write_text("x\n")
        machine.run([GENERATOR, "/root/out", "/root/out", "/root/out"])
        wanted = {path.name for path in out.rglob("*.wants/*")}
        assert "issu-arrive.service" in wanted
        assert all(OWN.match(name) for name in wanted)
