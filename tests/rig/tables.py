"""What the benchmark prints. Pure but for `conditions`; every line at most 100 columns."""

import os
import platform
import tempfile
from collections.abc import Callable, Sequence
from statistics import median

from . import sh
from .echoes import MOST
from .idle import Idle
from .measure import Measured
from .probe import PERIOD
from .rivals import ISSU, KNOWN_ROOT, NEW_ROOT, TITLES, Rival

LONGEST = 5


def conditions(rounds: int, load: float) -> list[str]:
    """Under which conditions the figures came about; `load` was the machine's without us."""
    place = os.environ.get("ISSU_WORK", tempfile.gettempdir())
    disk = sh.output(["findmnt", "--noheadings", "--first-only", "-o", "FSTYPE", "-T", place])
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    return [
        f"Debian 13 to an equal Debian 13 in a container; kernel {platform.release()},",
        f"{os.cpu_count()} processors, {memory} GiB of memory, disk images on {disk}; "
        f"load before the start {load:.1f}.",
        "Outage: from the first probe that failed until every service answered again, in ms;",
        f"the median of {rounds}, and each. \"ISSU is\": the ISSU's outage in parts of this one's.",
        f"A service is asked every {PERIOD * 1000:.0f} ms. Of more than {MOST} services {MOST} are",
        "asked, first and last among them, and PID 1 tells when the last one of all was ready.",
        "The full restart of a container has no firmware, boot loader or kernel start in it.",
        "The rivals take turns, and each round begins with another one.",
    ]


def pick(found: Sequence[Measured], key: str, count: int, *, new_root: bool) -> list[Measured]:
    """What was measured of one rival under the same conditions."""
    wanted = (key, count, new_root)
    return [one for one in found if (one.rival, one.services, one.new_root) == wanted]


def outages(found: Sequence[Measured]) -> list[str]:
    """All the rivals by number of services, first with known roots and then with new ones."""
    lines = ["", "Known root: booted before, everything in memory"]
    lines += table(found, KNOWN_ROOT, new_root=False)
    lines += ["", "New root: nothing of it in memory, the work of its first boot still to be done"]
    return lines + table(found, NEW_ROOT, new_root=True)


def table(found: Sequence[Measured], rivals: Sequence[Rival], *, new_root: bool) -> list[str]:
    """One table: outage, the ISSU's in parts of it, one service's own, duration of it all."""
    sizes = sorted({one.services for one in found if one.new_root == new_root})
    lines = [
        f"{'':50}{'ISSU':>7}{'one service':>16}{'whole':>7}",
        f"services  {'':32}{'outage':>8}{'is':>7}{'median':>8}{'longest':>8}{'run':>7}  each",
    ]
    for size in sizes:
        base = median_of(pick(found, ISSU.key, size, new_root=new_root), lambda m: m.outage)
        for rival in rivals:
            mine = pick(found, rival.key, size, new_root=new_root)
            outage = median_of(mine, lambda m: m.outage)
            cells = [
                f"{size:>8}  {TITLES[rival.key]:<32}",
                f"{outage / 1000:>8.0f}{base / outage:>7.2f}",
                f"{median_of(mine, lambda m: m.middle) / 1000:>8.0f}",
                f"{median_of(mine, lambda m: max(m.longest)) / 1000:>8.0f}",
                f"{median_of(mine, lambda m: m.whole) / 1000:>7.0f}",
                "  " + " ".join(f"{one.outage / 1000:.0f}" for one in mine),
            ]
            lines.append("".join(cells))
    return lines


def median_of(found: Sequence[Measured], figure: Callable[[Measured], float]) -> float:
    """The median of one figure."""
    return median(figure(one) for one in found)


def parts(found: Sequence[Measured]) -> list[str]:
    """The longest parts of the ISSU's outage as PID 1 and the record tell it."""
    lines = ["", "Where the ISSU's outage goes, by the clock of PID 1: the longest parts in ms"]
    for size in sorted({one.services for one in found if not one.new_root}):
        mine = pick(found, ISSU.key, size, new_root=False)
        counted = median(one.counted or 0 for one in mine)
        length = {name: median(one.parts[name] for one in mine) for name in mine[0].parts}
        lines.append(f"{size:>8}  services, {counted / 1000:.0f} ms as `issu report` counts it")
        for name in sorted(length, key=lambda name: -length[name])[:LONGEST]:
            share = 100 * length[name] / counted
            lines.append(f"{length[name] / 1000:>18.0f} {share:>5.0f} %  {name}")
    return lines


def idle_cost(idle: Idle) -> list[str]:
    """The generator at an ordinary boot."""
    one, other = median(idle.generator), median(idle.empty)
    return [
        "",
        "issu-generator with no upgrade in progress, at every boot and reload:",
        f"{one:.0f} us a run, an empty shell script {other:.0f} us: {idle.cost:.0f} us of its own",
    ]
