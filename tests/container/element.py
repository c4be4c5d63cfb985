"""An element under test: a machine with two roots, and what one does with it."""

import json
import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.rig import loop, roots, sh, wait
from tests.rig.machine import Machine

Customize = Callable[[Path], None]
OURS = ("issu@", "issu-bus")  # units that come with an upgrade and with a call
UPGRADE_SEC = 120.0


def package() -> Path:
    """The .deb that `make deb` left."""
    return max(Path("dist").glob("issu-systemd_*_all.deb"), key=lambda path: path.stat().st_mtime)


def write_settings(root: Path, text: str) -> None:
    """Give the system at `root` settings of its own."""
    place = root / "etc/issu/conf.d/50-test.toml"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)


def write_unit(root: Path, name: str, text: str, *, wanted_by: str = "multi-user.target") -> None:
    """Give the system at `root` a unit, wanted by a target unless `wanted_by` is ""."""
    place = root / "etc/systemd/system" / name
    place.write_text(text)
    if wanted_by:
        link = place.parent / f"{wanted_by}.wants" / name
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(f"../{name}")


def besides(report: dict[str, Any], only_here: Collection[str] = ()) -> list[dict[str, str]]:
    """The findings of a report but `unit-lost` of the units that only the old root has."""
    found: list[dict[str, str]] = report["findings"]
    return [f for f in found if f["id"] != "unit-lost" or f["text"].split()[0] not in only_here]


def row(report: dict[str, Any], unit: str) -> dict[str, Any]:
    """What a report says of one unit, {} if nothing."""
    found: list[dict[str, Any]] = [u for u in report["units"] if u["unit"] == unit]
    return found[0] if found else {}


@dataclass
class Element:
    """A running machine, the device of its own root and that of the other one."""

    machine: Machine
    source: str
    target: str

    def start(self, target: str | None = None) -> tuple[int, str]:
        """`systemctl start issu@TARGET`: exit status and what it printed."""
        argv = ["systemctl", "start", f"issu@{target or self.target}"]
        done = self.machine.run(argv, check=False, timeout=UPGRADE_SEC)
        return done.returncode, done.stdout + done.stderr

    def ids(self) -> list[str]:
        """The upgrades in the history of the root that runs."""
        return sorted(p.stem for p in self.machine.path("/var/lib/issu/history").glob("*.json"))

    def report(self, id: str | None = None) -> dict[str, Any]:
        """One report as the history holds it, the newest by default."""
        name = id or self.ids()[-1]
        text = self.machine.path(f"/var/lib/issu/history/{name}.json").read_text()
        document: dict[str, Any] = json.loads(text)
        return document

    def upgrade(self, target: str | None = None) -> dict[str, Any]:
        """Upgrade, wait until it has ended one way or the other, and give its report."""
        before = set(self.ids())
        status, printed = self.start(target)
        assert status == 0, printed
        return self.wait_end(before)

    def wait_end(self, before: set[str]) -> dict[str, Any]:
        """Wait for the report that is not among `before`, and for the agent to be gone."""

        def ended() -> str | None:
            if self.machine.path("/run/issu/record.json").exists():
                return None
            return next(iter(set(self.ids()) - before), None)

        id = self.machine.wait_for(ended, UPGRADE_SEC, "the upgrade ends")
        self.machine.wait_running(60)
        return self.report(id)

    def wait_quiet(self) -> None:
        """Wait until nothing runs or waits any longer that an upgrade started."""

        def over() -> bool:
            units = self.machine.systemctl("list-units", "--no-legend", "--plain", "issu*")
            left = [unit for unit in units.splitlines() if not unit.startswith("issu-bus")]
            return not left and not self.machine.systemctl("list-jobs", "--no-legend")

        self.machine.wait_for(over, 30, "no unit of the upgrade is left")

    def state(self) -> dict[str, Any]:
        """What a refusal must leave as it was: units, mounts, /run/issu, our drop-ins."""
        units = self.machine.systemctl("list-units", "--all", "--no-legend", "--plain").splitlines()
        mounts = self.machine.run(["cat", "/proc/1/mountinfo"]).stdout.splitlines()
        return {
            "units": sorted(" ".join(u.split()[:4]) for u in units if not u.startswith(OURS)),
            "mounts": sorted(" ".join(m.split()[2:6]) for m in mounts),
            "run": sorted(p.name for p in self.machine.path("/run/issu").glob("*")),
            "drop-ins": sorted(p.name for p in self.machine.path("/run/systemd/system").glob("*")),
            "sysroot": self.machine.path("/sysroot").exists(),
        }


@contextmanager
def element(
    work: Path,
    source: str = "bookworm",
    target: str = "trixie",
    *,
    in_source: Customize | None = None,
    in_target: Customize | None = None,
    one_disk: bool = False,
    more: Sequence[Path] = (),
    packages: Sequence[str] = (),
) -> Iterator[Element]:
    """Boot `source` with `target` on a second disk, or as a second partition of the same.

    `in_source` and `in_target` change the roots before the boot; `more` are images of further
    disks, `machine.devices[2:]` inside, `packages` Debian's that both roots have besides.
    """
    trees = (roots.installed(suite, package(), packages) for suite in (source, target))
    a = roots.image(next(trees), work / "a.img", customize=in_source)
    b = roots.image(next(trees), work / "b.img", customize=in_target)
    if one_disk:
        disk = roots.disk(work / "disk.img", [a, b])
        with Machine(disk, partition=1) as machine:
            parts = loop.partitions(machine.devices[0])
            yield Element(machine, str(parts[0]), str(parts[1]))
        return
    with Machine(a, disks=[b, *more]) as machine:
        yield Element(machine, str(machine.devices[0]), str(machine.devices[1]))


def change(device: str, script: str) -> None:
    """Run a script in the file system on `device`, which is mounted for nobody else."""
    mount = 'mount "$0" /mnt; cd /mnt; eval "$1"; cd /; umount /mnt'
    apart = ["unshare", "--mount", "--propagation=private"]
    sh.run([*apart, "sh", "-euc", mount, device, script])


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What is in one state of an element and not in the other."""
    found = []
    for key, was in before.items():
        old, new = (set(v) if isinstance(v, list) else {v} for v in (was, after[key]))
        found += [f"{key}: -{x}" for x in old - new] + [f"{key}: +{x}" for x in new - old]
    return found


# Units that come and go by themselves.
PASSING = re.compile(r"issu@|issu-bus|session-|user@|user-|run-credentials|systemd-tmpfiles-clean")


def active(machine: Machine) -> set[str]:
    """The units that are active, without those that come and go by themselves."""
    listed = machine.systemctl("list-units", "--state=active", "--no-legend", "--plain")
    names = {line.split()[0] for line in listed.splitlines()}
    return {name for name in names if not PASSING.match(name)}


def assert_as_before(e: Element, before: dict[str, Any], units: set[str]) -> None:
    """Every unit is as it was; mounts, flags and drop-ins are; the journal is on disk again."""

    # Not to be started again: what ran once for an update, and a target that others must want.
    def differ() -> tuple[set[str], set[str]]:
        now = active(e.machine)
        gone = {
            u for u in units - now if "no" not in shown(e.machine, u, "ConditionResult,CanStart")
        }
        return gone, now - units

    with suppress(wait.Timeout):
        e.machine.wait_for(lambda: differ() == (set(), set()), 5, "the same units are active")
    assert differ() == (set(), set())
    assert {"network.target", "sysinit.target", "graphical.target"} <= active(e.machine)
    other = [c for c in changes(before, e.state()) if not c.startswith("units")]
    assert [c for c in other if "/run/credentials/" not in c] == []
    assert e.machine.systemctl("list-jobs", "--no-legend") == ""
    e.machine.run(["systemd-cat", "echo", f"on disk after {e.ids()[-1]}"])
    e.machine.run(["journalctl", "--sync"])
    on_disk = e.machine.journal("--directory=/var/log/journal", "--lines=200")
    assert f"on disk after {e.ids()[-1]}" in on_disk


def shown(machine: Machine, unit: str, name: str) -> str:
    return machine.systemctl("show", f"--property={name}", "--value", unit)


GATE = "/first-boot-gate"  # a named pipe in the target, "/sysroot" before it while it is staged


def gate_first_boot(root: Path) -> None:
    """Let the first-boot work of the target at `root` wait, once, until somebody writes to GATE."""
    os.mkfifo(root / GATE.lstrip("/"))
    conditions = f"[Unit]\nConditionNeedsUpdate=/etc\nConditionPathExists={GATE}\n"
    start = f"ExecStart=/usr/bin/head -c1 {GATE}\nExecStart=/usr/bin/rm {GATE}\n"
    write_unit(root, "gate.service", f"{conditions}[Service]\nType=oneshot\n{start}")


LOOK_GATE = "/look-gate"  # a named pipe in the target; whoever looks at it waits there


def gate_preflight(root: Path) -> None:
    """Let `issu --version` in the target at `root`, which preflight asks, wait at LOOK_GATE."""
    program = root / "usr/bin/issu"
    program.rename(program.with_suffix(".real"))
    wait_here = f"test ! -p {LOOK_GATE} || /usr/bin/head -c1 {LOOK_GATE} >/dev/null"
    program.write_text(f'#!/bin/sh\n{wait_here}\nexec "$0.real" "$@"\n')
    program.chmod(0o755)


def is_blocked(machine: Machine, fifo: str) -> bool:
    """Whether somebody inside waits at a named pipe: `/usr/bin/head -c1 FIFO`."""
    look = ["pgrep", "--full", "--exact", f"/usr/bin/head -c1 {fifo}"]
    return machine.run(look, check=False).returncode == 0


def wait_blocked(machine: Machine, fifo: str) -> None:
    """Wait until somebody inside waits at a named pipe."""
    machine.wait_for(lambda: is_blocked(machine, fifo), 60, f"somebody waits at {fifo}")


def let_go(machine: Machine, fifo: str) -> None:
    """Let whoever waits at a named pipe go on; `fifo` as the machine sees it now."""
    path = machine.path(fifo)

    def opened() -> int | None:
        try:  # ENXIO while nobody reads
            return os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            return None

    fd = machine.wait_for(opened, 20, f"somebody reads {fifo}")
    os.write(fd, b"\n")
    os.close(fd)
