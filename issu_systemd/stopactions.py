"""Which commands of units that stop or start during an upgrade would break forwarding.

A command counts by its own words, and by those of a shell script that it names: one level deep.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from . import newroot, plan
from .evidence import Action
from .systemd import Manager
from .tree import resolve, text

# What takes links, rules, modules or mounts away.
BREAKS = tuple(
    re.compile(pattern)
    for pattern in (
        r"\bnft\b.*\bflush\b", r"\b(?:ip6?|eb|arp)tables\b.*\s(?:-F|--flush)\b",
        r"\bifdown\b", r"\bip\b.*\blink\b.*\b(?:set\b.*\bdown|del|delete)\b",
        r"\brmmod\b", r"\bmodprobe\b.*\s(?:-r|--remove)\b", r"\bumount\b",
        r"\bethtool\b.*\s--reset\b", r"\bdevlink\b.*\bdev\b.*\breload\b",
    )
)  # fmt: skip
STOPS = {"Service": ("ExecStop", "ExecStopPost"), "Socket": ("ExecStopPre", "ExecStopPost")}
STARTS = ("ExecStartPre", "ExecStart", "ExecStartPost")
MAX_SCRIPT = 64 << 10  # bytes
MAX_LINE = 1000  # letters; a longer one would keep the patterns busy for good
_SHELL = re.compile(r"#!\s*/(?:usr/)?bin/(?:env\s+)?(?:ba|da|k|z)?sh\b")
_KIND = re.compile(r"^\s*(?:→|->) (Exec\w+):$")
_LINE = re.compile(r"^\s*Command Line: (.*)$")


def scan(manager: Manager, root: Path, steps: plan.Plan) -> tuple[Action, ...]:
    """The commands of the plan's units that break forwarding, those that stop first."""
    stop = {plan.GONE, plan.RESTARTED, plan.SKIPPED}
    start = {plan.NEW, plan.RESTARTED}
    found: list[Action] = []
    for unit, action, _ in steps:
        if action in stop:
            found += judged(unit, stops(manager, unit), Path("/"), starts=False)
    there = starts(newroot.dry_run(root), {u for u, action, _ in steps if action in start})
    for unit, words in there:
        found += judged(unit, [words], root, starts=True)
    return tuple(dict.fromkeys(found))


def stops(manager: Manager, unit: str) -> Iterator[list[str]]:
    """The stop commands of a unit as PID 1 has loaded them."""
    interface = unit.rpartition(".")[2].capitalize()
    if interface not in STOPS:
        return
    found: dict[str, Any] = manager.properties(unit, interface)
    for name in STOPS[interface]:
        for command in found.get(name, ()):
            yield [word.decode(errors="replace") for word in command[1]]


def starts(dry: str, wanted: set[str]) -> Iterator[tuple[str, list[str]]]:
    """Unit and words of each start command in a dry run of the new root's systemd."""
    for unit, lines in newroot.bodies(dry):
        kind = ""
        for line in lines.splitlines() if unit in wanted else ():
            if heading := _KIND.match(line):
                kind = heading[1]
            elif kind in STARTS and (command := _LINE.match(line)):
                yield unit, words_of(command[1])


def words_of(line: str) -> list[str]:
    """A command line split as a shell would, or at blanks where that cannot be done."""
    try:
        return shlex.split(line)
    except ValueError:
        return line.split()


def judged(
    unit: str, commands: Iterable[list[str]], root: Path, *, starts: bool
) -> Iterator[Action]:
    """The commands that break forwarding, by themselves or by a script that they name."""
    for words in commands:
        line = " ".join(words)
        if breaks(line):
            yield Action(unit, line, "", starts)
            continue
        for word in words:
            if word.startswith("/") and (culprit := culprit_in(root, word)):
                yield Action(unit, line, f"{word}: {culprit}", starts)
                break


def breaks(line: str) -> bool:
    """Whether a command takes away what forwarding needs."""
    return any(pattern.search(line[:MAX_LINE]) for pattern in BREAKS)


def culprit_in(root: Path, path: str) -> str:
    """The line of a shell script that breaks forwarding, "" if none does or it is no script."""
    try:
        place = resolve(root, path)
        if not place.is_file() or place.stat().st_size > MAX_SCRIPT:
            return ""
    except OSError:
        return ""
    script = text(root, path, limit=MAX_SCRIPT)
    if not _SHELL.match(script):
        return ""
    lines = (line.strip() for line in script.splitlines())
    return next((ln[:120] for ln in lines if not ln.startswith("#") and breaks(ln)), "")
