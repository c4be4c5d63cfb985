"""From single answers and failures to outages. Pure; all times CLOCK_MONOTONIC microseconds."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Gap:
    """An outage: from the last good answer before it to the first good answer after it."""

    start_usec: int
    end_usec: int

    @property
    def usec(self) -> int:
        return self.end_usec - self.start_usec


@dataclass(frozen=True)
class Answer:
    """A stretch of equal good answers."""

    text: str
    first_usec: int
    last_usec: int
    count: int


@dataclass(frozen=True)
class Observed:
    """What a probe has seen of one service.

    `spacing_usec` is the longest time between two good answers, failure or not: large without
    an outage, it says that the service was slow or the probe itself was kept from running.
    """

    outages: tuple[Gap, ...]
    answers: tuple[Answer, ...]
    failures: int
    spacing_usec: int
    last_error: str

    @property
    def longest_usec(self) -> int:
        return max((gap.usec for gap in self.outages), default=0)

    @property
    def total_usec(self) -> int:
        return sum(gap.usec for gap in self.outages)

    @property
    def texts(self) -> list[str]:
        """The different answers in the order they came."""
        return [answer.text for answer in self.answers]

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Undo dataclasses.asdict."""
        return cls(
            tuple(Gap(**gap) for gap in data["outages"]),
            tuple(Answer(**answer) for answer in data["answers"]),
            data["failures"],
            data["spacing_usec"],
            data["last_error"],
        )


def gaps(good: Sequence[int], failed: Sequence[int], begin: int, end: int) -> tuple[Gap, ...]:
    """Outages from the times good answers arrived and the times failed attempts were started.

    Both are sorted. Attempts overlap, so a failure counts where it began: one that timed out
    belongs to the outage it was sent into. `begin` and `end` of the observation stand in for
    a good answer that is missing before the first or after the last failure.
    """
    found: dict[int, Gap] = {}
    for start in failed:
        after = bisect_right(good, start)
        found[after] = Gap(
            good[after - 1] if after else begin,
            good[after] if after < len(good) else end,
        )
    return tuple(found.values())
