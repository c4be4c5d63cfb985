"""The pure parts of demonstration and benchmark."""

import pytest

from . import figures, idle, moments, parts, tables
from .measure import Measured
from .outage import Answer, Gap, Observed
from .rivals import KNOWN_ROOT, NEW_ROOT
from .trip import Look, Trip

ANSWER = Answer("a", 0, 1, 1)


def observed(*gaps: tuple[int, int], answers: int = 1) -> Observed:
    return Observed(tuple(Gap(*gap) for gap in gaps), (ANSWER,) * answers, len(gaps), 0, "")


def test_window_is_from_the_first_failure_to_the_last_recovery() -> None:
    seen = [observed((10, 50)), observed((5, 20)), observed()]
    assert figures.window(seen) == Gap(5, 50)
    assert figures.window([observed()]) is None


def test_window_forgets_what_was_over_before() -> None:
    assert figures.window([observed((1, 4), (10, 50))], begin=4) == Gap(10, 50)
    assert figures.window([observed((1, 4))], begin=4) is None


@pytest.mark.parametrize(("count", "most"), [(3, 10), (10, 10), (11, 10), (30, 10), (300, 10)])
def test_sample_has_first_and_last(count: int, most: int) -> None:
    chosen = figures.sample(count, most)
    assert (chosen[0], chosen[-1], len(chosen)) == (1, count, min(count, most))
    assert sorted(set(chosen)) == chosen


def test_parts_add_up_to_the_outage() -> None:
    points = [("", 10), ("one", 30), ("not in order", 20), ("two", 60)]
    assert parts.lengths(points) == {"one": 20, "not in order": 0, "two": 30}


@pytest.mark.parametrize(
    ("result", "boot", "state", "os", "gaps", "says"),
    [
        ("accepted", "k", "running", "Debian 13 (trixie)", ((1, 2),), []),
        ("failed", "k", "running", "Debian 13 (trixie)", ((1, 2),), ["ended as failed: why"]),
        ("accepted", "other", "running", "Debian 13 (trixie)", ((1, 2),), ["boot id other"]),
        ("accepted", "k", "degraded", "Debian 13 (trixie)", ((1, 2),), ["is degraded"]),
        ("accepted", "k", "running", "Debian 12 (bookworm)", ((1, 2),), ["not (trixie)"]),
        ("accepted", "k", "running", "Debian 13 (trixie)", (), ["saw nothing"]),
    ],
)
def test_demonstration_fails_unless_all_is_as_it_must_be(
    result: str, boot: str, state: str, os: str, gaps: tuple[tuple[int, int], ...], says: list[str]
) -> None:
    report = {"result": result, "error": "why"}
    seen = {"version-echo": observed(*gaps, answers=2)}
    trip = Trip(Look("k", "", "running"), Look(boot, os, state), report, "", seen)
    found = trip.troubles("(trixie)")
    assert len(found) == len(says)
    assert all(part in text for part, text in zip(says, found, strict=True))


def measured(rival: str, services: int, *, new_root: bool, outage: int) -> Measured:
    part = {"start": outage // 2, "stop": outage // 2} if rival == "halt" else {}
    steps = {"pivot_usec": 90, "reexec_usec": 250_000} if rival == "live" else {}
    known = None if "re" in rival else outage * services
    return Measured(
        rival, services, new_root, outage, [outage, outage * 2], outage, known, outage, part, steps
    )


OUTAGES = (4_000, 5_000, 16_000_000, 8_000_000, 9_000_000, 20_000_000)


def test_tables_compare_and_fit_the_console() -> None:
    found = [
        measured(rival.key, size, new_root=new_root, outage=outage)
        for new_root, rivals in ((False, KNOWN_ROOT), (True, NEW_ROOT))
        for size in (3, 300)
        for outage, rival in zip(OUTAGES, rivals, strict=False)
        for _ in range(3)
    ]
    silences = [moments.Silence(size, 200_000, 300_000) for size in (3, 300)]
    backs = [moments.WayBack(size, 800_000, 50_000, 9_000_000) for size in (3, 300)]
    lines = [
        *tables.conditions(3, 0.5), *tables.outages(found), *tables.ratios(found),
        *tables.moments(found, silences, backs), *tables.parts(found),
        *tables.status_cost([idle.Status(3, [30_000.0], [20_000.0])]),
    ]  # fmt: skip
    assert max(map(len, lines)) <= 100
    (row,) = [line for line in lines if line.startswith("     300  soft-reboot, same root")]
    assert row.split()[4:] == ["12000.0", "16000.0", "~3600000", "8000", "8000"]
    (row,) = [line for line in lines if line.startswith("     300  one service")]
    assert row.split()[3:] == ["0.800", "0.001", "0.000", "0.000"]
    assert "     300        90      250      200      300      800       50" in lines
    assert sum("50 %" in line for line in lines) == 4
    assert "       3          30.0              20.0     1.50" in lines
