"""The command `issu`, see issu(1)."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from . import __version__
from .errors import IssuError, Refused, RolledBack

OK, FAILED, REFUSED, ROLLED_BACK = 0, 1, 3, 4  # 2 is argparse's, for a wrong command line
STATUS: dict[type[IssuError], int] = {Refused: REFUSED, RolledBack: ROLLED_BACK}


def main() -> int:
    """Run the command; the exit status is documented in issu(1)."""
    words = parser().parse_args()
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
        return 130


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="issu", description="Replace the running system by another root, without a reboot."
    )
    top.add_argument("--version", action="version", version=f"issu {__version__}")
    verbs = top.add_subparsers(required=True, metavar="VERB")

    verb = verbs.add_parser("start", help="upgrade to the root on DEVICE")
    verb.add_argument("device", metavar="DEVICE")
    verb.add_argument("--no-block", action="store_true", help="return once it is queued")
    verb.set_defaults(act=start)

    verb = verbs.add_parser("plan", help="what an upgrade would do with each unit; changes nothing")
    verb.add_argument("device", metavar="DEVICE")
    verb.add_argument("--strategy", choices=("halt", "live"), help="default: as in the settings")
    verb.add_argument("--json", action="store_true")
    verb.set_defaults(act=show_plan)

    verb = verbs.add_parser("continuity", help="snapshots of the kernel's state")
    nouns = verb.add_subparsers(required=True, metavar="VERB")
    noun = nouns.add_parser("snapshot", help="print the kernel's state as JSON")
    noun.set_defaults(act=show_snapshot)
    noun = nouns.add_parser("diff", help="compare two snapshots; exit status 1 if they differ")
    noun.add_argument("before", metavar="BEFORE", type=Path)
    noun.add_argument("after", metavar="AFTER", type=Path)
    noun.add_argument("--json", action="store_true")
    noun.set_defaults(act=show_diff)

    verb = verbs.add_parser("accept", help="accept the upgrade that waits for it")
    verb.set_defaults(act=accept)

    verb = verbs.add_parser("rollback", help="go back to the root before")
    verb.set_defaults(act=rollback)

    verb = verbs.add_parser("status", help="how far the upgrade is, or how the last one ended")
    verb.add_argument("--json", action="store_true")
    verb.set_defaults(act=status)

    verb = verbs.add_parser("report", help="what an upgrade interrupted, and for how long")
    verb.add_argument("id", metavar="ID", nargs="?", help="default: the last one")
    form = verb.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="every field, see issu-report(5)")
    form.add_argument("--svg", metavar="FILE", type=Path, help="write a Gantt chart")
    verb.set_defaults(act=show_report)
    return top


def start(words: argparse.Namespace) -> int:
    """Start issu@DEVICE.service, show its phases, and say how it went as far as one can see."""
    from .follow import follow

    if os.geteuid() != 0:
        raise IssuError("only root may start an upgrade", hint="sudo issu start …")
    return follow(words.device, block=not words.no_block)


def accept(words: argparse.Namespace) -> int:
    """Accept the upgrade that waits for it."""
    from . import verdict

    if os.geteuid() != 0:
        raise IssuError("only root may accept an upgrade", hint="sudo issu accept")
    verdict.give(verdict.ACCEPT)
    return OK


def rollback(words: argparse.Namespace) -> int:
    """Take back the upgrade that waits to be accepted, or else the last one that was."""
    from . import verdict, wayback

    if os.geteuid() != 0:
        raise IssuError("only root may take an upgrade back", hint="sudo issu rollback")
    if verdict.waiting():
        verdict.give(verdict.ROLL_BACK)
    else:
        print(f"{wayback.start()}: started; look again with: issu status")
    return OK


def status(words: argparse.Namespace) -> int:
    """Where the running upgrade stands, else the result of the last."""
    from . import history

    document = history.current() or history.last()
    if words.json:
        print(json.dumps(document, indent=1))
    else:
        print(history.one_line(document))
        for line in history.old_root(document):
            print(f"  {line}")
    return OK


def show_plan(words: argparse.Namespace) -> int:
    """Print what would become of each unit; changes nothing."""
    from . import foresee

    if os.geteuid() != 0:
        raise IssuError("only root may mount the device to look at it", hint="sudo issu plan …")
    document = foresee.foresee(words.device, words.strategy)
    print(json.dumps(document, indent=1) if words.json else foresee.table(document))
    return OK


def show_snapshot(words: argparse.Namespace) -> int:
    """Print the kernel's state."""
    from . import compare

    if os.geteuid() != 0:
        raise IssuError(
            "only root may read all of the kernel's state", hint="sudo issu continuity snapshot"
        )
    print(json.dumps(compare.snapshot(), indent=1))
    return OK


def show_diff(words: argparse.Namespace) -> int:
    """Print how two snapshots differ; 1 if they do, as diff(1)."""
    from . import compare

    document = compare.diff(words.before, words.after)
    print(json.dumps(document, indent=1) if words.json else compare.table(document))
    return int(bool(document["differences"]))


def show_report(words: argparse.Namespace) -> int:
    """Print or draw one report."""
    from . import history

    document: dict[str, Any] = history.find(words.id) if words.id else history.last()
    if words.json:
        print(json.dumps(document, indent=1))
    elif words.svg:
        from .gantt import svg

        try:
            words.svg.write_text(svg(document))
        except OSError as error:
            raise IssuError(f"{words.svg}: {error.strerror}") from error
    else:
        from .timeline import render

        print(render(document))
    return OK


if __name__ == "__main__":
    sys.exit(main())
