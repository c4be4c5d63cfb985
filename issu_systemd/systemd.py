"""Everything that is said to PID 1. The only importer of pystemd.

The default address is PID 1's private socket, which works while no D-Bus daemon runs.
Interface: org.freedesktop.systemd1(5).
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Collection
from errno import ESRCH
from types import TracebackType
from typing import Any, NamedTuple

from pystemd.daemon import notify as _notify
from pystemd.dbusexc import DBusBaseError, DBusNoSuchUnitError
from pystemd.dbuslib import DBusAddress, apply_signature, path_encode

from .errors import IssuError

PRIVATE = "unix:path=/run/systemd/private"
SYSTEM = "unix:path=/run/dbus/system_bus_socket"
_DESTINATION = b"org.freedesktop.systemd1"
_PATH = b"/org/freedesktop/systemd1"
_MANAGER = b"org.freedesktop.systemd1.Manager"
_PROPERTIES = b"org.freedesktop.DBus.Properties"


AWAY_SEC = 0.005  # between two tries to reach a PID 1 that is away


class Unit(NamedTuple):
    """A loaded unit, as ListUnits tells it."""

    name: str
    load: str
    active: str
    sub: str


class Job(NamedTuple):
    """A queued or running job, as ListJobs tells it."""

    id: int
    unit: str
    type: str
    state: str


def notify(*, status: str = "", ready: bool = False, stopping: bool = False) -> None:
    """Tell PID 1 our state by sd_notify(3); nothing happens outside a unit."""
    if os.environ.get("NOTIFY_SOCKET"):
        told: dict[str, object] = {"status": status} if status else {}
        told |= {"ready": 1} if ready else {}
        _notify(False, **told, **({"stopping": 1} if stopping else {}))


def _words(error: Exception) -> str:
    """PID 1's own words; pystemd keeps them as bytes, and adds words of its own."""
    text = getattr(error, "err_message", None) or str(error).splitlines()[0]
    return text.decode(errors="replace") if isinstance(text, bytes) else str(text)


def connect(deadline: float) -> Manager:
    """A connection to PID 1 as soon as it answers, for it is away while it re-executes.

    `deadline` is in time.monotonic() seconds. Raises IssuError with what it last said.
    """
    while True:
        manager = Manager()
        try:
            manager.__enter__()
            manager.version()
        except IssuError:
            manager.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(AWAY_SEC)
        else:
            return manager


class Manager:
    """A connection to PID 1; a context manager. Calls raise IssuError with PID 1's words."""

    def __init__(self, address: str = PRIVATE, *, peer_to_peer: bool = True) -> None:
        self._bus = DBusAddress(address.encode(), peer_to_peer=peer_to_peer)
        self._removed: list[tuple[int, str]] = []  # job id, result

        def removed(message: Any, error: Any = None, userdata: Any = None) -> None:
            message.process_reply(False)
            self._removed.append((message.body[0], message.body[3].decode()))

        # pystemd keeps no reference to a callback, and its data on it: one for each connection.
        self._on_removed = removed

    def __enter__(self) -> Manager:
        try:
            self._bus.open()
            self._bus.match_signal(None, _PATH, _MANAGER, b"JobRemoved", self._on_removed)
            self.call("Subscribe")
        except (DBusBaseError, OSError) as error:
            raise IssuError(f"PID 1 cannot be reached: {_words(error)}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._bus.close()

    def _call(
        self, path: bytes, interface: bytes, method: str, sign: str, args: tuple[Any, ...]
    ) -> Any:
        words = [a.encode() if isinstance(a, str) else a for a in args]
        try:
            return self._bus.call_method(
                _DESTINATION, path, interface, method.encode(),
                apply_signature(sign.encode(), words) if sign else [],
            ).body  # fmt: skip
        except (DBusBaseError, OSError) as error:
            raise IssuError(f"PID 1 refused {method}{args}: {_words(error)}") from error

    def call(self, method: str, sign: str = "", *args: str | int | bool) -> Any:
        """Call a method of the manager with arguments of D-Bus signature `sign`."""
        return self._call(_PATH, _MANAGER, method, sign, args)

    def get(self, name: str, sign: str, unit: str = "", interface: str = "Service") -> Any:
        """A property of D-Bus type `sign`: of the manager, or of an interface of a unit."""
        path = path_encode(_PATH + b"/unit", unit.encode()) if unit else _PATH
        of = f"org.freedesktop.systemd1.{interface}".encode() if unit else _MANAGER
        try:
            return self._bus.get_property(_DESTINATION, path, of, name.encode(), sign.encode())
        except (DBusBaseError, OSError) as error:
            raise IssuError(f"PID 1 has no property {name}: {_words(error)}") from error

    def version(self) -> str:
        """PID 1's version, such as 252.39-1~deb12u1."""
        return str(self.get("Version", "s").decode())

    def offers(self, method: str) -> bool:
        """Whether this PID 1 has the manager method; the way to choose a mechanism."""
        xml = self._call(_PATH, b"org.freedesktop.DBus.Introspectable", "Introspect", "", ())
        return f'<method name="{method}"' in xml.decode()

    def default_target(self) -> str:
        """The unit that a boot of the running root ends in."""
        return str(self.call("GetDefaultTarget").decode())

    def units(self) -> list[Unit]:
        """Every loaded unit."""
        return [
            Unit(u[0].decode(), u[2].decode(), u[3].decode(), u[4].decode())
            for u in self.call("ListUnits")
        ]

    def jobs(self) -> list[Job]:
        """Every job there is."""
        return [
            Job(j[0], j[1].decode(), j[2].decode(), j[3].decode()) for j in self.call("ListJobs")
        ]

    def properties(self, unit: str, interface: str = "Unit") -> dict[str, Any]:
        """All properties of one of a unit's interfaces: Unit, Service, ...; strings stay bytes."""
        path = path_encode(_PATH + b"/unit", unit.encode())
        name = f"org.freedesktop.systemd1.{interface}"
        found = self._call(path, _PROPERTIES, "GetAll", "s", (name,))
        return {key.decode(): value for key, value in found.items()}

    def start(self, unit: str, mode: str = "replace") -> int:
        """Queue a start job and return its id; mode as in systemctl(1) --job-mode."""
        return _job_id(self.call("StartUnit", "ss", unit, mode))

    def restart(self, unit: str, mode: str = "replace") -> int:
        """Queue a restart job and return its id; mode as in systemctl(1) --job-mode."""
        return _job_id(self.call("RestartUnit", "ss", unit, mode))

    def stop(self, unit: str, mode: str = "replace") -> int:
        """Queue a stop job and return its id; mode as in systemctl(1) --job-mode."""
        return _job_id(self.call("StopUnit", "ss", unit, mode))

    def kill(self, unit: str, signal: int) -> None:
        """Send a signal to every process of a unit; one that has none is no error."""
        try:
            self.call("KillUnit", "ssi", unit, "all", signal)
        except IssuError as error:
            cause = error.__cause__
            gone = isinstance(cause, DBusNoSuchUnitError) or getattr(cause, "errno", 0) == -ESRCH
            if not gone:
                raise

    def wait_job(self, job: int, deadline: float) -> str | None:
        """Wait for a job's end, until `deadline` (time.monotonic() seconds); its result or None."""
        ended = self.wait_any((job,), deadline)
        return ended[1] if ended else None

    def wait_any(self, jobs: Collection[int], deadline: float) -> tuple[int, str] | None:
        """Wait until one of the jobs has ended; its id and result, None at the deadline."""
        while True:
            self._hear(0)
            for ended, result in self._removed:
                if ended in jobs:
                    return ended, result
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            self._hear(left)

    def _hear(self, seconds: float) -> None:
        """Wait for a message at most so long, and take in what has come."""
        try:
            if seconds:
                self._bus.wait(int(seconds * 1_000_000) + 1)
            while not self._bus.process().is_empty():
                pass
        except (DBusBaseError, OSError) as error:
            raise IssuError(f"the connection to PID 1 is lost: {_words(error)}") from error

    def wait_until(self, condition: Callable[[], bool], deadline: float) -> bool:
        """Wait until `condition` holds, asking again whenever a job ends and once a second."""
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            seen = len(self._removed)
            until = time.monotonic() + min(left, 1.0)
            while len(self._removed) == seen and (rest := until - time.monotonic()) > 0:
                self._hear(0)
                if len(self._removed) == seen:
                    self._hear(rest)
        return True


def inhibitors() -> list[tuple[str, str, str, str]]:
    """What, who, why, mode of each inhibitor lock, see org.freedesktop.login1(5).

    Raises IssuError when the bus or logind does not answer.
    """
    bus, login = DBusAddress(SYSTEM.encode()), b"org.freedesktop.login1"
    try:
        bus.open()
        found = bus.call_method(
            login, b"/org/freedesktop/login1", login + b".Manager", b"ListInhibitors", []
        ).body
    except (DBusBaseError, OSError) as error:
        raise IssuError(f"logind does not list inhibitors: {_words(error)}") from error
    finally:
        bus.close()
    texts = [[part.decode(errors="replace") for part in row[:4]] for row in found]
    return [(what, who, why, mode) for what, who, why, mode in texts]


def escape_path(path: str) -> str:
    """A path as it stands in a unit name, see systemd.unit(5) and systemd-escape(1) --path."""
    text = "/".join(part for part in path.split("/") if part not in ("", ".")) or "/"
    return "-" if text == "/" else "".join(_escape(c, i == 0) for i, c in enumerate(text))


def unescape_path(name: str) -> str:
    """The inverse of `escape_path`; raises ValueError if the name is no such one."""
    plain = re.sub(rb"\\x([0-9a-f]{2})", lambda code: bytes.fromhex(code[1].decode()),
                   os.fsencode(name).replace(b"-", b"/"))  # fmt: skip
    path = "/" + os.fsdecode(plain).lstrip("/")
    if escape_path(path) != name:
        raise ValueError(f"{name} is not the output of systemd-escape --path")
    return path


def bus_label(name: str) -> str:
    """A unit's name as it stands in its object path, see sd_bus_path_encode(3)."""
    return "".join(
        chr(byte) if chr(byte).isalnum() and byte < 128 and not (i == 0 and chr(byte).isdigit())
        else f"_{byte:02x}" for i, byte in enumerate(os.fsencode(name))
    ) or "_"  # fmt: skip


def _escape(char: str, first: bool) -> str:
    if char == "/":
        return "-"
    plain = char.isascii() and (char.isalnum() or char in ":_.")
    if plain and not (first and char == "."):
        return char
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(char))


def _job_id(path: bytes) -> int:
    return int(path.rpartition(b"/")[2])
