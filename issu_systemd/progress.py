"""An upgrade on the screen: a bar on a terminal that can, a line for each phase elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .follow import State

Show = Callable[["State"], None]
AWAY = "the system bus is away; waiting for it"


@contextmanager
def display(*, quiet: bool = False, elapsed: float = 0.0) -> Iterator[Show]:
    """What to hand each state to; `elapsed` are the seconds that the upgrade runs already."""
    if quiet:
        yield lambda state: None
    elif can_draw():
        with bar(elapsed) as show:
            yield show
    else:
        yield lines()


def can_draw() -> bool:
    """Whether to draw: on a terminal that moves its cursor, with the library there."""
    if not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        return False
    try:
        import rich.progress  # noqa: F401
    except ImportError:
        return False
    return True


def lines() -> Show:
    """A line for each phase, and one each time the bus is lost."""
    told = ""

    def show(state: State) -> None:
        nonlocal told
        line = AWAY if state.away else state.phase
        if line and line != told:
            told = line
            print(line, flush=True)

    return show


@contextmanager
def bar(elapsed: float) -> Iterator[Show]:
    """A bar with the phase, the share that is done and the time; colours unless NO_COLOR is set."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<10}", markup=False), BarColumn(),
               TaskProgressColumn(), TimeElapsedColumn())  # fmt: skip
    with Progress(*columns, transient=True) as progress:
        task = progress.add_task("", total=100)
        if (begun := progress.tasks[0].start_time) is not None:
            progress.tasks[0].start_time = begun - elapsed
        told, since = "", time.monotonic()

        def over() -> None:
            """Leave the phase that is over above the bar, with the time it took."""
            if told:
                took = f"{told:<10} {time.monotonic() - since:.1f} s"
                progress.console.print(took, highlight=False, markup=False)

        def show(state: State) -> None:
            nonlocal told, since
            if state.phase != told:
                over()
                told, since = state.phase, time.monotonic()
            text = f"{state.phase} (away)" if state.away else state.phase
            progress.update(task, description=text, completed=max(state.percent, 0))

        yield show
        over()
