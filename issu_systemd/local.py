"""The verbs of the command that read this machine themselves; each returns its exit status.

plan and continuity ask kernel, mounts and PID 1, which takes root and nobody else's help. status
reads the record and the last report, as the service would; what glance.py cannot answer comes here.
"""

from __future__ import annotations

import argparse
import os

from . import show
from .errors import NotAuthorized

OK = 0


def status(words: argparse.Namespace) -> int:
    """Where the running upgrade stands, else the result of the last."""
    from . import history

    document = history.current() or history.last()
    if words.json != "off":
        print(show.as_json(document, words.json))
    else:
        print(history.one_line(document))
        for line in history.old_root(document):
            print(f"  {line}")
    return OK


def plan(words: argparse.Namespace) -> int:
    """Print what would become of each unit; changes nothing."""
    only_root("mount the device to look at it", "plan …")
    from . import foresee

    document = foresee.foresee(words.device, words.strategy)
    if words.json != "off":
        print(show.as_json(document, words.json))
    else:
        show.paged(foresee.table(document), wanted=not words.no_pager)
    return OK


def snapshot(words: argparse.Namespace) -> int:
    """Print the kernel's state."""
    only_root("read all of the kernel's state", "continuity snapshot")
    from . import compare

    print(show.as_json(compare.snapshot(), "pretty"))
    return OK


def diff(words: argparse.Namespace) -> int:
    """Print how two snapshots differ; 1 if they do, as diff(1)."""
    from . import compare

    document = compare.diff(words.before, words.after)
    print(show.as_json(document, words.json) if words.json != "off" else compare.table(document))
    return int(bool(document["differences"]))


def only_root(what: str, verb: str) -> None:
    """Raise NotAuthorized unless we are root."""
    if os.geteuid() != 0:
        raise NotAuthorized(f"only root may {what}", hint=f"sudo issu {verb}")
