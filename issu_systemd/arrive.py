"""The first code of ours in the new root, run by issu-arrive.service before ordinary services.

It proves which root this is and that the old one is gone, lets the services start (READY=1), waits
until the system is healthy and ends the upgrade. Patent: operations 302, 314 and 310, [0067].
What only the end needs is imported late: the start of every service waits for this program.
"""

from __future__ import annotations

import logging
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from . import events, lastresort, log, oldroot, record
from .errors import IssuError
from .events import Event
from .phase import Phase
from .record import Record

logger = logging.getLogger(__name__)


def main() -> int:
    """Carry on with the upgrade that the record tells of."""
    try:
        status = 0
        with record.lock(wait=True, meanwhile=ready):  # an agent at work must find us started
            is_at_work = record.RECORD.exists() or record.WAY_BACK.exists()
            if is_at_work and lastresort.count() > lastresort.TRIES:
                lastresort.reboot()
            if record.RECORD.exists():
                story = record.load()
                log.setup(story.id)
                status = carry_on(story)
        if status == 0 and record.WAY_BACK.exists():
            from . import wayback

            return wayback.go()
        return status
    except (IssuError, OSError) as error:
        print(f"<3>{error}", file=sys.stderr)
        return 1


def carry_on(story: Record) -> int:
    """Arrive on the new root, or undo on the old one; an exit status."""
    if story.watchdog.get("armed"):
        from . import watchdog

        watchdog.take_over(story)
    if record.WAY_BACK.exists() and resume(story):
        return 0
    if story.strategy == "live":
        from . import land

        return land.carry_on(story)
    root = os.stat("/").st_dev  # noqa: PTH116
    if root == story.new_dev:
        arrive(story)
        finish(story)
        return 0
    from . import settle, systemd

    systemd.notify(ready=True)
    with systemd.Manager() as manager:
        settle.undo(manager, story, "PID 1 stayed on the old root; its log says why")
    return 0


def resume(story: Record) -> bool:
    """End an upgrade whose way back was decided, if this is one."""
    from . import systemd, wayback

    if not wayback.is_begun(story):
        return False
    systemd.notify(ready=True)
    with systemd.Manager() as manager:
        wayback.begin(manager, story, "")
    return True


def arrive(story: Record) -> None:
    """Prove that the old root is unmounted and its device free, then let the services start."""
    if story.phase is not Phase.SWITCH:  # this program died after its arrival and was restarted
        ready()
        return
    story.enter(Phase.ARRIVE)
    target = story.target.get("device")
    events.tell(Event.SWITCHED, story, f"{target} is / and PID 1 is its systemd")
    prove(story)
    story.enter(Phase.VERIFY)
    record.save(story)
    events.tell(Event.ARRIVED, story, f"arrived on {target}")
    with bell() as reached:
        ready()
        select.select([reached], [], [], story.verify_timeout_usec / 1_000_000)


@contextmanager
def bell() -> Iterator[int]:
    """The FIFO that issu-reached.service writes to when the default target is reached.

    To be told costs nothing. PID 1 tells a D-Bus connection of every change of every unit, and
    would do so while it starts the services.
    """
    with suppress(FileExistsError):
        os.mkfifo(record.REACHED, 0o600)
    fd = os.open(record.REACHED, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def prove(story: Record) -> None:
    """Look whether anybody still holds the old root; whoever does is a finding."""
    node = story.source.get("device")
    if not node or not os.path.exists(node):  # noqa: PTH110
        return
    if oldroot.wait_free(node) and not oldroot.mounted_by(story.old_dev):
        story.find("old-root-free", "info", f"the old root is unmounted and {node} is free")
        return
    for holder in oldroot.holders(story.old_dev) or ["somebody in another PID namespace"]:
        story.find("old-root-held", "warn", f"{node}: {holder}", "end it to free the old root")


def ready() -> None:
    """Tell PID 1 that services may start, without the imports a library would cost now."""
    import socket

    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.connect("\0" + address[1:] if address[0] == "@" else address)
            sock.send(b"READY=1\nSTATUS=waiting for the services")


def finish(story: Record) -> None:
    """Wait until the system is healthy and end the upgrade, or begin the way back."""
    from . import room, settle, systemd, verdict, verify, wayback

    room.reserve_again()
    if story.phase is not Phase.ACCEPT:
        with systemd.Manager() as manager:
            troubles = verify.verify(manager, story)
            if troubles and not story.way_back.get("reboot"):
                wayback.begin(manager, story, "; ".join(troubles))
                return
            story.enter(Phase.ACCEPT)
            if troubles:  # on the way back already, and there is nothing better to go to
                settle.accept(manager, story, troubles)
                return
    verdict.conclude(story)


if __name__ == "__main__":
    sys.exit(main())
