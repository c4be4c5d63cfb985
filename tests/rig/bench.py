"""`make bench`: how long services are away, by this ISSU and by its rivals, on Debian 13.

Prints figures and judges none. ROUNDS in the environment is how often each is measured, ISSU_WORK
where the disk images lie. The text goes to dist/bench.txt too, all figures to dist/bench.json.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.container.element import Element, element

from . import echoes, sh, traces
from .idle import Idle, Status, generator, status
from .measure import Measured, measure
from .moments import Silence, WayBack, silence, way_back
from .rivals import HALT, KNOWN_ROOT, LIVE, NEW_ROOT, TITLES, Rival
from .tables import conditions, idle_cost, moments, outages, parts, ratios, status_cost

SUITE = "trixie"
SIZES = (3, 30, 300)
NEW_ROOT_SIZE = 30
DIST = Path("dist")


def main() -> int:
    """Measure, print, write; 1 if a rival did not bring every service back."""
    if os.geteuid() != 0:
        print("the benchmark boots containers: run it as root", file=sys.stderr)
        return 1
    try:
        benchmark(int(os.environ.get("ROUNDS", "3")))
    except KeyboardInterrupt:
        return 130
    except (sh.CommandError, AssertionError, OSError) as error:
        print(f"The benchmark FAILED: {error}", file=sys.stderr)
        return 1
    return 0


def benchmark(rounds: int) -> None:
    """Measure everything `rounds` times."""
    os.environ.setdefault("ISSU_WORK", tempfile.gettempdir())  # a disk, as elements have it
    begin, load = time.monotonic(), os.getloadavg()[0]
    found: list[Measured] = []
    silences: list[Silence] = []
    speeds: list[Status] = []
    with machine_with(SIZES[0]) as e:
        idle = generator(e.machine)
    for count in SIZES:
        with machine_with(count) as e:
            for rival in (LIVE, HALT):  # both roots have been entered once then, and are in memory
                measure(e, rival, count)
            speeds.append(status(e.machine, count))
            found += in_turns(e, KNOWN_ROOT, count, rounds)
            silences += [silence(e, count) for _ in range(rounds)]
    with machine_with(NEW_ROOT_SIZE) as e:
        found += in_turns(e, NEW_ROOT, NEW_ROOT_SIZE, rounds, new_root=True)
    backs = [way_back(SUITE, count) for count in SIZES]
    lines = [
        *conditions(rounds, load), *outages(found), *ratios(found),
        *moments(found, silences, backs), *parts(found), *idle_cost(idle),
        *status_cost(speeds),
    ]  # fmt: skip
    text = "\n".join(lines) + f"\n\nMeasured in {time.monotonic() - begin:.0f} s.\n"
    keep(text, found, silences, backs, idle, speeds)
    print(f"\n{text}\nThe same in {DIST}/bench.txt, every figure in {DIST}/bench.json.")


def keep(
    text: str, found: list[Measured], silences: list[Silence], backs: list[WayBack], idle: Idle,
    speeds: list[Status],
) -> None:  # fmt: skip
    """Write the text, and every figure."""
    DIST.mkdir(exist_ok=True)
    (DIST / "bench.txt").write_text(text)
    figures = {
        "measured": [one.json() for one in found],
        "silences": [one._asdict() for one in silences],
        "ways_back": [one._asdict() for one in backs],
        "generator": idle._asdict(),
        "status": [one._asdict() for one in speeds],
    }
    (DIST / "bench.json").write_text(json.dumps(figures, indent=1) + "\n")


@contextmanager
def machine_with(count: int) -> Iterator[Element]:
    """A running machine with two equal roots of `count` services."""

    def fit_out(root: Path) -> None:
        echoes.install(root, count)

    with (
        traces.workspace() as work,
        element(work, SUITE, SUITE, in_source=fit_out, in_target=fit_out) as e,
    ):
        yield e


def in_turns(
    e: Element, rivals: tuple[Rival, ...], count: int, rounds: int, *, new_root: bool = False
) -> list[Measured]:
    """Measure each rival once a round, each round beginning with another of them."""
    found = []
    for first in range(rounds):
        for i in range(len(rivals)):
            rival = rivals[(first + i) % len(rivals)]
            found.append(measure(e, rival, count, new_root=new_root))
            text = f"{TITLES[rival.key]}{', new root' if new_root else ''}"
            print(f"{count:4} services  {found[-1].middle / 1000:6.1f} ms  {text}", flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
