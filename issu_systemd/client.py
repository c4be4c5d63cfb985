"""org.issu1 as its clients see it, see org.issu1(5). On their side the only importer of dbus_next.

One connection to the system bus ($DBUS_SYSTEM_BUS_ADDRESS), used from ordinary code: each call runs
the event loop until it is answered. No traceback and no exception of the library gets out.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from collections.abc import Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

from dbus_next.aio.message_bus import MessageBus
from dbus_next.constants import BusType, MessageFlag, MessageType
from dbus_next.message import Message
from dbus_next.signature import Variant

from .errors import (
    Busy,
    Inhibited,
    InvalidArgument,
    IssuError,
    NoSuchJob,
    NotAuthorized,
    PastPointOfNoReturn,
    Refused,
    Unreachable,
)

NAME = "org.issu1"
TOP = "/org/issu1"
MANAGER, JOB = f"{NAME}.Manager", f"{NAME}.Job"
BUS, BUS_PATH = "org.freedesktop.DBus", "/org/freedesktop/DBus"
RULES = (
    f"type='signal',sender='{NAME}'",
    f"type='signal',sender='{BUS}',member='NameOwnerChanged',arg0='{NAME}'",
)
READ_SEC = 15.0  # to be activated and to answer what costs nothing
CALL_SEC = 120.0  # the same, and somebody types a password, or PID 1 is busy
CHECK_SEC = 3600.0  # the service ends what takes longer than the settings allow
RETRY_SEC = 0.25  # between two tries to reach a bus that is away
SIGNATURES = {str: "s", bool: "b", list: "as"}
ID = re.compile(r"[A-Za-z0-9_]+")

KINDS: dict[str, type[IssuError]] = {
    "org.issu1.Error.Busy": Busy,
    "org.issu1.Error.NotEligible": Refused,
    "org.issu1.Error.Inhibited": Inhibited,
    "org.issu1.Error.PastPointOfNoReturn": PastPointOfNoReturn,
    "org.issu1.Error.NoSuchJob": NoSuchJob,
    "org.issu1.Error.NotAuthorized": NotAuthorized,
    "org.issu1.Error.InvalidArgument": InvalidArgument,
    f"{BUS}.Error.AccessDenied": NotAuthorized,
    f"{BUS}.Error.InteractiveAuthorizationRequired": NotAuthorized,
    f"{BUS}.Error.InvalidArgs": InvalidArgument,
    f"{BUS}.Error.UnknownObject": NoSuchJob,
    f"{BUS}.Error.UnknownInterface": NoSuchJob,
    f"{BUS}.Error.UnknownMethod": NoSuchJob,
}
# What the bus and PID 1 say of a service that is not there, or not now.
AWAY = re.compile(
    r"org\.freedesktop\.(DBus\.Error\.(ServiceUnknown|NameHasNoOwner|NoReply|Timeout|TimedOut"
    r"|Disconnected|Spawn\..*)|systemd1\..*)"
)

T = TypeVar("T")


class Signal(NamedTuple):
    """A signal of the manager, or NameOwnerChanged of its name."""

    member: str
    args: list[Any]


class Bus(MessageBus):
    """The library's connection, with the end of one mended."""

    def __init__(self) -> None:
        try:
            super().__init__(bus_type=BusType.SYSTEM, negotiate_unix_fd=True)
        except Exception:
            self.close()
            raise
        self.lost: asyncio.Future[None] = self._disconnect_future
        # Taken note of, or asyncio complains on standard error that nobody has.
        self.lost.add_done_callback(lambda lost: lost.cancelled() or lost.exception())

    async def _auth_readline(self) -> str:
        """A line of the handshake; the library spins for ever when the bus hangs up in it."""
        line = b""
        while not line.endswith(b"\r\n"):
            read = await self._loop.sock_recv(self._sock, 1)
            if not read:
                raise EOFError("it hung up")
            line += read
        return line[:-2].decode()

    def hang_up(self) -> None:
        """End the connection."""
        self._finalize()  # type: ignore[no-untyped-call]
        self.close()

    def close(self) -> None:
        """Close the socket, if there is one, which the library leaves to the garbage collector."""
        with suppress(OSError, AttributeError):
            self._stream.close()
        with suppress(AttributeError):
            self._sock.close()


class Client:
    """A connection to the system bus; a context manager. Calls raise an IssuError that fits."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._bus: Bus | None = None
        self._heard = asyncio.Event()
        self.signals: list[Signal] = []  # what was heard and is not read yet

    def __enter__(self) -> Client:
        try:
            self.connect()
        except IssuError:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    def close(self) -> None:
        """Hang up; what Ctrl-C has left unfinished is given up."""
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._hang_up()
        self._loop.close()

    def connect(self) -> None:
        """Connect and listen, unless connected already; raises Unreachable."""
        if self._bus is not None and self._bus.connected:
            return
        self._hang_up()
        try:
            self._run(self._connect(), READ_SEC)
        except Unreachable:
            self._hang_up()
            raise

    async def _connect(self) -> None:
        self._bus = Bus()
        await self._bus.connect()
        self._bus.add_message_handler(self._hear)
        for rule in RULES:
            await self._ask(Message(BUS, BUS_PATH, BUS, "AddMatch", signature="s", body=[rule]))

    def _hang_up(self) -> None:
        bus, self._bus = self._bus, None
        if bus is not None:
            bus.hang_up()

    def _hear(self, message: Message) -> None:
        if message.message_type is MessageType.SIGNAL and message.member != "NameAcquired":
            self.signals.append(Signal(message.member, plain(message.body)))
            self._heard.set()

    def _run(self, work: Coroutine[Any, Any, T], seconds: float) -> T:
        """Run `work` for so long at most; whatever is wrong with the bus becomes Unreachable."""
        try:
            return self._loop.run_until_complete(asyncio.wait_for(work, seconds))
        except TimeoutError:
            raise Unreachable(f"{NAME} did not answer within {seconds:g} s") from None
        except IssuError:
            raise
        except Exception as error:  # OSError, EOFError, AuthError: the library says not which
            said = getattr(error, "strerror", None) or str(error) or "it hung up"
            raise Unreachable(f"the system bus cannot be reached: {said}") from error

    async def _ask(self, message: Message) -> Message:
        assert self._bus is not None
        reply = await self._bus.call(message)
        if reply is None:
            raise EOFError("it hung up")
        if reply.message_type is MessageType.ERROR:
            raise error_of(reply.error_name, reply.body)
        return reply

    def call(
        self, method: str, sign: str = "", *args: Any,
        path: str = TOP, interface: str = MANAGER, seconds: float = CALL_SEC,
    ) -> list[Any]:  # fmt: skip
        """Call a method with arguments of D-Bus signature `sign`; what it gave, without variants.

        On a terminal polkit may ask who one is. A descriptor stays our own: close-on-exec.
        """
        self.connect()
        flags = MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION if is_asked() else MessageFlag.NONE
        reply = self._run(
            self._ask(Message(
                NAME, path, interface, method, flags=flags, signature=sign, body=list(args)
            )), seconds,
        )  # fmt: skip
        for fd in reply.unix_fds:
            os.set_inheritable(fd, False)
        if reply.signature == "h":
            return [reply.unix_fds[reply.body[0]]]
        return [plain(value) for value in reply.body]

    def properties(self, path: str = TOP, interface: str = MANAGER) -> dict[str, Any]:
        """Every property of the manager or a job."""
        name = "org.freedesktop.DBus.Properties"
        [found] = self.call("GetAll", "s", interface, path=path, interface=name, seconds=READ_SEC)
        return dict(found)

    def wait(self, seconds: float) -> None:
        """Return when a signal has come, the connection is lost, or so long has passed."""
        bus = self._bus
        if bus is None or not bus.connected:
            time.sleep(min(seconds, RETRY_SEC))
            return

        async def first() -> None:
            heard = asyncio.ensure_future(self._heard.wait())
            done = asyncio.FIRST_COMPLETED
            await asyncio.wait((bus.lost, heard), timeout=seconds, return_when=done)
            heard.cancel()

        if not self.signals:
            self._heard.clear()
            self._loop.run_until_complete(first())


def is_asked() -> bool:
    """Whether there is somebody whom polkit may ask for a password."""
    return sys.stdin is not None and sys.stdin.isatty()


def job_path(id: str) -> str:
    """The object of an upgrade; raises NoSuchJob if it can be no id."""
    if not ID.fullmatch(id):
        raise NoSuchJob(f"no upgrade {id}")
    return f"{TOP}/job/{id}"


def options(**values: str | bool | list[str] | None) -> dict[str, Variant]:
    """Options as a{sv}; None and empty ones are left out."""
    return {k: Variant(SIGNATURES[type(v)], v) for k, v in values.items() if v}


def plain(value: Any) -> Any:
    """A D-Bus value without its variants."""
    if isinstance(value, Variant):
        return plain(value.value)
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list) else value


def error_of(name: str, body: list[Any]) -> IssuError:
    """The exception that stands for a D-Bus error."""
    text = str(body[0] if body else name).strip().partition("\n")[0]
    if AWAY.fullmatch(name):
        return Unreachable(f"{NAME} cannot be reached: {text}")
    return KINDS.get(name, IssuError)(text)
