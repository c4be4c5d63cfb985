"""D-Bus: the contract data/dbus/org.issu1.xml, calls dispatched by it, and every failure an error.

The only importer of dbus_next besides client.py. Its service classes are not used: they do not know
who calls, and send tracebacks to callers.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dbus_next.aio.message_bus import MessageBus
from dbus_next.constants import MessageFlag, MessageType, NameFlag, RequestNameReply
from dbus_next.message import Message
from dbus_next.signature import Variant

from . import errors
from .contract import PEER, PROPERTIES, Interface, Typed, introspection
from .errors import InvalidArgument, IssuError
from .request import shown

log = logging.getLogger(__name__)

BUS = "org.freedesktop.DBus"
CALL_SEC = 25.0  # for an answer to a call of ours
CALLS_MOST = 1024  # that wait for an answer of ours
# The first that fits counts.
ERRORS: tuple[tuple[type[Exception], str], ...] = (
    (errors.Inhibited, "Inhibited"), (errors.Busy, "Busy"), (errors.Refused, "NotEligible"),
    (errors.PastPointOfNoReturn, "PastPointOfNoReturn"), (errors.NoSuchJob, "NoSuchJob"),
    (errors.NotAuthorized, "NotAuthorized"), (errors.InvalidArgument, "InvalidArgument"),
    (Exception, "Failed"),
)  # fmt: skip


class BusError(IssuError):
    """An error that came over the bus, or is to go there by a name of its own."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name


class UnknownThing(BusError):
    """There is no such object, interface, method or property."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"{BUS}.Error.Unknown{kind}", f"there is no {kind.lower()} {name}")


@dataclass(frozen=True)
class Call:
    """A call of one of our methods: by whom, of which object, with which plain arguments."""

    sender: str
    interactive: bool  # the caller's user may be asked to say who it is
    path: str
    member: str
    args: tuple[Any, ...]


@dataclass(frozen=True)
class Answer:
    """What a method returns, with file descriptors that are closed once they are sent."""

    body: tuple[Any, ...] = ()
    fds: tuple[int, ...] = ()


class Objects(Protocol):
    """What the objects are and do; the service implements it."""

    interfaces: Mapping[str, Interface]

    async def interface_at(self, path: str) -> str:
        """The interface of the object at a path, "" for a node in between; raises NoSuchJob."""

    async def children(self, path: str) -> list[str] | None:
        """The names of the nodes below a path, None if there is nothing."""

    async def call(self, call: Call) -> Answer:
        """Carry out a method."""

    async def values(self, path: str) -> dict[str, Any]:
        """Every property of the object at a path."""


class Connection:
    """A connection to the bus that serves objects and makes calls."""

    def __init__(self, address: str, objects: Objects) -> None:
        self._address = address
        self._objects = objects
        self._tasks: set[asyncio.Task[None]] = set()
        self.served = 0  # calls so far

    async def open(self) -> None:
        """Connect; raises IssuError."""
        try:
            self._bus = MessageBus(bus_address=self._address, negotiate_unix_fd=True)
            await asyncio.wait_for(self._bus.connect(), CALL_SEC)
        except Exception as error:  # whatever the library lets through
            raise IssuError(f"the bus cannot be reached: {error}") from error
        self._bus.add_message_handler(self._receive)

    async def own(self, name: str) -> bool:
        """Become the owner of a name; whether it was free."""
        reply = await self._bus.request_name(name, NameFlag.DO_NOT_QUEUE)
        return reply in (RequestNameReply.PRIMARY_OWNER, RequestNameReply.ALREADY_OWNER)

    async def disown(self, name: str) -> None:
        """Give a name back; who calls it from now on calls another process."""
        await self.call(BUS, f"/{BUS.replace('.', '/')}", BUS, "ReleaseName", "s", name)

    @property
    def busy(self) -> int:
        """How many calls are not answered yet."""
        return len(self._tasks)

    async def closed(self) -> None:
        """Wait for the end of the connection."""
        with suppress(Exception):  # the reason is of no use
            await self._bus.wait_for_disconnect()  # type: ignore[no-untyped-call]

    async def call(
        self, name: str, path: str, interface: str, member: str, sign: str = "", *args: Any,
        timeout: float = CALL_SEC, interactive: bool = False,
    ) -> list[Any]:  # fmt: skip
        """Call a method of somebody and return plain values; raises BusError."""
        flags = MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION if interactive else MessageFlag.NONE
        message = Message(
            destination=name, path=path, interface=interface, member=member, signature=sign,
            body=[dressed(arg) for arg in args], flags=flags,
        )  # fmt: skip
        try:
            reply = await asyncio.wait_for(self._bus.call(message), timeout)
        except TimeoutError:
            raise BusError(f"{BUS}.Error.NoReply", f"{name} does not answer {member}") from None
        except Exception as error:
            text = f"the connection to the bus is lost: {error}"
            raise BusError(f"{BUS}.Error.Disconnected", text) from error
        assert reply is not None  # it was asked for
        if reply.message_type is MessageType.ERROR:
            raise BusError(reply.error_name, str(reply.body[0]) if reply.body else "no words")
        return [plain(value) for value in reply.body]

    async def emit(self, path: str, interface: str, member: str, *args: Any) -> None:
        """Send a signal of the contract; it is on its way to the bus when this returns."""
        sign = self._objects.interfaces[interface].signals[member]
        await self._send(Message.new_signal(path, interface, member, sign, dressed(list(args))))

    async def tell_changed(self, path: str, interface: str, changed: Mapping[str, Any]) -> None:
        """Send PropertiesChanged for those of the values that are properties that change."""
        types = self._objects.interfaces[interface].properties
        values = {name: Typed(types[name], changed[name]) for name in changed}
        body, sign = dressed([interface, values, []]), "sa{sv}as"
        await self._send(Message.new_signal(path, PROPERTIES, "PropertiesChanged", sign, body))

    async def flush(self) -> None:
        """Return once the bus has taken in all that was sent."""
        with suppress(BusError):
            await self.call(BUS, f"/{BUS.replace('.', '/')}", BUS, "GetId", timeout=2)

    async def _send(self, message: Message) -> None:
        if not self._bus.connected:
            raise ConnectionError("the bus has gone")
        await self._bus.send(message)

    def _receive(self, message: Message) -> bool | None:
        for fd in message.unix_fds:  # nobody may fill our table with them
            os.close(fd)
        if message.message_type is not MessageType.METHOD_CALL:
            return None
        if len(self._tasks) >= CALLS_MOST:
            text = "too many calls wait for an answer; call again"
            self._bus.send(Message.new_error(message, "org.issu1.Error.Failed", text))
            return True
        task = asyncio.ensure_future(self._serve(message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def _serve(self, message: Message) -> None:
        """Answer one call, whatever happens."""
        self.served += 1
        answer = Answer()
        try:
            sign, answer = await self._answer(message)
            body = dressed(list(answer.body))
            reply = Message.new_method_return(message, sign, body, list(answer.fds))
            await self._reply(message, reply)
        except Exception as error:
            name, text = told(error, message.member)
            with suppress(Exception):  # the bus has gone, and nobody waits
                await self._reply(message, Message.new_error(message, name, text))
        finally:
            for fd in answer.fds:
                os.close(fd)

    async def _reply(self, message: Message, reply: Message) -> None:
        if not message.flags & MessageFlag.NO_REPLY_EXPECTED:
            await self._send(reply)

    async def _answer(self, message: Message) -> tuple[str, Answer]:
        """The signature and the values of the answer to a call."""
        path, member, sign = message.path, message.member, message.signature
        args = tuple(plain(value) for value in message.body)
        if message.interface == PEER and member == "Ping":
            return "", Answer()
        if message.interface == PEER and member == "GetMachineId":
            return "s", Answer((Path("/etc/machine-id").read_text().strip(),))
        if message.interface == "org.freedesktop.DBus.Introspectable" and member == "Introspect":
            return "s", Answer((await self._introspect(path),))
        name = await self._objects.interface_at(path)
        if not name:
            raise UnknownThing("Object", path)
        if message.interface == PROPERTIES:
            return await self._properties(path, name, member, sign, args)
        if message.interface not in (None, name):
            raise UnknownThing("Interface", f"{message.interface} at {path}")
        method = self._objects.interfaces[name].methods.get(member)
        if method is None:
            raise UnknownThing("Method", f"{name}.{member}")
        if sign != method.takes:
            raise InvalidArgument(f'{member} takes "{method.takes}", not "{sign}"')
        interactive = bool(message.flags & MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION)
        call = Call(message.sender, interactive, path, member, args)
        return method.gives, await self._objects.call(call)

    async def _introspect(self, path: str) -> str:
        name = await self._objects.interface_at(path)
        children = await self._objects.children(path)
        if not name and children is None:
            raise UnknownThing("Object", path)
        return introspection(self._objects.interfaces.get(name), children or ())

    async def _properties(
        self, path: str, name: str, member: str, sign: str, args: Sequence[Any]
    ) -> tuple[str, Answer]:
        """org.freedesktop.DBus.Properties of the object whose interface is `name`."""
        takes = {"Get": "ss", "GetAll": "s", "Set": "ssv"}.get(member)
        if takes is None:
            raise UnknownThing("Method", f"{PROPERTIES}.{member}")
        if sign != takes:
            raise InvalidArgument(f'{member} takes "{takes}", not "{sign}"')
        if args[0] not in ("", name):
            raise UnknownThing("Interface", f"{shown(args[0])} at {path}")
        types = self._objects.interfaces[name].properties
        if member != "GetAll" and args[1] not in types:
            raise UnknownThing("Property", f"{name}.{shown(args[1])}")
        if member == "Set":
            raise BusError(f"{BUS}.Error.PropertyReadOnly", f"{args[1]} cannot be set")
        found = await self._objects.values(path)
        if member == "GetAll":
            return "a{sv}", Answer(({key: Typed(types[key], found[key]) for key in types},))
        return "v", Answer((Typed(types[args[1]], found[args[1]]),))


def told(error: Exception, member: str) -> tuple[str, str]:
    """The name and the words by which a failure is told to a caller."""
    if isinstance(error, BusError):
        return error.name, str(error)
    name = next(name for kind, name in ERRORS if isinstance(error, kind))
    if isinstance(error, IssuError):
        return f"org.issu1.Error.{name}", clean(error.sentence())
    log.error("%s failed", member, exc_info=error)
    text = f"{member} failed: {clean(str(error))}" if isinstance(error, OSError) else (
        f"{member} failed; the journal of issu-bus.service says why")  # fmt: skip
    return f"org.issu1.Error.{name}", text


def clean(text: str) -> str:
    """Text that may stand in a message: UTF-8 without NUL (D-Bus specification, "string")."""
    return text.encode(errors="replace").decode().replace("\0", "\ufffd")


def dressed(value: Any) -> Any:
    """Values as the library wants them: variants where there are `Typed`, lists for structs."""
    if isinstance(value, Typed):
        return Variant(value.type, dressed(value.value))
    if isinstance(value, dict):
        return {key: dressed(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [dressed(item) for item in value]
    return clean(value) if isinstance(value, str) else value


def plain(value: Any) -> Any:
    """Values of a message without their variants."""
    if isinstance(value, Variant):
        return plain(value.value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value
