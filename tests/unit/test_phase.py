"""Every edge between phases, the legal and the illegal ones."""

from __future__ import annotations

from itertools import pairwise, product

import pytest

from issu_systemd.errors import IssuError
from issu_systemd.phase import ORDER, STOPPED, Phase, check_edge

NAMES = ["preflight", "stage", "release", "switch", "arrive", "verify", "accept"]
LEGAL = {
    (None, "preflight"),
    *((name, name) for name in NAMES),  # a process of ours that was killed repeats its phase
    *pairwise(NAMES),
    # It goes back from wherever services may run from the new root.
    *((name, "roll-back") for name in ("switch", "arrive", "verify", "accept", "roll-back")),
}


def test_the_names_are_those_of_the_contract() -> None:
    assert [str(phase) for phase in Phase] == [*NAMES, "roll-back"]
    assert [str(phase) for phase in ORDER] == NAMES


@pytest.mark.parametrize(
    ("old", "new"), list(product([None, *NAMES, "roll-back"], [*NAMES, "roll-back"]))
)
def test_edge(old: str | None, new: str) -> None:
    edge = (Phase(old) if old else None, Phase(new))
    if (old, new) in LEGAL:
        check_edge(*edge)
        return
    with pytest.raises(IssuError) as caught:
        check_edge(*edge)
    assert str(old) in str(caught.value)
    assert new in str(caught.value)


def test_services_are_stopped_between_release_and_arrival() -> None:
    assert [phase for phase in Phase if phase in STOPPED] == [Phase.RELEASE, Phase.SWITCH]
