"""`issu status`, in the time that systemctl takes twice; every other word is for cli.py.

Python alone takes half of that time and argparse, pathlib or typing would take the rest, so nothing
is imported here but json. The record and the reports are for everybody to read: an answer over the
bus would be the same, after the service has been started. What is not plain is left to cli.py too.
"""

from __future__ import annotations

import json
import os
import sys

TYPE_CHECKING = False  # typing's own would have to be imported
if TYPE_CHECKING:
    from typing import Any

HISTORY = "/var/lib/issu/history"  # record.HISTORY
RECORD = "/run/issu/record.json"  # record.RECORD
BOOT_ID = "/proc/sys/kernel/random/boot_id"
SCHEMA = 1


def main() -> int:
    """The command `issu`; the exit status is documented in issu(1)."""
    line = status() if sys.argv[1:] == ["status"] else None
    if line is None:
        from . import cli

        return cli.main()
    try:
        print(line, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    return 0


def status() -> str | None:
    """What `issu status` prints of an upgrade that runs or was accepted; None if it takes more."""
    try:
        if os.path.exists(RECORD):  # noqa: PTH110
            story = read(RECORD)
            if story["schema"] != SCHEMA or story.get("deadline_usec"):
                return None
            return one_line(story | {"result": None})
        name = max(name for name in os.listdir(HISTORY) if name[0] != ".")  # noqa: PTH208
        document = read(f"{HISTORY}/{name}")
        pinned = any(found["id"] == "old-root-pinned" for found in document.get("findings", ()))
        if document["result"] == "accepted" and not pinned and is_of_this_boot(document):
            return one_line(document)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # cli.py says what is wrong
    return None


def boot_id() -> str:
    """What identifies this boot of the kernel, see random(4); raises OSError."""
    with open(BOOT_ID) as file:  # noqa: PTH123
        return file.read().strip()


def is_of_this_boot(document: dict[str, Any]) -> bool:
    """Whether the kernel that a report ended on runs on, as far as it says; raises OSError."""
    boot = (document.get("continuity", {}).get("boot_id") or {}).get("after")
    return not boot or bool(boot == boot_id())


def read(path: str) -> dict[str, Any]:
    """A record or a report; raises OSError or ValueError."""
    with open(path) as file:  # noqa: PTH123
        document: dict[str, Any] = json.load(file)
    return document


def one_line(document: dict[str, Any]) -> str:
    """The state of an upgrade in one line, its error in a second."""
    target = document.get("target", {})
    where = " on ".join(target[key] for key in ("os", "device") if target.get(key)) or "?"
    if not document.get("result"):
        return f"{document['id']}: {document['phase']}, going to {where}"
    outage = document.get("outage_usec")
    away = f", outage {outage / 1_000_000:.3f} s" if outage else ""
    longest = (document.get("unit_outage_usec") or {}).get("longest")
    if document.get("strategy") == "live" and longest:
        away = f", no unit away longer than {longest / 1_000_000:.3f} s"
    error = f"\n  {document['error']}" if document.get("error") else ""
    return f"{document['id']}: {document['result']}, {where}{away}{error}"
