"""The command `issu`, see issu(1): its words, and which function each verb is.

What a verb needs is imported when it is run, for `issu status` must be quick.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from . import __version__
from .errors import (
    Busy,
    Inhibited,
    InvalidArgument,
    IssuError,
    NotAuthorized,
    Refused,
    RolledBack,
)

OK, FAILED, USAGE, REFUSED, ROLLED_BACK, NOT_AUTHORIZED, BUSY, INHIBITED = range(8)
INTERRUPTED = 130
STATUS: dict[type[IssuError], int] = {
    InvalidArgument: USAGE, NotAuthorized: NOT_AUTHORIZED, Busy: BUSY, Inhibited: INHIBITED,
    Refused: REFUSED, RolledBack: ROLLED_BACK,
}  # fmt: skip
JSON = ("short", "pretty", "off")
VALUES = [[value] for value in JSON]


def main() -> int:
    """Run the command; the exit status is documented in issu(1)."""
    words = parser().parse_args(spelled_out(sys.argv[1:]))
    try:
        status = int(words.act(words))
        sys.stdout.flush()
        return status
    except IssuError as error:
        print(f"issu: {error}", file=sys.stderr)
        if error.hint:
            print(f"  {error.hint}", file=sys.stderr)
        return next((s for kind, s in STATUS.items() if isinstance(error, kind)), FAILED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED


def spelled_out(argv: Sequence[str]) -> list[str]:
    """The words with each bare `--json` as `--json=pretty`, so that it takes no ID for its value.

    What belongs to the command of `issu inhibit` is left alone.
    """
    if argv[:1] == ["inhibit"]:
        return list(argv)
    end = argv.index("--") if "--" in argv else len(argv)
    return [
        "--json=pretty" if word == "--json" and i < end and argv[i + 1 : i + 2] not in VALUES
        else word for i, word in enumerate(argv)
    ]  # fmt: skip


def late(module: str, name: str) -> Callable[[argparse.Namespace], int]:
    """A function of a module of ours that is imported when the function is called."""

    def act(words: argparse.Namespace) -> int:
        return int(getattr(import_module(f"{__package__}.{module}"), name)(words))

    return act


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="issu", description="Replace the running system by another root, without a reboot."
    )
    top.add_argument("--version", action="version", version=f"issu {__version__}")
    verbs = top.add_subparsers(required=True, metavar="VERB", prog="issu")
    for add in (add_upgrading, add_watching, add_looking_back, add_kernel, add_inhibit):
        add(verbs)
    return top


def add_upgrading(verbs: Any) -> None:
    """check, start, accept, rollback, cancel."""
    verb = verbs.add_parser("check", help="whether an upgrade would be allowed; changes nothing")
    verb.add_argument("device", metavar="DEVICE")
    add_strategy(verb)
    verb.add_argument(
        "--rehearse", action="store_true", help="boot it in a container, which is thrown away"
    )
    add_options(verb, "json", "quiet", "no-legend", "no-pager")
    verb.set_defaults(act=late("commands", "check"))

    verb = verbs.add_parser("start", help="upgrade to the root on DEVICE")
    verb.add_argument("device", metavar="DEVICE")
    add_strategy(verb)
    verb.add_argument(
        "--force", metavar="FINDING", action="append", help="go on in spite of it; repeatable"
    )
    add_options(verb, "no-block", "quiet")
    verb.set_defaults(act=late("commands", "start"))

    verb = verbs.add_parser("accept", help="keep the new root, where an upgrade waits for that")
    add_options(verb, "quiet")
    verb.set_defaults(act=late("commands", "accept"))

    verb = verbs.add_parser("rollback", help="go back to the root that was left")
    add_options(verb, "no-block", "quiet")
    verb.set_defaults(act=late("commands", "rollback"))

    verb = verbs.add_parser("cancel", help="give an upgrade up, before the roots are changed")
    verb.add_argument("id", metavar="ID", nargs="?", help="default: the one that runs")
    add_options(verb, "quiet")
    verb.set_defaults(act=late("commands", "cancel"))


def add_watching(verbs: Any) -> None:
    """status, monitor."""
    verb = verbs.add_parser("status", help="how far the upgrade is, or how the last one ended")
    add_options(verb, "json")
    verb.set_defaults(act=late("local", "status"))

    verb = verbs.add_parser("monitor", help="show an upgrade from its start to its end")
    add_options(verb, "json")
    verb.set_defaults(act=late("commands", "monitor"))


def add_looking_back(verbs: Any) -> None:
    """report, history."""
    verb = verbs.add_parser("report", help="what an upgrade interrupted, and for how long")
    verb.add_argument("id", metavar="ID", nargs="?", help="default: the last one")
    form = verb.add_mutually_exclusive_group()
    add_json(form)
    form.add_argument("--svg", metavar="FILE", type=Path, help="write a Gantt chart")
    add_options(verb, "no-pager")
    verb.set_defaults(act=late("commands", "report"))

    verb = verbs.add_parser("history", help="past upgrades, the newest first")
    verb.add_argument(
        "-n", "--lines", metavar="COUNT", type=count, default=0, help="at most so many"
    )
    add_options(verb, "json", "no-legend", "no-pager")
    verb.set_defaults(act=late("commands", "past"))


def add_kernel(verbs: Any) -> None:
    """plan, continuity."""
    verb = verbs.add_parser("plan", help="what an upgrade would do with each unit; changes nothing")
    verb.add_argument("device", metavar="DEVICE")
    add_strategy(verb)
    add_options(verb, "json", "no-pager")
    verb.set_defaults(act=late("local", "plan"))

    verb = verbs.add_parser("continuity", help="snapshots of the kernel's state")
    nouns = verb.add_subparsers(required=True, metavar="VERB", prog="issu continuity")
    noun = nouns.add_parser("snapshot", help="print the kernel's state as JSON")
    noun.set_defaults(act=late("local", "snapshot"))
    noun = nouns.add_parser("diff", help="compare two snapshots; exit status 1 if they differ")
    noun.add_argument("before", metavar="BEFORE", type=Path)
    noun.add_argument("after", metavar="AFTER", type=Path)
    add_options(noun, "json")
    noun.set_defaults(act=late("local", "diff"))


def add_inhibit(verbs: Any) -> None:
    """inhibit."""
    verb = verbs.add_parser("inhibit", help="forbid upgrades while a command runs")
    verb.add_argument("--who", metavar="NAME", help="default: the command")
    verb.add_argument("--why", metavar="REASON", default="no reason given")
    verb.add_argument("--list", action="store_true", help="who forbids upgrades")
    add_options(verb, "json", "no-legend")
    verb.add_argument("command", metavar="COMMAND", nargs=argparse.REMAINDER)
    verb.set_defaults(act=late("commands", "inhibit"))


def add_options(verb: argparse.ArgumentParser, *names: str) -> None:
    """Options that several verbs have, as systemctl(1) has them."""
    if "json" in names:
        add_json(verb)
    if "no-block" in names:
        how = verb.add_mutually_exclusive_group()
        how.add_argument("--no-block", action="store_true", help="return once it is queued")
        how.add_argument(
            "--wait", action="store_true", help="stay until it has ended, even if services stop"
        )
    if "quiet" in names:
        verb.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")
    if "no-legend" in names:
        verb.add_argument("--no-legend", action="store_true", help="no column headers")
    if "no-pager" in names:
        verb.add_argument("--no-pager", action="store_true", help="do not use a pager")


def add_json(verb: Any) -> None:
    """--json, which alone means pretty."""
    verb.add_argument(
        "--json", metavar="FORM", nargs="?", const="pretty", default="off", choices=JSON,
        help="short, pretty (default) or off",
    )  # fmt: skip


def add_strategy(verb: argparse.ArgumentParser) -> None:
    """--strategy."""
    verb.add_argument("--strategy", choices=("halt", "live"), help="default: as in the settings")


def count(word: str) -> int:
    """A number of upgrades; raises ValueError below 0 and above what fits into D-Bus type u."""
    if not 0 <= (number := int(word)) < 2**32:
        raise ValueError(word)
    return number


if __name__ == "__main__":
    sys.exit(main())
