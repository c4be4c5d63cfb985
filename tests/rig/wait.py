"""Waiting for a condition with a deadline: the only place of the rig that sleeps."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Timeout(AssertionError):
    """A condition did not come true in time."""


def until(
    predicate: Callable[[], T | None],
    timeout: float,
    what: str,
    *,
    interval: float = 0.02,
    detail: Callable[[], str] | None = None,
) -> T:
    """Return the first true value of `predicate`, asked every `interval` seconds.

    Raises Timeout, naming `what` and adding `detail()`, after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() >= deadline:
            more = f": {detail()}" if detail else ""
            raise Timeout(f"not within {timeout:g} s: {what}{more}")
        time.sleep(interval)
