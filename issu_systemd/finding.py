"""What a check of preflight found, and what a check is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from .evidence import Facts

BLOCK, WARN, INFO = "block", "warn", "info"


class Finding(NamedTuple):
    """What a check found: its id, how bad it is, a sentence, and the way out."""

    id: str
    severity: str
    text: str
    way_out: str


Check = Callable[[Facts], Iterator[Finding]]
