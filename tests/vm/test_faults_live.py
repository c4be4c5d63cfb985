"""Six faults with strategy live: each ends on one of the two roots, and the history tells why."""

from collections.abc import Iterator

import pytest

from . import dozen
from .dozen import Outcomes
from .faults import Cell


@pytest.fixture(scope="module")
def outcomes() -> Iterator[Outcomes]:
    with dozen.outcomes(dozen.LIVE) as found:
        yield found


@pytest.mark.parametrize("cell", dozen.LIVE, ids=str)
def test_a_fault_ends_on_one_root(outcomes: Outcomes, cell: Cell) -> None:
    dozen.check(outcomes, cell)
