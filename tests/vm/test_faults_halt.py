"""Six faults with strategy halt: each ends on one of the two roots, and the history tells why."""

from collections.abc import Iterator

import pytest

from . import dozen
from .dozen import Outcomes
from .faults import Cell


@pytest.fixture(scope="module")
def outcomes() -> Iterator[Outcomes]:
    with dozen.outcomes(dozen.HALT) as found:
        yield found


@pytest.mark.parametrize("cell", dozen.HALT, ids=str)
def test_a_fault_ends_on_one_root(outcomes: Outcomes, cell: Cell) -> None:
    dozen.check(outcomes, cell)
