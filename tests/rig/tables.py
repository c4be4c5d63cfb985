"""What the benchmark prints. Pure but for `conditions`; every line at most 100 columns."""

import os
import platform
import tempfile
from collections.abc import Callable, Iterable, Sequence
from statistics import median

from . import sh
from .echoes import MOST, PERIOD
from .idle import Idle, Status
from .measure import Measured
from .moments import Silence, WayBack
from .rivals import HALT, KNOWN_ROOT, LIVE, NEW_ROOT, PLAIN, RESTART, SOFT, TITLES, Rival

LONGEST = 5
AGAINST = (PLAIN, SOFT, HALT, RESTART)


def conditions(rounds: int, load: float) -> list[str]:
    """Under which conditions the figures came about; `load` was the machine's without us."""
    place = os.environ.get("ISSU_WORK", tempfile.gettempdir())
    disk = sh.output(["findmnt", "--noheadings", "--first-only", "-o", "FSTYPE", "-T", place])
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    return [
        f"Debian 13 to an equal Debian 13 in a container; kernel {platform.release()},",
        f"{os.cpu_count()} processors, {memory} GiB of memory, disk images on {disk}; "
        f"load before the start {load:.1f}.",
        f"Times in ms, each the median of {rounds}.",
        f"One service: seen from outside, asked every {PERIOD * 1000:.0f} ms, from its last good",
        f"answer to the next. Of more than {MOST} services {MOST} are asked, first and last among",
        "them. Sum: the outages of all services, by the clock of PID 1 from stop to start;",
        "where PID 1 forgets them (~) the mean of those asked, times their number.",
        "All: from the first failed question until every service was up. Run: from the command.",
        "The full restart of a container has no firmware, boot loader or kernel start in it.",
        "The rivals take turns, and each round begins with another one.",
    ]


def pick(
    found: Iterable[Measured], key: str, count: int, *, new_root: bool = False
) -> list[Measured]:
    """What was measured of one rival under the same conditions."""
    wanted = (key, count, new_root)
    return [one for one in found if (one.rival, one.services, one.new_root) == wanted]


def sizes(found: Iterable[Measured], *, new_root: bool = False) -> list[int]:
    """The numbers of services that were measured."""
    return sorted({one.services for one in found if one.new_root == new_root})


def median_of(found: Iterable[Measured], figure: Callable[[Measured], float]) -> float:
    """The median of one figure."""
    return median(figure(one) for one in found)


def outages(found: Sequence[Measured]) -> list[str]:
    """All the rivals by number of services, first with known roots and then with new ones."""
    lines = ["", "Known root: booted before, everything in memory"]
    lines += table(found, KNOWN_ROOT, new_root=False)
    lines += ["", "New root: nothing of it in memory, the work of its first boot still to be done"]
    return lines + table(found, NEW_ROOT, new_root=True)


def table(found: Sequence[Measured], rivals: Sequence[Rival], *, new_root: bool) -> list[str]:
    """One table: a service's own outage, the sum of all, all together, duration of it all."""
    lines = [
        f"{'':42}{'one service':>18}",
        f"services  {'':32}{'median':>9}{'longest':>9}{'sum':>11}{'all':>9}{'run':>9}",
    ]
    for size in sizes(found, new_root=new_root):
        for rival in rivals:
            mine = pick(found, rival.key, size, new_root=new_root)
            guessed = "~" if any(one.known is None for one in mine) else ""
            cells = [
                f"{size:>8}  {TITLES[rival.key]:<32}",
                f"{median_of(mine, lambda m: m.middle) / 1000:>9.1f}",
                f"{median_of(mine, lambda m: max(m.longest)) / 1000:>9.1f}",
                f"{guessed + format(median_of(mine, lambda m: m.sum) / 1000, '.0f'):>11}",
                f"{median_of(mine, lambda m: m.outage) / 1000:>9.0f}",
                f"{median_of(mine, lambda m: m.whole) / 1000:>9.0f}",
            ]
            lines.append("".join(cells))
    return lines


def ratios(found: Sequence[Measured]) -> list[str]:
    """The outage of one service, and the sum of all, with strategy live in parts of the rivals'."""
    head = "".join(f"{rival.key:>14}" for rival in AGAINST)
    lines = ["", "live divided by:", f"services  {'':18}{head}"]
    figures: dict[str, Callable[[Measured], float]] = {
        "one service": lambda m: m.middle, "longest": lambda m: max(m.longest),
        "sum": lambda m: m.sum,
    }  # fmt: skip
    for size in sizes(found):
        for name, figure in figures.items():
            mine = median_of(pick(found, LIVE.key, size), figure)
            theirs = [median_of(pick(found, rival.key, size), figure) for rival in AGAINST]
            cells = "".join(f"{mine / other:>14.3f}" for other in theirs)
            lines.append(f"{size:>8}  {name:<18}{cells}")
    return lines


def moments(
    found: Sequence[Measured], silences: Sequence[Silence], backs: Sequence[WayBack]
) -> list[str]:
    """What strategy live costs besides: the pivot, PID 1's silence, the way back."""
    lines = [
        "",
        "Strategy live besides. Pivot: one system call, in us. Re-execution: until PID 1 answers",
        "again. Silence: for a client of the system bus that asks PID 1 every 2 ms; the longest at",
        "any time (the bus restarts too). Back: the last service of the new root fails; from there",
        "until everything is back, and the longest outage of a service there and back.",
        f"services  {'pivot':>8}{'re-exec':>9}{'silence':>9}{'longest':>9}{'back':>9}{'outage':>9}",
    ]
    for size in sizes(found):
        mine = [one.steps for one in pick(found, LIVE.key, size)]
        quiet = [one for one in silences if one.services == size]
        back = [one for one in backs if one.services == size]
        figures = [
            median(one["pivot_usec"] for one in mine) * 1000,
            median(one["reexec_usec"] for one in mine),
            median(one.reexec for one in quiet),
            median(one.longest for one in quiet),
            median(one.usec for one in back),
            median(one.longest for one in back),
        ]
        cells = "".join(f"{figure / 1000:>9.0f}" for figure in figures)
        lines.append(f"{size:>8} {cells}")
    return lines


def parts(found: Sequence[Measured]) -> list[str]:
    """The longest parts of strategy halt's outage as PID 1 and the record tell it."""
    lines = ["", "Where the outage of strategy halt goes, by the clock of PID 1: the longest parts"]
    for size in sizes(found):
        mine = pick(found, HALT.key, size)
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


def status_cost(speeds: Sequence[Status]) -> list[str]:
    """How quickly the command answers, beside its model."""
    lines = ["", f"services  {'issu status':>12}{'systemctl status':>18}{'divided':>9}"]
    for one in speeds:
        figures = (median(one.issu) / 1000, median(one.systemctl) / 1000)
        lines.append(f"{one.services:>8}  {figures[0]:>12.1f}{figures[1]:>18.1f}{one.ratio:>9.2f}")
    return lines
