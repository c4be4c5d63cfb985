"""Who forbids upgrades for now, as logind keeps its inhibitors: a FIFO each, whose writer holds it.

/run/issu/inhibit/N says who and why, N.ref is the FIFO. Nobody need be resident for it: whoever
wants to know opens the FIFO and reads. End of file means that no writer lives (fifo(7)), so the
inhibitor is released; EAGAIN means that it is held. Only root may open anything there.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from . import record, request
from .errors import IssuError

NAME = "inhibit"
MOST = 256  # as many at a time
READ_BYTES = 65536  # a FIFO holds no more, see pipe(7)


@dataclass(frozen=True)
class Inhibitor:
    """One that is held: by whom and why, for people; the caller's user and process."""

    who: str
    why: str
    uid: int
    pid: int

    def sentence(self) -> str:
        """As a refusal names it."""
        return f"{self.who} ({self.why}), process {self.pid} of user {self.uid}"


def take(who: str, why: str, uid: int, pid: int) -> int:
    """A descriptor that forbids upgrades until its last copy is closed.

    Raises InvalidArgument, IssuError if there are too many, OSError.
    """
    told = Inhibitor(request.text("who", who), request.text("why", why), uid, pid)
    with locked(make=True) as place:
        names = {name for name, _ in entries(place)}
        if len(names) >= MOST:
            raise IssuError(f"{len(names)} inhibitors are held, the most there can be")
        name = next(str(n) for n in range(1, MOST + 2) if str(n) not in names)
        fifo = place / f"{name}.ref"
        fifo.unlink(missing_ok=True)  # of one that died before it was told
        os.mkfifo(fifo, 0o600)
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            writer = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        finally:
            os.close(reader)
        try:
            record.write_atomically(place / name, json.dumps(asdict(told)) + "\n")
        except OSError:
            os.close(writer)
            fifo.unlink(missing_ok=True)
            raise
        return writer


def held() -> list[Inhibitor]:
    """Every inhibitor that is held; the files of those released are removed."""
    with locked(make=False) as place:
        return [inhibitor for _, inhibitor in entries(place)]


@contextmanager
def locked(*, make: bool) -> Iterator[Path]:
    """The directory, while nobody else takes an inhibitor or looks; raises OSError."""
    place = record.DIRECTORY / NAME
    if make:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield place  # nobody ever took one
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield place
    finally:
        os.close(fd)


def entries(place: Path) -> Iterator[tuple[str, Inhibitor]]:
    """The name and the words of each inhibitor that is held; what is released is cleared away."""
    for fifo in sorted(place.glob("*.ref")):
        told = place / fifo.stem
        if is_held(fifo):
            inhibitor = Inhibitor("somebody", "nobody can read why", 0, 0)
            with suppress(OSError, ValueError, TypeError):
                inhibitor = Inhibitor(**json.loads(told.read_text()))
            yield fifo.stem, inhibitor
        else:
            told.unlink(missing_ok=True)
            fifo.unlink(missing_ok=True)


def is_held(fifo: Path) -> bool:
    """Whether somebody has the FIFO open for writing; what was written to it does not matter."""
    try:
        fd = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        # Twice: what was written before the end comes first. Whoever writes on still lives.
        return all(os.read(fd, READ_BYTES) for _ in range(2))
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
