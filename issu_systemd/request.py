"""What somebody has asked for over D-Bus, left for the agent that is started to do it.

/run/issu/request.json is there from before the start of issu@….service until its agent takes it.
An upgrade that is started by `systemctl start` has none.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from . import record
from .errors import InvalidArgument

log = logging.getLogger(__name__)

FILE = "request.json"
STRATEGIES = ("halt", "live")
TARGET_MAX = 4096  # bytes, PATH_MAX
TEXT_MAX = 256  # characters of what is for people
FORCE_MAX = 64
_FINDING = re.compile(r"[a-z0-9-]{1,64}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True)
class Options:
    """The options of Check and Start; strategy None means that of the settings."""

    strategy: str | None = None
    force: tuple[str, ...] = ()
    rehearse: bool = False


@dataclass(frozen=True)
class Request:
    """One upgrade that was asked for: by whom, by which id, through which unit."""

    id: str
    unit: str
    target: str
    uid: int = 0
    strategy: str | None = None
    force: tuple[str, ...] = ()


def path() -> Path:
    """Where the request lies."""
    return record.DIRECTORY / FILE


def leave(request: Request) -> None:
    """Leave the request for the agent; raises OSError."""
    record.write_atomically(path(), json.dumps(asdict(request)) + "\n")


def take(unit: str) -> Request | None:
    """The request for a unit, which is removed; one for another unit stays."""
    request = peek()
    if request is None or request.unit != unit:
        return None
    path().unlink(missing_ok=True)
    return request


def peek() -> Request | None:
    """The request that no agent has taken yet; a file that cannot be read is removed."""
    try:
        words = json.loads(path().read_text())
        words["force"] = tuple(words["force"])
        request = Request(**words)
        valid = all(isinstance(word, str) for word in (request.id, request.unit, *request.force))
        if not valid or not isinstance(request.uid, int):
            raise TypeError("a value has the wrong type")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.error("%s is ignored: %s", path(), error)
        path().unlink(missing_ok=True)
        return None
    return request


def options(values: Mapping[str, object], allowed: Collection[str]) -> Options:
    """The options of a call; raises InvalidArgument naming one that is unknown or wrong."""
    for name in values:
        if name not in allowed:
            raise InvalidArgument(
                f"{shown(name)} is not an option", hint=f"there are: {', '.join(sorted(allowed))}"
            )
    strategy, force = values.get("strategy"), values.get("force", [])
    if strategy is not None and strategy not in STRATEGIES:
        raise InvalidArgument(f"{shown(strategy)} is no strategy", hint="halt or live")
    if not isinstance(force, list | tuple) or len(force) > FORCE_MAX:
        raise InvalidArgument("force is not a short list of strings", hint="ids of findings")
    for id in force:
        if not isinstance(id, str) or not _FINDING.fullmatch(id):
            raise InvalidArgument(f"{shown(id)} is not the id of a finding", hint="see Check")
    rehearse = values.get("rehearse", False)
    if not isinstance(rehearse, bool):
        raise InvalidArgument("rehearse is not a boolean", hint="true or false")
    named = None if strategy is None else str(strategy)
    return Options(named, tuple(dict.fromkeys(force)), rehearse)


def target(name: str) -> str:
    """A target that may be looked for; raises InvalidArgument if no device can have that name."""
    if not name:
        raise InvalidArgument("the target is empty", hint="name a block device")
    if len(name) > TARGET_MAX or len(name.encode(errors="surrogateescape")) > TARGET_MAX:
        raise InvalidArgument(
            f"the target {shown(name)} is longer than {TARGET_MAX} bytes", hint="name a device"
        )
    if _CONTROL.search(name):
        raise InvalidArgument(f"the target {shown(name)} has control characters in it")
    if ".." in name.split("/"):
        raise InvalidArgument(f'the target {shown(name)} has ".." in it', hint="name it directly")
    return name


def text(what: str, words: str) -> str:
    """Something for people to read, 1 to 256 characters; raises InvalidArgument."""
    if not 1 <= len(words) <= TEXT_MAX:
        raise InvalidArgument(f"{what} has {len(words)} characters, 1 to {TEXT_MAX} are wanted")
    if _CONTROL.search(words):
        raise InvalidArgument(f"{what} {shown(words)} has control characters in it")
    return words


def shown(value: object) -> str:
    """What a caller passed as it may stand in a message and in a log: short, on one line."""
    plain = str(value)[:TEXT_MAX]
    return ascii(plain) if len(plain) <= 64 else ascii(plain[:64]) + "…"
