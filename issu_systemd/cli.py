"""The command `issu`, see issu(1)."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from . import __version__
from .errors import IssuError, Refused

OK, FAILED, REFUSED = 0, 1, 3  # 2 is argparse's, for a wrong command line


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
        return REFUSED if isinstance(error, Refused) else FAILED
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


def status(words: argparse.Namespace) -> int:
    """Where the running upgrade stands, else the result of the last."""
    from . import history

    document = history.current() or history.last()
    if words.json:
        print(json.dumps(document, indent=1))
    else:
        print(history.one_line(document))
    return OK


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
