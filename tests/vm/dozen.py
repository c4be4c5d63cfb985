"""The cells of the fault matrix that hurt most, six with each strategy, which every run has.

Each cell says where the machine must be and what its history must tell (`faults.expected`); all
the cells are `make fault-matrix`. Two files have a guest each, with one processor, so that they run
side by side.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.rig import traces

from . import cells
from .cells import Outcome
from .faults import Cell

# In the order in which a guest has the fewest boots: a cell that ends on the new root is followed
# by one that may go the other way, or by one that boots anyway.
HALT = (
    Cell("halt", "unplug", "release"), Cell("halt", "run-full", "release"),
    Cell("halt", "kill", "after"), Cell("halt", "hang", "arrive"),
    Cell("halt", "power", "before"), Cell("halt", "power", "arrive"),
)  # fmt: skip
LIVE = (
    Cell("live", "unplug", "release"), Cell("live", "kill", "before"),
    Cell("live", "kill", "after"), Cell("live", "root-full", "arrive"),
    Cell("live", "power", "after"), Cell("live", "io-error", "after"),
)  # fmt: skip
Outcomes = dict[Cell, Outcome | Exception]


@contextmanager
def outcomes(wanted: Sequence[Cell]) -> Iterator[Outcomes]:
    """The cells in one guest; what fails for itself fails for all that come after it."""
    found: Outcomes = {}
    with traces.workspace() as work:
        try:
            with cells.bench(work, cpus=1) as made:
                for cell in wanted:
                    found[cell] = made.run(cell)
        except Exception as error:  # told by the tests
            found |= {cell: error for cell in wanted if cell not in found}
        yield found


def check(found: Outcomes, cell: Cell) -> None:
    """Print how a cell ended, and assert that it is right."""
    outcome = found[cell]
    if isinstance(outcome, Exception):
        raise outcome
    print(outcome)
    assert outcome.wrong == (), outcome
