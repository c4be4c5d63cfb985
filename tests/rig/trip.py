"""One upgrade from the command to the report, seen from inside and from outside."""

import json
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.container.element import UPGRADE_SEC, Element

from . import sh, wait
from .machine import Machine
from .outage import Observed
from .probe import Probe
from .services import Dns, Http, Service, Tcp

UP_SEC = 30.0  # for the services to answer
RECORD = "/run/issu/record.json"

Tell = Callable[[str, int], None]  # a phase or the result, microseconds since the command


@dataclass(frozen=True)
class Look:
    """What a person looks at before and after."""

    boot_id: str
    os: str
    state: str


@dataclass(frozen=True)
class Trip:
    """What became of one upgrade. `text` is `issu report`, `seen` what the probes saw."""

    before: Look
    after: Look
    report: dict[str, Any]
    text: str
    seen: Mapping[str, Observed]

    def troubles(self, wanted: str) -> list[str]:
        """Everything that is not as it must be after an upgrade to the release `wanted`."""
        if self.report["result"] != "accepted":
            return [f"the upgrade ended as {self.report['result']}: {self.report['error']}"]
        found = []
        if self.after.boot_id != self.before.boot_id:
            found.append(f"the kernel is another: boot id {self.after.boot_id}")
        if self.after.state != "running":
            found.append(f"the system is {self.after.state}, not running")
        if wanted not in self.after.os:
            found.append(f"the system is {self.after.os}, not {wanted}")
        for name, service in self.seen.items():
            if len(service.answers) < 2 and name == "version-echo":
                found.append(f"{name} never answered from another root")
        if not any(service.outages for service in self.seen.values()):
            found.append("the probes saw nothing: no service was ever away")
        return found


def travel(e: Element, device: str, tell: Tell) -> Trip:
    """Upgrade to `device` with the probes watching; `tell` hears of each phase at once.

    Returns whether the upgrade went well or not; raises CommandError if it did not even begin.
    """
    with Probe(e.machine.network.outside, services(e.machine)) as probe:
        probe.wait_up(UP_SEC)
        before = look(e.machine)
        id = follow(e, device, tell)
        e.machine.wait_running(UPGRADE_SEC)
        probe.wait_up(UP_SEC)
        seen = probe.stop()
    text = e.machine.run(["issu", "report", id]).stdout
    return Trip(before, look(e.machine), e.report(id), text, seen)


def services(machine: Machine) -> dict[str, Service]:
    """The three services of every root of the rig."""
    to = machine.network.address
    return {
        "nginx": Http(to),
        "dnsmasq": Dns(to, 53, "issu.test"),
        "version-echo": Tcp(to, 7777),
    }


def look(machine: Machine) -> Look:
    """The element as it is now."""
    lines = machine.path("/etc/os-release").read_text().splitlines()
    name = next(line for line in lines if line.startswith("PRETTY_NAME="))
    return Look(machine.boot_id(), name.partition("=")[2].strip('"'), machine.state())


def follow(e: Element, device: str, tell: Tell) -> str:
    """Start the upgrade, tell its phases as they come, return its id when it has ended."""
    past, told = set(e.ids()), set[str]()
    begin = time.monotonic_ns() // 1000

    def tell_new(phases: list[dict[str, Any]]) -> None:
        for phase in phases:
            if phase["name"] not in told:
                told.add(phase["name"])
                tell(phase["name"], phase["start_usec"] - begin)

    def ended() -> str | None:
        record = e.machine.path(RECORD)
        with suppress(OSError, ValueError):  # not there yet, or in the middle of the switch
            tell_new(json.loads(record.read_text())["phases"])
        if record.exists():
            return None
        new = next(iter(set(e.ids()) - past), None)
        if not new and not told:
            raise_if_failed(starter)
        return new

    starter = e.machine.popen(["systemctl", "start", f"issu@{device}"])
    try:
        id = wait.until(ended, UPGRADE_SEC, "the upgrade ends")
    finally:
        sh.kill(starter)
        starter.communicate()
    report = e.report(id)
    tell_new(report["phases"])
    tell(report["result"], report["phases"][-1]["end_usec"] - begin)
    return id


def raise_if_failed(starter: subprocess.Popen[str]) -> None:
    """`systemctl start` has said no, and there is not even a report of a refusal."""
    if starter.poll():
        raise sh.CommandError(["systemctl", "start", "issu@"], "failed", starter.communicate()[1])


def picture(e: Element, id: str, dest: Path) -> Path:
    """The Gantt chart of an upgrade, drawn inside and brought out."""
    inside = "/run/demo.svg"
    e.machine.run(["issu", "report", "--svg", inside, id])
    dest.parent.mkdir(exist_ok=True)
    dest.write_bytes(e.machine.path(inside).read_bytes())
    e.machine.path(inside).unlink()
    return dest
