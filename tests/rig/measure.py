"""One run of one rival, measured from outside and by the clock of PID 1.

The outage of one service lasts from its last good answer to the next. That of them all lasts from
the first probe that failed until every probed service answered, and until PID 1 had the last of all
services, probed or not, ready.
"""

import os
import time
from dataclasses import asdict, dataclass
from statistics import mean, median
from typing import Any

from tests.container.element import Element

from . import echoes, parts, wait
from .figures import since, window
from .probe import Probe
from .rivals import HALT, PLAIN, Rival, make_new

UP_SEC = 120.0  # for every service to be away and to answer again


@dataclass(frozen=True)
class Measured:
    """One run; times in microseconds.

    `longest` holds each probed service's own outage, `outage` is that of all together, `whole` is
    from the command until all was up; `known` is the sum of the outages of all services by the
    clock of PID 1, None where it forgets them. `counted` is what `issu report` gives as outage,
    `parts` is what that one consists of, `steps` are those of strategy live.
    """

    rival: str
    services: int
    new_root: bool
    outage: int
    longest: list[int]
    whole: int
    known: int | None
    counted: int | None
    parts: dict[str, int]
    steps: dict[str, int]

    @property
    def middle(self) -> float:
        """The median of the services."""
        return median(self.longest)

    @property
    def sum(self) -> float:
        """The outages of all services, added up; from those that were probed if need be."""
        return self.known if self.known is not None else mean(self.longest) * self.services

    def json(self) -> dict[str, Any]:
        """For the file of figures."""
        return asdict(self) | {"middle": self.middle, "sum": self.sum}


def measure(e: Element, rival: Rival, count: int, *, new_root: bool = False) -> Measured:
    """Let a rival run once under probes; the machine has settled before and after."""
    network = e.machine.network
    services = echoes.probed(network.address, count)
    with Probe(network.outside, services, period=echoes.PERIOD) as probe:
        probe.wait_up(UP_SEC)
        if new_root:
            make_new(e)
        os.sync()  # nobody pays for what another has written
        begin = time.monotonic_ns() // 1000
        report = rival.run(e)
        if not rival.blocks:
            wait.until(lambda: were_away(probe, begin), UP_SEC, "all were away", interval=0.1)
        probe.wait_up(UP_SEC)
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
        known=known(rival, report, units),
        counted=report.get("outage_usec"),
        parts=parts.of(e.machine, report) if rival is HALT else {},
        steps=report.get("steps", {}),
    )


def were_away(probe: Probe, begin: int) -> bool:
    """Whether every probed service was away after `begin`."""
    return all(since(service, begin) for service in probe.observed().values())


def known(rival: Rival, report: dict[str, Any], units: parts.Times) -> int | None:
    """The outages of all services as PID 1 knows them, added up."""
    if rival is PLAIN:
        return sum(unit[parts.UP] - unit[parts.LEFT] for unit in units.values())
    if not report:
        return None
    rows: dict[str, int] = {row["unit"]: row["outage_usec"] for row in report["units"]}
    return sum(rows[unit] for unit in units)
