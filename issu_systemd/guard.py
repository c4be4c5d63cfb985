"""Stand by while the roots change: strategy live, run by issu-guard@PID.service.

Between the pivot and its re-execution PID 1 is of one root and / of the other. A systemd that
starts programs through systemd-executor (254 and later) can start none then, so nobody would carry
on if the process that changes the roots were killed. This one is there already, with everything
imported: when that process has ended and PID 1 is not of the root that is /, it lets PID 1 follow,
and has issu-arrive.service go on.
"""

from __future__ import annotations

import os
import select
import sys
import time
from contextlib import suppress

from . import live, systemd
from .errors import IssuError


def main() -> int:
    """Wait for the end of the process whose id is the first argument, then see to PID 1."""
    try:
        with systemd.Manager() as manager:
            manager.version()  # nothing is left to import when it is needed
        wait_end(int(sys.argv[1]))
        follow()
    except (IssuError, OSError) as error:
        print(f"<3>{error}", file=sys.stderr)
        return 1
    return 0


def wait_end(pid: int) -> None:
    """Return when the process has ended; tell PID 1 as soon as it is watched. See pidfd_open(2)."""
    with suppress(ProcessLookupError):
        watched = os.pidfd_open(pid)
        systemd.notify(ready=True)
        select.select([watched], [], [])
        os.close(watched)


def follow() -> None:
    """Let PID 1 execute the systemd of the root that is /, if it is not of it, and go on."""
    root = live.root_dev()
    if live.pid1_dev() == root:
        return
    print("<4>whoever changed the roots has died: PID 1 follows", file=sys.stderr)
    with systemd.Manager() as manager:
        live.reexecute(manager, root)
    with systemd.connect(time.monotonic() + live.ANSWER_SEC) as manager:
        manager.start(live.ARRIVE)


if __name__ == "__main__":
    sys.exit(main())
