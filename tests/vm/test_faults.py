"""The cells of the fault matrix that hurt most, both strategies, in two guests side by side.

Each cell says where the machine must be and what its history must tell (`faults.expected`); all
the cells are `make fault-matrix`.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.rig import traces

from . import cells
from .cells import Outcome
from .faults import Cell

pytestmark = pytest.mark.long  # a quarter of an hour with two processors
# In the order in which a guest has the fewest boots: a cell that ends on the new root is followed
# by one that may go the other way, or by one that boots anyway.
GUESTS = (
    (
        Cell("halt", "unplug", "release"), Cell("halt", "run-full", "release"),
        Cell("halt", "kill", "after"), Cell("halt", "hang", "arrive"),
        Cell("halt", "power", "before"), Cell("halt", "power", "arrive"),
    ),
    (
        Cell("live", "unplug", "release"), Cell("live", "kill", "before"),
        Cell("live", "kill", "after"), Cell("live", "root-full", "arrive"),
        Cell("live", "power", "after"), Cell("live", "io-error", "after"),
    ),
)  # fmt: skip
Outcomes = dict[Cell, Outcome | Exception]


def run_all(work: Path, wanted: tuple[Cell, ...]) -> Outcomes:
    """The cells of one guest; what fails for itself fails for all that come after it."""
    found: Outcomes = {}
    work.mkdir()
    try:
        with cells.bench(work, cpus=1) as made:
            for cell in wanted:
                found[cell] = made.run(cell)
    except Exception as error:  # of a thread: told by the tests
        found |= {cell: error for cell in wanted if cell not in found}
    return found


@pytest.fixture(scope="module")
def outcomes() -> Iterator[Outcomes]:
    """All the cells, each guest with one processor."""
    with traces.workspace() as work, ThreadPoolExecutor() as pool:
        places = [work / str(number) for number, _ in enumerate(GUESTS)]
        found = [*pool.map(run_all, places, GUESTS)]
        yield {cell: outcome for some in found for cell, outcome in some.items()}


@pytest.mark.parametrize("cell", [cell for some in GUESTS for cell in some], ids=str)
def test_a_fault_ends_on_one_root(outcomes: Outcomes, cell: Cell) -> None:
    outcome = outcomes[cell]
    if isinstance(outcome, Exception):
        raise outcome
    print(outcome)
    assert outcome.wrong == (), outcome
