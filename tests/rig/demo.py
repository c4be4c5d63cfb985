"""`make demo`: a running Debian 12 becomes a Debian 13, and goes back, before your eyes.

STRATEGY in the environment is written into both roots as `[switch] strategy`.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from issu_systemd.timeline import duration
from tests.container.element import Element, element, package

from . import roots, sh
from .figures import window
from .probe import PERIOD
from .traces import workspace
from .trip import Trip, picture, travel

NAMES = {"bookworm": "Debian 12", "trixie": "Debian 13"}
RELEASE = {name: f"({suite})" for suite, name in NAMES.items()}
DIST = Path("dist")
WIDTH = 92
PHASES = {
    "preflight": "checks the machine and the new system",
    "stage": "prepares the new system; every service still answers",
    "release": "stops the services: the outage begins",
    "switch": "hands the running kernel over to the new system",
    "arrive": "the new system is in charge; the old one lets go of its disk",
    "verify": "starts the services and looks whether all is well",
    "accept": "ends the upgrade and writes the report",
}
LIVE = {
    "release": "stops what the new system does not have",
    "switch": "changes the root below the running services; PID 1 executes the new systemd",
    "arrive": "restarts the services one after another: each is away for its own restart",
    "verify": "starts what is new and looks whether all stays well; the old system lets go",
    "roll-back": "a service did not come back: everything goes back",
}


class Failed(Exception):
    """The demonstration did not show what it is there to show; a sentence a line."""


def main() -> int:
    """There and back; 0 if both went as they must."""
    if os.geteuid() != 0:
        return complain("it boots containers: run it as root")
    try:
        demonstrate(os.environ.get("STRATEGY", ""))
    except KeyboardInterrupt:
        return 130
    except (Failed, sh.CommandError, AssertionError, OSError) as error:
        return complain(str(error))
    return 0


def complain(why: str) -> int:
    """Say why there is nothing to be happy about."""
    sys.stdout.flush()
    lines = "\n  ".join(why.splitlines())
    print(f"\nThe demonstration FAILED:\n  {lines}", file=sys.stderr)
    return 1


def demonstrate(strategy: str) -> None:
    """Build, boot, upgrade, go back, sum up; raises Failed after showing what there is to see."""
    heading("A running system is replaced by another; its kernel runs on")
    for suite, name in NAMES.items():
        with step(f"{name} with nginx, dnsmasq and version-echo"):
            roots.installed(suite, package())

    def configure(root: Path) -> None:
        if strategy:
            conf = root / "etc/issu/conf.d/demo.toml"
            conf.parent.mkdir(parents=True, exist_ok=True)
            conf.write_text(f'[switch]\nstrategy = "{strategy}"\n')

    with ExitStack() as stack:
        work = stack.enter_context(workspace())
        with step("Debian 12 boots in a container, Debian 13 on a second disk"):
            both = element(work, *NAMES, in_source=configure, in_target=configure)
            e = stack.enter_context(both)
        there = upgrade(e, "there", "Debian 13", e.target)
        back = upgrade(e, "back", "Debian 12", e.source)
    summary({"Debian 12 -> 13": there, "Debian 13 -> 12": back})


def upgrade(e: Element, name: str, to: str, device: str) -> Trip:
    """One way, with all there is to see; raises Failed if anything is not as it must be."""
    heading(f"To {to}: systemctl start issu@{device}")
    trip = travel(e, device, tell)
    print(f"\n$ issu report\n\n{trip.text.rstrip()}\n")
    show(trip)
    if troubles := trip.troubles(RELEASE[to]):
        e.machine.failed = True  # keeps its logs
        raise Failed("\n".join(troubles))
    drawn = picture(e, trip.report["id"], DIST / f"demo-{name}.svg")
    print(f"\nThe same as a picture: {drawn}")
    return trip


# --- what is printed ----------------------------------------------------------------------------


def heading(text: str) -> None:
    """A line that begins a part."""
    print(f"\n=== {text} ".ljust(WIDTH, "="), flush=True)


@contextmanager
def step(text: str) -> Iterator[None]:
    """Show that something takes its time, then how long it took."""
    print(f"{text} ...", end="", flush=True)
    begin = time.monotonic()
    yield
    print(f" {time.monotonic() - begin:.1f} s", flush=True)


def tell(phase: str, since_usec: int) -> None:
    """One line for a phase that begins."""
    strategy = LIVE if os.environ.get("STRATEGY") == "live" else {}
    text = {**PHASES, **strategy}.get(phase, "")
    print(f"{since_usec / 1e6:8.3f} s  {phase:<10} {text}".rstrip(), flush=True)


def show(trip: Trip) -> None:
    """The system before and after, and what the probes saw of each service."""
    before, after = trip.before, trip.after
    print(f"                     {'before':<38} after")
    print(f"system               {before.os:<38} {after.os}")
    print(f"is-system-running    {before.state:<38} {after.state}")
    print(f"kernel's boot id     {before.boot_id:<38} {after.boot_id}")
    every = duration(round(PERIOD * 1e6))
    print(f"\nSeen from outside, each service asked every {every}:")
    print("service       longest gap  gaps  answered before -> after")
    for name, service in trip.seen.items():
        texts = " -> ".join(text.replace(" GNU/Linux", "") for text in service.texts)
        texts += " (both times)" if len(service.texts) == 1 else ""
        longest, gaps = duration(service.longest_usec), len(service.outages)
        print(f"{name:<12} {longest:>12} {gaps:>5}  {texts}")


def summary(trips: dict[str, Trip]) -> None:
    """One block for both ways."""
    heading("Summary")
    rows = {
        "": list(trips),
        "result": [trip.report["result"] for trip in trips.values()],
        **outages([*trips.values()]),
        "whole upgrade": [duration(trip.report["t4_usec"]) for trip in trips.values()],
        "system afterwards": [trip.after.state for trip in trips.values()],
        "same kernel": [f"yes, {t.after.boot_id.split('-')[0]}..." for t in trips.values()],
    }
    for label, cells in rows.items():
        print(f"{label:<28}" + "".join(f"{cell:<24}" for cell in cells).rstrip())


def outages(trips: list[Trip]) -> dict[str, list[str]]:
    """Of the whole system with strategy halt; with strategy live that has none, so of services."""
    if all(trip.report["strategy"] == "live" for trip in trips):
        own = [trip.report["unit_outage_usec"] for trip in trips]
        seen = [max(s.longest_usec for s in trip.seen.values()) for trip in trips]
        return {
            "longest of any unit": [duration(each["longest"]) for each in own],
            "longest seen from outside": [duration(usec) for usec in seen],
            "sum over all units": [duration(each["sum"]) for each in own],
        }
    return {
        "outage as systemd counts it": [duration(trip.report["outage_usec"]) for trip in trips],
        "outage seen from outside": [outside(trip) for trip in trips],
    }


def outside(trip: Trip) -> str:
    """From the first probe that failed until every service answered again."""
    gap = window(trip.seen.values())
    return duration(gap.usec if gap else 0)


if __name__ == "__main__":
    sys.exit(main())
