"""The fault matrix: every fault at every place with both strategies, a table at the end.

    make fault-matrix                              all of it: hours
    make fault-matrix STRATEGY=live                one strategy
    make fault-matrix CELLS='*-power-* halt-hang-arrive'

Two guests work side by side, one with each strategy. What has been run with the same package and
tests is not run again, so it can be interrupted; with AGAIN=1 it is. The table goes into
docs/safety.md, with how many of its cells are of an earlier build.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from issu_systemd import __version__, record
from tests.container.element import package
from tests.rig import cache, traces

from . import cells, faults
from .cells import Outcome, bench
from .channel import Lost
from .faults import FAULTS, PHASES, STRATEGIES, Cell

KEEPING = threading.Lock()
STORE = cache.directory() / "faults.json"
SAFETY = Path("docs/safety.md")
BEGIN, END = "<!-- fault matrix -->", "<!-- end -->"
MOST = 12  # cells in a guest: what one has spoilt ends with it
HEADS = {**{phase: phase for phase in PHASES}, **faults.TITLES}


def build() -> str:
    """What an outcome depends on."""
    here = Path(__file__).parent
    sources = [here / f"{name}.py" for name in ("cells", "faults", "guest")]
    sources.append(here / "data/stand")
    return cache.digest(package().read_bytes(), *(path.read_bytes() for path in sources))


def known() -> dict[str, Any]:
    """The outcomes so far, by the names of their cells; each has the build that it is of."""
    found: dict[str, Any] = json.loads(STORE.read_text()) if STORE.exists() else {}
    return found


def chosen() -> list[Cell]:
    """The cells that STRATEGY= and CELLS= select."""
    strategy, patterns = os.environ.get("STRATEGY"), os.environ.get("CELLS", "*").split()
    return [
        cell for cell in faults.matrix()
        if strategy in (None, "", cell.strategy)
        and any(fnmatch(str(cell), pattern) for pattern in patterns)
    ]  # fmt: skip


def in_order(wanted: Sequence[Cell]) -> list[Cell]:
    """Those first that end where they began; a boot is due where one ends on the other root."""
    ends = {cell: faults.expected(cell)[0] for cell in wanted}
    return sorted(wanted, key=lambda cell: (ends[cell].root == "new", ends[cell].stuck))


def run(wanted: Sequence[Cell], results: dict[str, Any], of: str) -> None:
    """Run cells, and keep each outcome at once; a guest that is lost is made anew."""
    left = in_order(wanted)
    while left:
        some, left = left[:MOST], left[MOST:]
        with traces.workspace() as work:
            try:
                with bench(work, cpus=1) as made:
                    while some:
                        cell = some.pop(0)
                        began = time.monotonic()
                        keep(made.run(cell), results, of)
            except (AssertionError, Lost, OSError, ValueError) as error:
                print(error, flush=True)
                lost = (f"the test lost it: {str(error).partition(chr(10))[0]}",)
                seconds = time.monotonic() - began
                keep(Outcome(cell, "?", "?", "", seconds, "", lost), results, of)
                left = some + left


def keep(outcome: Outcome, results: dict[str, Any], of: str) -> None:
    """Print an outcome of a build, and keep it for the table."""
    print(f"{datetime.now(UTC):%H:%M:%S} {outcome}", flush=True)
    name = str(outcome.cell)
    with KEEPING:
        results[name] = outcome._asdict() | {"cell": name, "build": of}
        record.write_atomically(STORE, json.dumps(results, indent=1) + "\n")


def entry(found: Mapping[str, Any] | None) -> str:
    """One cell of the table: root, result, how, seconds."""
    if found is None:
        return "-"
    how = f", {found['reset']}" if found["reset"] else ""
    wrong = "**WRONG** " if found["wrong"] else ""
    return f"{wrong}{found['root']}, {found['result']}{how}, {found['seconds']:.0f} s"


def table(results: Mapping[str, Any]) -> str:
    """The matrix in Markdown, a row a fault and strategy."""
    lines = ["| fault | strategy | " + " | ".join(HEADS[phase] for phase in PHASES) + " |"]
    lines.append("|" + "---|" * (len(PHASES) + 2))
    for fault in FAULTS:
        for strategy in STRATEGIES:
            row = [entry(results.get(str(Cell(strategy, fault, phase)))) for phase in PHASES]
            lines.append(f"| {fault} | {strategy} | " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def heading(results: Mapping[str, Any]) -> str:
    """When it was, of how many cells, and what a watchdog there was."""
    wrong = sum(bool(found["wrong"]) for found in results.values())
    armed = f"{cells.WATCHDOG_SEC} s" if cells.HAS_WATCHDOG else "none"
    earlier = sum(found["build"] != build() for found in results.values())
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {__version__}: {len(results)} of {len(faults.matrix())} "
        f"cells run, {wrong} wrong, {earlier} seen with an earlier build; "
        f"{' to '.join(cells.SUITES)} in an emulated machine; watchdog: {armed}.\n"
    )


def publish(text: str) -> None:
    """Put the table between its marks."""
    before, _, rest = SAFETY.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    SAFETY.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}")


def main() -> int:
    """Run what is left to run, print the table and put it into docs/safety.md."""
    results, now = known(), build()
    wanted = [
        cell for cell in chosen()
        if os.environ.get("AGAIN") or results.get(str(cell), {}).get("build") != now
    ]  # fmt: skip
    with ThreadPoolExecutor() as pool:
        parts = ([cell for cell in wanted if cell.strategy == name] for name in STRATEGIES)
        for _ in pool.map(lambda some: run(some, results, now), parts):
            pass
    text = f"{heading(results)}\n{table(results)}"
    publish(text)
    print(text)
    return int(any(found["wrong"] for found in results.values()))


if __name__ == "__main__":
    sys.exit(main())
