"""Run cells of the fault matrix in one guest, one after the other, and see where each ends."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from issu_systemd.settings import Settings

from . import faults, network
from .channel import Lost
from .faults import Cell, End
from .guest import QUIET, START, UPGRADE_SEC, Guest, guest

SUITES = ("bookworm", "trixie")
WATCHDOG_SEC = 30
HAS_WATCHDOG = hasattr(Settings(), "watchdog_usec")
BETWEEN_SEC = 120  # from the request, or from one question to the next, whether it runs at all
LOST_SEC = 240  # for those whose disk is gone to find that out, and to reset the machine
HANG_SEC = 2 * WATCHDOG_SEC if HAS_WATCHDOG else 15  # until it is plain that nobody goes on
SETTINGS = """\
[switch]
strategy = "{strategy}"
{watchdog}
[verify]
settle = "1s"
"""
PROBE = """\
[ -e /run/issu/record.json ] || [ -e /run/issu/way-back.json ] || echo ended
"""
STATE = """\
until [ -z "$(systemctl list-units --no-legend --state=active,activating,deactivating 'issu@*')" ]
do sleep 0.2; done
systemctl reset-failed 'issu@*' 2>/dev/null
echo "$(systemctl is-system-running --wait)"
findmnt --noheadings --output SOURCE /
issu report --json=short
{ ls -A /run/issu; ls -d /run/systemd/system/*/50-issu* /sysroot; systemctl list-jobs --no-legend
systemctl --failed --no-legend --plain; } 2>/dev/null | sed 's/ .*//'
"""
CLEAN = """\
rm -f /run/fill* /fill* /run/fault-*
rm -rf /run/systemd/system/issu*.d
systemctl daemon-reload
for name in $(dmsetup ls | cut -f1); do [ $name = $(findmnt -no SOURCE / | sed 's,.*/,,') ] ||
    dmsetup remove --retry $name; done
echo 1 >/sys/bus/pci/rescan
udevadm settle
for disk in $(ls /sys/block); do case $disk in vd[b-z]) echo $disk;; esac; done | tail -n1
"""
TIDY = """\
e2fsck -fy /dev/{other} >/run/fsck.log 2>&1
mount /dev/{other} /mnt
rm -f /mnt/fill*
umount /mnt
"""
MAP = """\
modprobe dm-mod
dmsetup create {name} --table "0 $(blockdev --getsz /dev/{disk}) linear /dev/{disk} 0"
udevadm settle
"""
PLACE = {"preflight": "/mnt", "stage": "/sysroot", "release": "/sysroot", "before": "/sysroot"}
BY_MOUNT = "mount /dev/{disk} /mnt\n{script}umount /mnt\n"
AWAY = ("unplug", "io-error")  # only of the second disk: the boot loader starts the first


class Outcome(NamedTuple):
    """How a cell ended: where, with which report, after how long, and what is wrong with that."""

    cell: Cell
    root: str
    result: str
    error: str
    seconds: float
    reset: str  # "" if the kernel lived on, else who ended it
    wrong: tuple[str, ...]

    def __str__(self) -> str:
        how = f", {self.reset}" if self.reset else ""
        wrong = f" WRONG: {'; '.join(self.wrong)}" if self.wrong else ""
        return f"{self.cell}: {self.root}, {self.result}{how}, {self.seconds:.0f} s{wrong}"


@dataclass
class Bench:
    """A guest for cells; `dirty` when a disk was taken from under a file system, or filled."""

    guest: Guest
    count: int = 0
    dirty: bool = False
    disk: str = "vdb"  # the second one's name, which changes when it was unplugged
    resets: list[str] = field(default_factory=list)

    def run(self, cell: Cell) -> Outcome:
        """One cell, from an upgrade that is asked for to a machine in service."""
        old, target = self.prepare(cell)
        self.resets = []
        before = self.reports()
        self.guest.channel.others.clear()
        self.guest.run(f"systemctl start --no-block issu@{target}; true")
        self.wait_at(f"{cell.strategy}-{cell.phase}")
        begin = time.monotonic()
        if cell.fault == "power":
            self.restart("power cut")
        stuck = not self.wait_end(self.patience(cell))
        if stuck:
            self.restart("stuck: reset by hand")
            self.wait_end(UPGRADE_SEC)
        elif not self.tells():
            stuck = True
            self.restart("runs from memory alone: reset by hand")
        seconds = time.monotonic() - begin
        return self.judge(cell, old, before, seconds, stuck=stuck)

    def prepare(self, cell: Cell) -> tuple[str, str]:
        """The guest as the cell needs it; the root's device and the target."""
        g = self.guest
        if g.here() != g.disks[0] and cell.fault in ("power", "hang", *AWAY):
            g.cut()
            g.boot()
        self.disk = g.run(CLEAN).split()[-1]
        old = g.here()
        other = self.disk if old == g.disks[0] else Path(g.disks[0]).name
        if self.dirty:
            g.run(TIDY.format(other=other))
        armed = HAS_WATCHDOG and faults.STUCK in faults.expected(cell)
        watchdog = f'watchdog = "{WATCHDOG_SEC}s"' if armed else ""
        g.configure(SETTINGS.format(strategy=cell.strategy, watchdog=watchdog))
        self.count += 1
        name, target = f"cell{self.count}", f"/dev/{other}"
        if cell.fault == "io-error":
            g.run(MAP.format(name=name, disk=self.disk))
            target = f"/dev/mapper/{name}"
        self.dirty = cell.fault in (*AWAY, "root-full")
        place = "/run" if cell.fault == "run-full" else PLACE.get(cell.phase, "")
        script = faults.SCRIPTS[cell.fault].format(mapped=name, disk=self.disk, place=place)
        if cell.fault == "root-full" and cell.phase == "preflight":
            script = BY_MOUNT.format(disk=other, script=script)
        if cell.fault == "hang":
            g.run(faults.shorten())
        mark = f"/run/fault-{cell.strategy}-{cell.phase}"
        g.run(f"cat >{mark} <<'EOF'\n{script}\nEOF")
        return old, target

    def reports(self) -> set[str]:
        """The upgrades in the history of the root that runs."""
        return {Path(name).stem for name in self.guest.run("ls /var/lib/issu/history").split()}

    def wait_at(self, point: str) -> None:
        """Wait until a process stands at a point, for as long as there is an upgrade."""
        while True:
            try:
                self.guest.channel.wait("at", point, BETWEEN_SEC)
            except Lost as error:
                if self.guest.run(PROBE, check=False).strip() != "ended":
                    continue
                why = self.guest.run("issu report", check=False)
                raise AssertionError(f"{point}: {error}; {why}\n{self.guest.tail()}") from None
            return

    def restart(self, why: str) -> None:
        """Cut the power, and boot as the boot loader does."""
        self.resets.append(why)
        self.guest.cut()
        self.guest.boot()

    def patience(self, cell: Cell) -> float:
        """How many seconds to wait for the end; not long where a reset is right."""
        right = faults.expected(cell)
        if faults.STUCK not in right:
            return UPGRADE_SEC
        return HANG_SEC if right == (faults.STUCK,) else LOST_SEC

    def wait_end(self, seconds: float) -> bool:
        """Wait until no upgrade runs, through resets; whether that came about in time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.guest.process.poll() is not None:  # QEMU ends with a reset
                self.restart("reset by itself")
                deadline = max(deadline, time.monotonic() + seconds)
            with suppress(Lost, OSError):
                if self.guest.run(PROBE, 5, check=False).strip() == "ended":
                    return True
        return False

    def tells(self) -> bool:
        """Whether the machine can be asked; not if its disk is gone, whatever is in memory."""
        with suppress(Lost, OSError, ValueError, AssertionError):
            return bool(self.reports() and json.loads(self.guest.run("issu report --json=short")))
        return False

    def judge(
        self, cell: Cell, old: str, before: set[str], seconds: float, *, stuck: bool
    ) -> Outcome:
        """What has become of it, against what is right."""
        health, here, line, *left = self.guest.run(STATE, 180, check=False).splitlines()
        report: dict[str, Any] = json.loads(line)
        new = sorted(self.reports() - before)
        root = "old" if here == old else "new"
        found = End(root, report["result"], report["error"] or "")
        right = faults.expected(cell)
        wrong = []
        if not any(fits(found, end, reset=bool(self.resets)) for end in right):
            wrong.append(f"not {' or '.join(f'{end.root} {end.result} {end.why}' for end in right)}"
                         f" but {found}")  # fmt: skip
        if self.resets:  # the next upgrade tidies up
            left = [name for name in left if name != "/sysroot"]
        events = (report["uevents"] or {}).get("forbidden", [])
        if again := [event["device"] for event in events if event["action"] == "add"]:
            wrong.append(f"{len(again)} devices were replayed: {again[:3]}")
        way_back = (report["way_back"] or {}).get("of")  # an upgrade of its own, with halt
        if new != [*([way_back] if way_back else []), report["id"]]:
            wrong.append(f"reports: {new}")
        if stuck and not any(end.stuck for end in right):
            wrong.append("stuck")
        if health != "running" or left:
            wrong.append(f"{health}: {left}")
        reset = ", ".join(self.resets)
        return Outcome(cell, root, found.result, found.why, seconds, reset, tuple(wrong))


def fits(found: End, right: End, *, reset: bool) -> bool:
    """Whether an end is one that is right: what is stuck comes up as after a power cut."""
    same = (found.root, found.result) == (right.root, right.result)
    return same and right.why in found.why and (reset or not right.stuck)


@contextmanager
def bench(work: Path, cpus: int = 2) -> Iterator[Bench]:
    """A guest for cells, booted."""
    setup = [faults.customize, network.ifupdown]
    with guest(
        work, SUITES, customize=setup, ready=START + QUIET, cpus=cpus, options="-no-reboot"
    ) as g:
        yield Bench(g)
