"""One outage of one rival, measured from outside.

It lasts from the first probe that failed until every probed service answered, and until PID 1
had the last of all services, probed or not, ready.
"""

import os
import time
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from tests.container.element import Element

from . import echoes, parts, wait
from .figures import since, window
from .probe import Probe
from .rivals import Rival, make_new

UP_SEC = 120.0  # for every service to be away and to answer again


@dataclass(frozen=True)
class Measured:
    """One outage; times in microseconds.

    `longest` holds each probed service's own, `whole` is from the command until all was up;
    `counted` is what `issu report` gives as outage, `parts` is what that one consists of.
    """

    rival: str
    services: int
    new_root: bool
    outage: int
    longest: list[int]
    whole: int
    counted: int | None
    parts: dict[str, int]

    @property
    def middle(self) -> float:
        """The median of the services."""
        return median(self.longest)

    def json(self) -> dict[str, Any]:
        """For the file of figures."""
        return asdict(self) | {"middle": self.middle}


def measure(e: Element, rival: Rival, count: int, *, new_root: bool = False) -> Measured:
    """Let a rival run once under probes; the machine has settled before and after."""
    network = e.machine.network
    with Probe(network.outside, echoes.probed(network.address, count)) as probe:
        probe.wait_up(UP_SEC)
        if new_root:
            make_new(e)
        os.sync()  # nobody pays for what another has written
        begin = time.monotonic_ns() // 1000
        report = rival.run(e)
        wait.until(
            lambda: back(probe, begin), UP_SEC, "every service was away and is back", interval=0.1
        )
        e.machine.wait_running(UP_SEC)
        seen = list(probe.stop().values())
    gap = window(seen, begin)
    units = parts.unit_times(e.machine, echoes.UNITS)
    assert gap and len(units) == count, f"{len(units)} of {count} services run"
    end = max(gap.end_usec, *(unit[parts.UP] for unit in units.values()))
    return Measured(
        rival=rival.key,
        services=count,
        new_root=new_root,
        outage=end - gap.start_usec,
        longest=[max((g.usec for g in since(service, begin)), default=0) for service in seen],
        whole=end - begin,
        counted=report.get("outage_usec"),
        parts=parts.of(e.machine, report) if report else {},
    )


def back(probe: Probe, begin: int) -> bool:
    """Whether every probed service was away after `begin` and has answered since."""
    for service in probe.observed().values():
        gaps = since(service, begin)
        if not gaps or service.answers[-1].last_usec < gaps[-1].end_usec:
            return False
    return True
