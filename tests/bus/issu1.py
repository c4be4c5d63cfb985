"""A stand-in for org.issu1 on a private bus, and the handle by which a test leads it.

It knows methods, properties, signals and their types from data/dbus/org.issu1.xml and nothing else,
so a client that asks otherwise is refused. Run as a program it is told by lines of JSON on standard
input what it is to be, and answers each with one line. It does nothing by itself.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from xml.etree import ElementTree

from dbus_next.aio.message_bus import MessageBus
from dbus_next.constants import MessageFlag, MessageType
from dbus_next.message import Message
from dbus_next.signature import SignatureTree, Variant

NAME, TOP = "org.issu1", "/org/issu1"
CONTRACT = Path(__file__).parents[2] / "data/dbus/org.issu1.xml"
PROPERTIES = "org.freedesktop.DBus.Properties"
START_SEC = 30.0


def job(id: str) -> str:
    """The object of an upgrade."""
    return f"{TOP}/job/{id}"


class Service:
    """The test's end of the stand-in."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def _ask(self, **command: Any) -> Any:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, "the stand-in for org.issu1 has died"
        return json.loads(answer)

    def be(
        self,
        *,
        answers: dict[str, list[Any]] | None = None,
        errors: dict[str, list[str]] | None = None,
        manager: dict[str, Any] | None = None,
        jobs: dict[str, dict[str, Any]] | None = None,
    ) -> None:
        """Become this, with nothing asked yet: answers and errors by method, jobs by id."""
        state = {"answers": answers, "errors": errors, "manager": manager, "jobs": jobs}
        self._ask(do="be", state={key: value or {} for key, value in state.items()})

    def job(self, id: str, *, tell: bool = True, **properties: Any) -> None:
        """Change a job; PhaseChanged or JobRemoved is sent unless `tell` is false."""
        self._ask(do="job", id=id, properties=properties, tell=tell)

    def calls(self, *methods: str) -> list[list[Any]]:
        """[method, path, argument...] of every call so far, or of some methods only."""
        found: list[list[Any]] = self._ask(do="calls")
        return [call for call in found if call[0] in methods or not methods]

    def is_interactive(self) -> bool:
        """Whether the last call allowed interactive authorisation."""
        return bool(self._ask(do="interactive"))

    def held(self) -> bool:
        """Whether somebody still holds a descriptor that Inhibit gave away."""
        return bool(self._ask(do="held"))


@contextmanager
def service(address: str) -> Iterator[Service]:
    """The stand-in on the bus at `address`."""
    process = subprocess.Popen(
        [sys.executable, __file__, address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        yield Service(process)


# --- the program --------------------------------------------------------------------------------


class Refusal(Exception):
    """A D-Bus error: its name and its text."""


def contract() -> dict[str, Any]:
    """By interface: signatures of methods (in and out) and signals, types of properties."""
    found: dict[str, Any] = {}
    for interface in ElementTree.parse(CONTRACT).iter("interface"):
        mine = found[interface.attrib["name"]] = {"methods": {}, "signals": {}, "properties": {}}
        for method in interface.iter("method"):
            sides = {"in": "", "out": ""}
            for arg in method.iter("arg"):
                sides[arg.attrib["direction"]] += arg.attrib["type"]
            mine["methods"][method.attrib["name"]] = (sides["in"], sides["out"])
        for signal in interface.iter("signal"):
            types = "".join(arg.attrib["type"] for arg in signal.iter("arg"))
            mine["signals"][signal.attrib["name"]] = types
        for one in interface.iter("property"):
            mine["properties"][one.attrib["name"]] = one.attrib["type"]
    return found


def packed(signature: str, values: list[Any]) -> list[Any]:
    """JSON values as the library wants them for a signature: variants where it says v."""
    kinds = SignatureTree(signature).types
    return [_packed(kind, value) for kind, value in zip(kinds, values, strict=True)]


def _packed(kind: Any, value: Any) -> Any:
    if kind.token == "v":
        types: dict[type, str] = {str: "s", bool: "b", int: "t", list: "as"}
        return Variant(types[type(value)], value)
    if kind.token == "a" and kind.children[0].token == "{":
        return {key: _packed(kind.children[0].children[1], v) for key, v in value.items()}
    if kind.token == "a":
        return [_packed(kind.children[0], v) for v in value]
    if kind.token == "(":
        return [_packed(child, v) for child, v in zip(kind.children, value, strict=True)]
    return value


def plain(value: Any) -> Any:
    if isinstance(value, Variant):
        return plain(value.value)
    return {k: plain(v) for k, v in value.items()} if isinstance(value, dict) else value


DEFAULTS = {
    "s": "",
    "b": False,
    "t": 0,
    "u": 0,
    "o": "/",
    "(isi)": [-1, "", 0],
    "aa{sv}": [],
}


class Server:
    """What answers the calls."""

    def __init__(self, bus: Any) -> None:
        self.bus = bus
        self.contract = contract()
        self.inhibitors: list[int] = []
        self.interactive = False
        self.become({"answers": {}, "errors": {}, "manager": {}, "jobs": {}})

    def become(self, state: dict[str, Any]) -> None:
        self.state = state
        self.calls: list[list[Any]] = []
        for fd in self.inhibitors:
            os.close(fd)
        self.inhibitors = []

    def command(self, words: dict[str, Any]) -> Any:
        match words["do"]:
            case "be":
                return self.become(words["state"])
            case "job":
                return self.change(**{k: v for k, v in words.items() if k != "do"})
            case "calls":
                return self.calls
            case "interactive":
                return self.interactive
            case "held":
                return any(not is_closed(fd) for fd in self.inhibitors)
        raise ValueError(words)

    def change(self, id: str, properties: dict[str, Any], *, tell: bool) -> None:
        self.state["jobs"].setdefault(id, {}).update(properties)
        if tell and properties.get("Result"):
            self.emit("JobRemoved", [id, job(id), properties["Result"]])
        elif tell:
            self.emit("PhaseChanged", [id, job(id), properties.get("Phase", "")])

    def emit(self, name: str, args: list[Any]) -> None:
        interface = f"{NAME}.Manager"
        types = self.contract[interface]["signals"][name]
        self.bus.send(Message.new_signal(TOP, interface, name, types, packed(types, args)))

    # what is asked of it

    def handle(self, message: Any) -> Any:
        ours = str(message.path).startswith(TOP)
        if message.message_type is not MessageType.METHOD_CALL or not ours:
            return None
        if message.interface != PROPERTIES:
            self.calls.append([message.member, message.path, *map(plain, message.body)])
            self.interactive = bool(message.flags & MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION)
        try:
            signature, body, fds = self.answer(message)
        except Refusal as refusal:
            self.bus.send(Message.new_error(message, *refusal.args))
        else:
            self.bus.send(Message.new_method_return(message, signature, body, fds))
            for fd in fds:
                asyncio.get_running_loop().call_later(0, self.given, fd)
        return True

    def given(self, fd: int) -> None:
        """Our copy of a descriptor goes once it is sent."""
        if self.bus._writer.buf is None and self.bus._writer.messages.empty():
            os.close(fd)
        else:
            asyncio.get_running_loop().call_later(0.01, self.given, fd)

    def answer(self, message: Any) -> tuple[str, list[Any], list[int]]:
        if message.interface == PROPERTIES:
            assert (message.member, message.signature) == ("GetAll", "s")
            return "a{sv}", [self.properties(message.path, message.body[0])], []
        known = self.contract.get(message.interface, {}).get("methods", {})
        if message.member not in known:
            raise Refusal("org.freedesktop.DBus.Error.UnknownMethod", f"no {message.member}")
        takes, gives = known[message.member]
        if message.signature != takes:
            raise Refusal("org.freedesktop.DBus.Error.InvalidArgs", f"{message.signature}")
        if error := self.state["errors"].get(message.member):
            raise Refusal(*error)
        if gives == "h":
            reader, writer = os.pipe()
            self.inhibitors.append(reader)
            return "h", [0], [writer]
        defaults = [DEFAULTS.get(kind.signature, []) for kind in SignatureTree(gives).types]
        answer = self.state["answers"].get(message.member, defaults)
        return gives, packed(gives, answer), []

    def properties(self, path: str, interface: str) -> dict[str, Variant]:
        values = self.state["manager"]
        if interface == f"{NAME}.Job":
            id = path.rpartition("/")[2]
            if id not in self.state["jobs"]:
                raise Refusal("org.issu1.Error.NoSuchJob", f"no upgrade {id}")
            values = {"Id": id} | self.state["jobs"][id]
        return {
            name: Variant(kind, values.get(name, DEFAULTS[kind]))
            for name, kind in self.contract[interface]["properties"].items()
        }


def is_closed(reader: int) -> bool:
    """Whether nobody has the other end of a pipe any more."""
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    return any(event & select.POLLHUP for _, event in poll.poll(0))


async def serve(address: str, commands: IO[bytes]) -> None:
    connection = MessageBus(bus_address=address, negotiate_unix_fd=True).connect()
    bus = await asyncio.wait_for(connection, START_SEC)
    server = Server(bus)
    bus.add_message_handler(server.handle)
    await bus.request_name(NAME)
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def read() -> None:
        line = commands.readline()
        if not line:
            ended.set()
            return
        print(json.dumps(server.command(json.loads(line))), flush=True)

    loop.add_reader(commands, read)
    print("ready", flush=True)
    await ended.wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.stdin.buffer))
