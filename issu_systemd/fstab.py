"""The target's fstab(5): what it names that is not here, and what it would hide."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from .mounts import block_number
from .run import run
from .tree import text

BY = Path("/dev/disk")
TAGS = ("UUID", "LABEL", "PARTUUID", "PARTLABEL", "ID")
MAX_ENTRIES = 128
OPTIONAL = ("noauto", "nofail")
_OCTAL = re.compile(r"\\([0-7]{3})")


class Entry(NamedTuple):
    """One line of fstab(5)."""

    what: str
    point: str
    fstype: str
    options: tuple[str, ...]


def entries(root: Path) -> list[Entry]:
    """The lines of the tree's fstab that name something; the first 128."""
    found = []
    for line in text(root, "etc/fstab").splitlines():
        plain = line.replace("\0", "").replace("\\000", "")
        words = [_OCTAL.sub(lambda m: chr(int(m[1], 8)), word) for word in plain.split()]
        if len(words) >= 3 and not words[0].startswith("#"):
            options = tuple(words[3].split(",")) if len(words) > 3 else ()
            point = os.path.normpath(words[1]) if words[1].startswith("/") else words[1]
            found.append(Entry(words[0].replace('"', ""), point, words[2], options))
    return found[:MAX_ENTRIES]


def device(what: str) -> str | None:
    """The node that an entry names: "" if there is none now, None if it names no device."""
    tag, sign, value = what.partition("=")
    if sign and tag in TAGS:
        return by_tag(tag, value)
    if not what.startswith("/dev/"):
        return None
    return what if block_number(what) is not None else ""


def by_tag(tag: str, value: str) -> str:
    """The node with such a tag, by udev's links and else by blkid(8); "" if there is none."""
    link = BY / f"by-{tag.lower()}" / escaped(value)
    if block_number(str(link)) is not None:
        return str(link.resolve())
    if tag == "ID":
        return ""
    return run(["blkid", "-l", "-o", "device", "-t", f"{tag}={value}"], check=False).stdout.strip()


def escaped(value: str) -> str:
    """A tag as udev writes it into a link's name; no path leads out of the directory."""
    return "".join(
        c if c.isalnum() or c in "#+-.:=@_" else "".join(f"\\x{b:02x}" for b in os.fsencode(c))
        for c in value
    )


def missing(found: Iterable[Entry]) -> tuple[tuple[str, str], ...]:
    """What and where of each entry that the start waits for and whose device is not there.

    That of / does not count: it is mounted by then, and only its options are looked at.
    """
    wanted = [e for e in found if e.point != "/" and not {*e.options} & {*OPTIONAL}]
    return tuple((e.what, e.point) for e in wanted if device(e.what) == "")


def hiding(found: Iterable[Entry], carried: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Mount point of each entry that would be mounted over a carried mount, and that mount.

    A carried mount is there already; so an entry for the same place is not mounted (mount units
    are made from mountinfo first), but one for a place above it is, unless that is carried too.
    """
    points = {*carried}
    return tuple(
        (e.point, point)
        for e in found
        for point in sorted(points)
        if e.point not in points and "noauto" not in e.options and e.fstype != "swap"
        and e.point != "/" and point.startswith(f"{e.point}/")
    )  # fmt: skip
