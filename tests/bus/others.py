"""The bus of a machine, and who else is on it: callers of any user, polkit, the service itself."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dbus_next.aio.message_bus import MessageBus
from dbus_next.auth import AuthExternal
from dbus_next.constants import MessageFlag, MessageType
from dbus_next.message import Message
from dbus_next.signature import Variant

from issu_systemd import request
from issu_systemd.record import Record, dumps
from issu_systemd.record import write_atomically as write
from tests.bus.launch import DEV, ROOT

NAME, TOP = "org.issu1", "/org/issu1"
MANAGER, JOB = f"{NAME}.Manager", f"{NAME}.Job"
PROPERTIES = "org.freedesktop.DBus.Properties"
BUS = "org.freedesktop.DBus"
POLKIT = "org.freedesktop.PolicyKit1"
SOON_SEC = 20.0  # a test that comes near it has failed
USER = 65534

# What Debian's own system.conf allows, and the policy that the package installs.
CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>{address}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus"/>
  </policy>
  <policy user="root">
    <allow own="org.freedesktop.systemd1"/>
    <allow own="org.freedesktop.PolicyKit1"/>
    <allow send_destination="org.freedesktop.systemd1"/>
    <allow send_destination="org.freedesktop.PolicyKit1"/>
  </policy>
  <include>{policy}</include>
  <limit name="max_connections_per_user">1024</limit>
</busconfig>
"""


class Refused(Exception):
    """A D-Bus error."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name, self.text = name, text

    @property
    def short(self) -> str:
        """The last part of the error's name."""
        return self.name.rpartition(".")[2]


@contextmanager
def system_bus(place: Path) -> Iterator[str]:
    """A dbus-daemon as on a machine with the package installed; its address."""
    address = f"unix:abstract=issu-test-{os.getpid()}-{place.name}"
    config = place / "bus.conf"
    config.write_text(CONFIG.format(address=address, policy=ROOT / "data/dbus/org.issu1.conf"))
    argv = ["dbus-daemon", f"--config-file={config}", "--nofork", "--print-address"]
    daemon = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    with daemon:
        assert daemon.stdout
        assert daemon.stdout.readline(), "dbus-daemon did not start"
        try:
            yield address
        finally:
            daemon.terminate()


class _AuthAs(AuthExternal):
    def __init__(self, uid: int) -> None:
        self.uid = uid

    def _authentication_start(self, negotiate_unix_fd: bool = False) -> str:
        self.negotiate_unix_fd = negotiate_unix_fd
        return f"AUTH EXTERNAL {str(self.uid).encode().hex()}"


class Caller:
    """Somebody on the bus."""

    def __init__(self, bus: MessageBus) -> None:
        self.bus = bus
        self.heard: list[tuple[str, str, list[Any]]] = []  # path, member, arguments
        self._news = asyncio.Event()

    async def send(self, message: Message) -> Message:
        reply = await asyncio.wait_for(self.bus.call(message), SOON_SEC)
        assert reply
        if reply.message_type is MessageType.ERROR:
            raise Refused(reply.error_name, str(reply.body[0]) if reply.body else "")
        return reply

    async def ask(
        self, member: str, sign: str = "", *args: Any, path: str = TOP,
        interface: str | None = MANAGER, name: str = NAME, interactive: bool = False,
    ) -> Any:
        """Call a method; its one value, or all of them if it has not one."""
        flags = MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION if interactive else MessageFlag.NONE
        reply = await self.send(Message(
            destination=name, path=path, interface=interface, member=member, signature=sign,
            body=list(args), flags=flags,
        ))  # fmt: skip
        self.fds = reply.unix_fds
        body = bare(reply.body)
        return body[0] if len(body) == 1 else body

    async def start(self, target: str = f"{DEV}b", **options: Variant) -> tuple[str, str]:
        id, path = await self.ask("Start", "sa{sv}", target, options)
        return id, path

    async def get(self, name: str, path: str = TOP) -> Any:
        interface = MANAGER if path == TOP else JOB
        return await self.ask("Get", "ss", interface, name, path=path, interface=PROPERTIES)

    async def all(self, path: str = TOP) -> dict[str, Any]:
        found: dict[str, Any] = await self.ask("GetAll", "s", "", path=path, interface=PROPERTIES)
        return found

    async def refused(self, asked: Awaitable[Any]) -> Refused:
        """The error that a call ends with."""
        try:
            answer = await asked
        except Refused as error:
            assert error.text
            assert "Traceback" not in error.text
            assert len(error.text) < 1024
            return error
        raise AssertionError(f"it was answered with {answer}")

    async def listen(self) -> None:
        """Hear what the service tells from now on."""
        self.bus.add_message_handler(self._hear)
        rule = f"type='signal',sender='{NAME}'"
        await self.ask("AddMatch", "s", rule, path="/org/freedesktop/DBus", interface=BUS, name=BUS)

    def _hear(self, message: Message) -> None:
        if message.message_type is MessageType.SIGNAL and message.path.startswith(TOP):
            self.heard.append((message.path, message.member, bare(message.body)))
            self._news.set()

    async def hears(self, *members: str) -> None:
        """Wait until every one of the signals has come; PropertiesChanged need not be named."""
        async with asyncio.timeout(SOON_SEC):
            while not set(members) <= {member for _, member, _ in self.heard}:
                self._news.clear()
                await self._news.wait()

    def told(self) -> list[tuple[Any, ...]]:
        """The signals of the Manager so far, in their order."""
        return [(m, *args) for _, m, args in self.heard if m != "PropertiesChanged"]


def bare(value: Any) -> Any:
    """A value without its variants."""
    if isinstance(value, Variant):
        return bare(value.value)
    if isinstance(value, dict):
        return {key: bare(item) for key, item in value.items()}
    return [bare(item) for item in value] if isinstance(value, list) else value


@asynccontextmanager
async def caller(address: str, uid: int = 0) -> AsyncIterator[Caller]:
    """Somebody of a user on the bus."""
    os.seteuid(uid)
    try:  # the library connects here
        bus = MessageBus(bus_address=address, auth=_AuthAs(uid), negotiate_unix_fd=True)
    finally:
        os.seteuid(0)
    await asyncio.wait_for(bus.connect(), SOON_SEC)
    try:
        yield Caller(bus)
    finally:
        bus.disconnect()


Ruling = tuple[bool, bool] | str  # authorised, challenge; or the name of an error


@dataclass
class Polkit:
    """A stand-in for polkit: what it says of each action, and what it was asked."""

    rules: dict[str, Ruling] = field(default_factory=dict)
    asked: list[tuple[str, str, int]] = field(default_factory=list)  # subject, action, flags
    hold: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: list[str] = field(default_factory=list)

    async def answer(self, bus: MessageBus, message: Message) -> None:
        if message.member == "CancelCheckAuthorization":
            self.cancelled.append(message.body[0])
            bus.send(Message.new_method_return(message))
            return
        (kind, details), action, _, flags, _ = message.body
        assert kind == "system-bus-name"
        self.asked.append((details["name"].value, action, flags))
        if flags:
            await self.hold.wait()
        ruling = self.rules.get(action.removeprefix(f"{NAME}."), (False, False))
        if isinstance(ruling, str):
            bus.send(Message.new_error(message, ruling, "so it is"))
            return
        may, challenge = ruling
        bus.send(Message.new_method_return(
            message, "(bba{ss})", [[may or bool(flags and challenge), challenge, {}]]
        ))  # fmt: skip


@asynccontextmanager
async def polkit(address: str, **rules: Ruling) -> AsyncIterator[Polkit]:
    """polkit on the bus; an action's "-" is written "_"."""
    found = Polkit({action.replace("_", "-"): rule for action, rule in rules.items()})
    async with caller(address) as who:
        tasks = set()

        def handle(message: Message) -> bool | None:
            if message.message_type is not MessageType.METHOD_CALL:
                return None
            tasks.add(asyncio.ensure_future(found.answer(who.bus, message)))
            return True

        who.bus.add_message_handler(handle)
        await who.bus.request_name(POLKIT)
        yield found


@dataclass(frozen=True)
class Machine:
    """The directories that the service sees, and what an agent would write there."""

    place: Path
    address: str

    @property
    def issu(self) -> Path:
        return self.place / "issu"

    def save(self, story: Record) -> None:
        """What an agent does at each step."""
        write(self.issu / "record.json", dumps(story))

    def take(self, unit: str) -> Record:
        """What an agent does when it begins: the record of what was asked for."""
        words = json.loads((self.issu / request.FILE).read_text())
        assert words["unit"] == unit
        (self.issu / request.FILE).unlink()
        return Record(id=words["id"], started="2026-01-01T00:00:00+00:00", unit=unit,
                      uid=words["uid"], target={"device": words["target"]},
                      strategy=words["strategy"] or "halt")  # fmt: skip

    def report(self, id: str, result: str, error: str | None = None, **more: Any) -> None:
        """What an agent leaves at the end: a report and no record."""
        document = {"schema": 1, "id": id, "result": result, "error": error, "phases": [],
                    "strategy": "halt", "started": "2026-01-01T00:00:00+00:00",
                    "source": {"device": f"{DEV}a"}, "target": {"device": f"{DEV}b"},
                    "findings": [], "outage_usec": 0, **more}  # fmt: skip
        write(self.place / "history" / f"{id}.json", json.dumps(document))
        (self.issu / "record.json").unlink(missing_ok=True)

    def says(self, answer: Any) -> None:
        """What preflight answers from now on."""
        (self.place / "check.json").write_text(json.dumps(answer))

    def checks(self) -> list[str]:
        """The arguments of each run of preflight so far."""
        log = self.place / "checked"
        return log.read_text().splitlines() if log.exists() else []


def machine(place: Path, address: str) -> Machine:
    """Directories as after a boot."""
    for name in ("dev", "issu", "history"):
        (place / name).mkdir()
    for name in ("a", "b", "c"):
        (place / "dev" / name).touch()
    (place / "root").write_text("1")
    (place / "pid1").write_text("1")
    found = Machine(place, address)
    found.says({"eligible": True, "findings": []})
    return found


def begin(machine: Machine, idle_sec: float = 600.0) -> subprocess.Popen[bytes]:
    """The service's process, about to be on the bus."""
    env = {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": machine.address}
    argv = [sys.executable, str(Path(__file__).with_name("launch.py")), str(machine.place)]
    return subprocess.Popen([*argv, str(idle_sec)], env=env, stderr=subprocess.PIPE)


def end(process: subprocess.Popen[bytes]) -> str:
    """End the service; what it logged, where pytest shows it too."""
    if process.poll() is None:
        process.terminate()
    said = process.communicate(timeout=SOON_SEC)[1].decode()
    sys.stderr.write(said)
    return said


async def ready(machine: Machine, process: subprocess.Popen[bytes]) -> None:
    """Wait until the service is on the bus."""
    async with caller(machine.address) as who:
        await until(lambda: _is_up(who, process))


@asynccontextmanager
async def service(
    machine: Machine, idle_sec: float = 600.0
) -> AsyncIterator[subprocess.Popen[bytes]]:
    """The service on the bus, ready."""
    process = begin(machine, idle_sec)
    try:
        await ready(machine, process)
        yield process
    finally:
        end(process)


async def _is_up(who: Caller, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, process.communicate()[1].decode()
    there: bool = await who.ask(
        "NameHasOwner", "s", NAME, path="/org/freedesktop/DBus", interface=BUS, name=BUS
    )
    return there


async def until(condition: Callable[[], Any]) -> None:
    """Wait for a condition, which may be asked of somebody."""
    async with asyncio.timeout(SOON_SEC):
        while True:
            found = condition()
            if await found if asyncio.iscoroutine(found) else found:
                return
            await asyncio.sleep(0.01)
