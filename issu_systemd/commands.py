"""The verbs of the command that are calls of org.issu1; each returns its exit status.

Without bus or service, report and history read the files that the service would have read.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from . import history, show
from .attend import Manner, attend, ended, get_report, phases_of
from .client import CHECK_SEC, JOB, Client, is_asked, job_path, options
from .errors import InvalidArgument, IssuError, NoSuchJob, RolledBack, Unreachable
from .follow import State, follow

OK, REFUSED = 0, 3
NEW_JOB_SEC = 15.0
WITHOUT = {
    "check": "systemctl start issu@DEVICE checks too, before it does anything",
    "start": "systemctl start issu@DEVICE",
    "monitor": "issu status; systemctl status 'issu*'",
    "rollback": "systemctl start issu@OLD-DEVICE",
    "cancel": "systemctl stop 'issu@*'",
}


@contextmanager
def service(verb: str) -> Iterator[Client]:
    """A client; what cannot be reached is told with the way to do `verb` without it."""
    try:
        with agent(), Client() as client:
            yield client
    except Unreachable as error:
        raise Unreachable(str(error), hint=WITHOUT.get(verb, "")) from error


def agent() -> AbstractContextManager[None]:
    """Who asks for the password that polkit wants; nobody where there is none to be asked."""
    if os.geteuid() == 0 or not is_asked():
        return nullcontext()
    from . import run

    return run.asking()


def check(words: argparse.Namespace) -> int:
    """Say whether an upgrade would be allowed to start, and what to do if not."""
    with service("check") as client:
        asked = options(strategy=words.strategy, rehearse=words.rehearse)
        eligible, findings = client.call(
            "Check", "sa{sv}", words.device, asked, seconds=CHECK_SEC
        )
    if words.json != "off":
        document = {"target": words.device, "eligible": eligible, "findings": findings}
        print(show.as_json(document, words.json))
    elif not words.quiet:
        told = show.findings(findings, legend=not words.no_legend, width=show.width())
        told.append(show.verdict(words.device, findings, eligible=eligible))
        show.paged("\n".join(told), wanted=not words.no_pager)
    return OK if eligible else REFUSED


def start(words: argparse.Namespace) -> int:
    """Start an upgrade, and stay until it has ended or this session must end."""
    asked = options(strategy=words.strategy, force=words.force)
    with service("start") as client:
        halts = words.strategy == "halt" or (not words.strategy and does_halt(client))
        id, _ = client.call("Start", "sa{sv}", words.device, asked)
        return stay(client, id, words, halts=halts)


def rollback(words: argparse.Namespace) -> int:
    """Go back to the root that was left, and stay as `start` does; to be back is success."""
    with service("rollback") as client:
        halts = does_halt(client)
        client.signals.clear()
        client.call("Rollback")
        try:
            return stay(client, begun(client), words, halts=halts)
        except RolledBack as error:
            say(words, str(error))
            return OK


def stay(client: Client, id: str, words: argparse.Namespace, *, halts: bool) -> int:
    """What follows on a start: leave at once, when services stop, or when all is over."""
    if words.no_block:
        say(words, id)
        return OK
    leave = halts and not words.wait
    return attend(client, id, Manner(quiet=words.quiet, halts=halts, leave=leave))


def does_halt(client: Client) -> bool:
    """Whether an upgrade by the settings would end this session."""
    return bool(client.properties()["Mechanism"] != "pivot")


def begun(client: Client) -> str:
    """The id of the job that runs, or has just begun; raises NoSuchJob if none comes."""
    until = time.monotonic() + NEW_JOB_SEC
    while True:
        path = str(client.properties()["CurrentJob"])
        heard = [s.args[0] for s in client.signals if s.member in ("JobNew", "JobRemoved")]
        if path != "/" or heard:
            return path.rpartition("/")[2] or str(heard[-1])
        if time.monotonic() > until:
            raise NoSuchJob("no upgrade has begun", hint="issu status")
        client.signals.clear()
        client.wait(1.0)


def monitor(words: argparse.Namespace) -> int:
    """Show the upgrade that runs from its start to its end, else how the last one ended."""
    with service("monitor") as client:
        jobs = client.call("ListJobs")[0]
        if not jobs:
            document = get_report(client, "")
            if words.json != "off":
                print(show.as_json(document, words.json))
            last = State(document["id"], "", 100, document["result"], document.get("error") or "")
            return ended(client, last, quiet=words.json != "off")
        id, now = str(jobs[0][0]), time.monotonic_ns() // 1000
        past = phases_of(client, id)
        if words.json == "off":
            show.printed([id, *show.phases(past[:-1], now)])
        elapsed = (now - past[0]["start_usec"]) / 1e6 if past else 0.0
        return attend(client, id, Manner(json=words.json, elapsed=max(elapsed, 0.0)))


def accept(words: argparse.Namespace) -> int:
    """Keep the new root."""
    with service("accept") as client:
        client.call("Accept")
        root = client.properties()["RunningRoot"] or "the root that runs"
    say(words, f"accepted: {root} stays")
    return OK


def cancel(words: argparse.Namespace) -> int:
    """Give an upgrade up, and wait until everything is as it was before it."""
    with service("cancel") as client:
        path = job_path(words.id) if words.id else str(client.properties()["CurrentJob"])
        if path == "/":
            raise NoSuchJob("no upgrade runs")
        client.call("Cancel", path=path, interface=JOB)
        *_, state = follow(client, path.rpartition("/")[2])
    if state.result == "accepted":
        raise IssuError(f"{state.id} had ended before it could be given up: {state.result}")
    say(words, f"{state.id}: given up; everything is as it was before", f"  {state.error}")
    return OK


def report(words: argparse.Namespace) -> int:
    """Print or draw one report."""
    try:
        with Client() as client:
            document = get_report(client, words.id or "")
    except Unreachable:
        document = history.find(words.id) if words.id else history.last()
    if words.json != "off":
        print(show.as_json(document, words.json))
    elif words.svg:
        from .gantt import svg

        try:
            words.svg.write_text(svg(document))
        except OSError as error:
            raise IssuError(f"{words.svg}: {error.strerror}") from error
    else:
        from .timeline import render

        show.paged(render(document), wanted=not words.no_pager)
    return OK


def past(words: argparse.Namespace) -> int:
    """List past upgrades, the newest first."""
    try:
        with Client() as client:
            rows = client.call("ListHistory", "u", words.lines)[0]
    except Unreachable:
        rows = history.rows(words.lines)
    if words.json != "off":
        print(show.as_json(rows, words.json))
    elif told := show.upgrades(rows, legend=not words.no_legend):
        show.paged("\n".join(told), wanted=not words.no_pager)
    return OK


def inhibit(words: argparse.Namespace) -> int:
    """Forbid upgrades while a command runs, or list who does."""
    argv = words.command[1:] if words.command[:1] == ["--"] else words.command
    if bool(argv) == words.list:
        hint = "issu inhibit --why=REASON COMMAND…; issu inhibit --list"
        raise InvalidArgument("either a command or --list", hint=hint)
    with service("inhibit") as client:
        if words.list:
            return list_inhibitors(client, words)
        who = words.who or " ".join(argv)[:256]
        [handle] = client.call("Inhibit", "ss", who, words.why)
    from . import run

    try:
        return run.attend(argv)
    finally:
        os.close(handle)


def list_inhibitors(client: Client, words: argparse.Namespace) -> int:
    """Print who forbids upgrades."""
    rows = client.call("ListInhibitors")[0]
    if words.json != "off":
        keys = ("who", "why", "uid", "pid")
        print(show.as_json([dict(zip(keys, row, strict=True)) for row in rows], words.json))
    else:
        show.printed(show.inhibitors(rows, legend=not words.no_legend))
    return OK


def say(words: argparse.Namespace, *lines: str) -> None:
    """Print lines unless --quiet."""
    if not words.quiet:
        for line in lines:
            if line.strip():
                print(line, flush=True)
