"""What the new root would start and could start, in the words of its own systemd.

`systemd --test` (systemd(1)) of the new root computes the transaction of its default target, with
presets, drop-ins and generators as they are there, and prints every unit and job of it; `systemctl
list-unit-files` names what could be started besides. Both run in the new root, as nobody and cut
off from the running system, so the answer changes nothing.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from .errors import IssuError
from .run import run_inside

log = logging.getLogger(__name__)

_UNIT = re.compile(r"^\s*(?:→|->) Unit (\S+):$", re.MULTILINE)
_JOB = re.compile(r"^\s*Action: (\S+) -> start$", re.MULTILINE)
_FIELD = re.compile(r"^\s*([A-Za-z ]+): (.*)$", re.MULTILINE)
_COMMAND = re.compile(r"^\s*Command Line: (\S+)", re.MULTILINE)
_LISTEN = ("ListenStream", "ListenDatagram", "ListenSequentialPacket", "ListenFIFO")
DRY = ("/usr/lib/systemd/systemd", "--test", "--system", "--log-target=null")
UNUSABLE = ("masked", "masked-runtime", "bad")


@dataclass(frozen=True)
class Offer:
    """What the new root has. Unit names; templates as `name@.service`."""

    wanted: frozenset[str] = frozenset()  # its default target starts these
    known: frozenset[str] = frozenset()  # these can be started, those wanted among them
    mounts: dict[str, str] = field(default_factory=dict)  # mount point -> what
    listens: dict[str, tuple[str, ...]] = field(default_factory=dict)  # socket -> addresses
    dry: bool = True  # the dry run worked

    def has(self, unit: str) -> bool:
        """Whether the unit, or the template it is made from, can be started there."""
        prefix, at, rest = unit.partition("@")
        template = f"{prefix}@.{rest.rpartition('.')[2]}" if at else unit
        return unit in self.known or template in self.known


def ask(root: Path) -> Offer:
    """Ask the root mounted at `root`; nothing in it is changed."""
    return parse(dry_run(root), unit_files(root))


@cache
def dry_run(root: Path) -> str:
    """The start-up transaction as the root's PID 1 prints it; "" if it cannot."""
    try:
        return run_inside(root, DRY, check=False, unprivileged=True).stdout
    except IssuError as error:
        log.warning("the new root's start-up cannot be foreseen: %s", error)
        return ""


@cache
def unit_files(root: Path) -> str:
    """Every unit file of the root with its state, "" if its systemctl cannot say."""
    argv = ["systemctl", "--root=/", "--no-legend", "--no-pager", "--plain", "list-unit-files"]
    try:
        return run_inside(root, argv, check=False).stdout
    except IssuError as error:
        log.warning("the new root's unit files cannot be listed: %s", error)
        return ""


def forget() -> None:
    """Ask again next time: another tree may be mounted at the same place."""
    dry_run.cache_clear()
    unit_files.cache_clear()


def commands(root: Path) -> list[str]:
    """The programs that the default target of the root runs."""
    return sorted({path for path in _COMMAND.findall(dry_run(root)) if path.startswith("/")})


def parse(dry: str, files: str) -> Offer:
    """The offer as the two outputs tell it."""
    known, mounts, listens = set(usable(files)), {}, {}
    for name, fields in units(dry):
        if ("Unit Load State", "loaded") not in fields:
            continue
        known.add(name)
        told = dict(fields)
        if "Where" in told:
            mounts[told["Where"]] = told.get("What", "")
        if addresses := tuple(value for key, value in fields if key in _LISTEN):
            listens[name] = addresses
    wanted = frozenset(_JOB.findall(dry))
    return Offer(wanted, frozenset(known | wanted), mounts, listens, dry=bool(dry))


def usable(files: str) -> Iterable[str]:
    """The names in the output of list-unit-files that are not masked."""
    rows = (line.split() for line in files.splitlines())
    return [row[0] for row in rows if len(row) > 1 and row[1] not in UNUSABLE]


def units(dry: str) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Each unit of a dry run with its fields in order."""
    for name, text in bodies(dry):
        yield name, _FIELD.findall(text)


def bodies(dry: str) -> Iterator[tuple[str, str]]:
    """Each unit of a dry run with what is printed of it."""
    parts = _UNIT.split(dry)[1:]
    yield from zip(parts[::2], parts[1::2], strict=True)
