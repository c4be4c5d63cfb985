"""A stand-in for PID 1 on a private bus, and the handle by which a test leads it.

The stand-in is a process of its own, because pystemd holds the GIL while it waits. Run as a
program it serves org.freedesktop.systemd1(5) with dbus-next; the test tells it by lines of JSON on
standard input what it is to be, and it answers each with one line. It does nothing by itself and
by no clock: a job ends when its rule says so.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from dbus_next.aio.message_bus import MessageBus
from dbus_next.constants import MessageType
from dbus_next.message import Message
from dbus_next.signature import Variant

NAME = "org.freedesktop.systemd1"
TOP = "/org/freedesktop/systemd1"
MANAGER = f"{NAME}.Manager"
HALT = "issu-halt.target"
NEVER = 1_000_000
START_SEC = 30.0

BUS_CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>unix:path={path}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
    <allow own="*"/>
  </policy>
</busconfig>
"""


@dataclass
class State:
    """What the stand-in is. A test makes one and hands it over with `Fake.be`."""

    version: str = "257.13-1~deb13u1"
    offers: list[str] = field(default_factory=lambda: ["StartUnit", "SoftReboot"])
    default_target: str = "multi-user.target"
    units: dict[str, str] = field(default_factory=dict)  # name -> active state
    properties: dict[str, dict[str, Any]] = field(default_factory=dict)  # by unit; "" for all
    jobs: list[list[Any]] = field(default_factory=list)  # id, unit, type, state: there before
    # The end of a start job by unit: "done", "failed", ... or "" for never. Unnamed: "done".
    results: dict[str, str] = field(default_factory=dict)
    early: list[str] = field(default_factory=list)  # their job ends before StartUnit is answered
    # Isolating issu-halt.target stops these: how many SIGKILLs each one takes, 0 for none.
    stops: dict[str, int] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)  # stop jobs not begun; end when others have
    # A method, or "METHOD UNIT", that fails: its error name and text.
    errors: dict[str, list[str]] = field(default_factory=dict)
    # After the nth call of a method: {"job": [id, unit, result]} or {"unit": [name, state]}
    then: dict[str, list[list[dict[str, Any]]]] = field(default_factory=dict)
    watch: list[str] = field(default_factory=list)  # files that each call notes, if they are there


class Fake:
    """The test's end of the stand-in."""

    def __init__(self, address: str, process: subprocess.Popen[str]) -> None:
        self.address = address
        self._process = process

    def _ask(self, **command: Any) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the stand-in for PID 1 has died"
        return json.loads(answer)

    def be(self, state: State) -> None:
        """Become this, with nothing asked yet."""
        self._ask(do="be", state=asdict(state))

    def calls(self, *methods: str) -> list[list[Any]]:
        """[method, argument...] of every call so far, or of those of some methods only."""
        found: list[list[Any]] = self._ask(do="calls")
        return [call for call in found if call[0] in methods or not methods]

    def seen(self, method: str) -> list[list[str]]:
        """Which of the watched files there were at each call of a method."""
        found: list[list[str]] = self._ask(do="seen", method=method)
        return found

    def emit(self, job: int, unit: str, result: str) -> None:
        """Send JobRemoved out of turn."""
        self._ask(do="emit", job=[job, unit, result])


@contextmanager
def bus(place: Path) -> Iterator[str]:
    """A dbus-daemon of its own; its address. It ends with the block."""
    config, path = place / "bus.conf", place / "bus"
    config.write_text(BUS_CONFIG.format(path=path))
    argv = ["dbus-daemon", f"--config-file={config}", "--nofork", "--print-address"]
    daemon = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    with daemon:
        assert daemon.stdout
        assert daemon.stdout.readline(), "dbus-daemon did not start"
        yield f"unix:path={path}"
        daemon.terminate()


@contextmanager
def fake(address: str) -> Iterator[Fake]:
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
        yield Fake(address, process)


# --- the program --------------------------------------------------------------------------------


class Refusal(Exception):
    """A D-Bus error: its name and its text."""


class Server:
    """What answers the calls. Signatures are those of org.freedesktop.systemd1(5)."""

    def __init__(self, bus: Any) -> None:
        self.bus = bus
        self.become(State())

    def become(self, state: State) -> None:
        self.state = state
        self.jobs = [list(job) for job in state.jobs]
        self.last_job: int = max([100, *(job[0] for job in self.jobs)])
        self.calls: list[list[Any]] = []
        self.seen: list[list[Any]] = []
        self.counts: dict[str, int] = {}
        self.kills: dict[str, int] = {}

    # what a test says

    def command(self, words: dict[str, Any]) -> Any:
        match words["do"]:
            case "be":
                return self.become(State(**words["state"]))
            case "calls":
                return self.calls
            case "seen":
                return [seen for method, seen in self.seen if method == words["method"]]
            case "emit":
                return self.emit(*words["job"])
        raise ValueError(words)

    # what PID 1 does

    def emit(self, job: int, unit: str, result: str) -> None:
        path = f"{TOP}/job/{job}"
        body = [job, path, unit, result]
        self.bus.send(Message.new_signal(TOP, MANAGER, "JobRemoved", "uoss", body))

    def add_job(self, unit: str, kind: str, state: str = "running") -> int:
        self.last_job += 1
        self.jobs.append([self.last_job, unit, kind, state])
        return self.last_job

    def end_job(self, job: int, result: str = "done") -> None:
        [entry] = [entry for entry in self.jobs if entry[0] == job]
        self.jobs.remove(entry)
        _, unit, kind, _ = entry
        if result == "done":
            self.state.units[unit] = "active" if kind == "start" else "inactive"
        self.emit(job, unit, result)

    def end_stops(self) -> None:
        """End the stop jobs that have had what they take, and what waits for them."""
        for job, unit, kind, state in list(self.jobs):
            taken = self.kills.get(unit, 0) >= self.state.stops.get(unit, NEVER)
            if kind == "stop" and state == "running" and taken:
                self.end_job(job)
        if not [job for job in self.jobs if job[2:] == ["stop", "running"]]:
            for job in [job for job in self.jobs if job[2:] == ["stop", "waiting"]]:
                self.end_job(job[0])
            for job in [job for job in self.jobs if job[1:3] == [HALT, "start"]]:
                self.end_job(job[0])

    def after(self, method: str) -> None:
        """What follows on the call that was just answered."""
        n = self.counts[method] = self.counts.get(method, 0) + 1
        rules = self.state.then.get(method, [])
        for action in rules[n - 1] if n <= len(rules) else []:
            for what, words in action.items():
                if what == "job":
                    self.jobs = [job for job in self.jobs if job[0] != words[0]]
                    self.emit(*words)
                else:
                    self.state.units[words[0]] = words[1]

    # what is asked of it

    def answer(self, method: str, path: str, args: list[Any]) -> tuple[str, list[Any], Any]:
        """Signature and body of the answer, and what to do once it is sent."""
        for key in (method, f"{method} {args[0] if args else ''}"):
            if key in self.state.errors:
                raise Refusal(*self.state.errors[key])
        handler = getattr(self, method, None)
        if handler is None:
            raise Refusal("org.freedesktop.DBus.Error.UnknownMethod", f"Unknown method {method}")
        found = handler(path, *args)
        return found if len(found) == 3 else (*found, None)

    def Introspect(self, path: str) -> Any:
        methods = "".join(
            f'<method name="{name}"><arg type="s"/></method>' for name in self.state.offers
        )
        return "s", [f'<node><interface name="{MANAGER}">{methods}</interface></node>']

    def Get(self, path: str, interface: str, name: str) -> Any:
        if name == "Version":
            return "v", [Variant("s", self.state.version)]
        if path == TOP:
            raise Refusal("org.freedesktop.DBus.Error.UnknownProperty", f"Unknown {name}")
        values: dict[str, Any] = {
            "NRestarts": 0, "SubState": "running", "Result": "success",
            "ActiveEnterTimestampMonotonic": 0,
        } | self.state.properties.get(self.unit_of(path), {})  # fmt: skip
        kind = "s" if isinstance(values[name], str) else "u" if name == "NRestarts" else "t"
        return "v", [Variant(kind, values[name])]

    def unit_of(self, path: str) -> str:
        """The unit whose object a path is."""
        escaped = path.removeprefix(f"{TOP}/unit/")
        return re.sub("_([0-9a-f]{2})", lambda code: chr(int(code[1], 16)), escaped)

    def GetAll(self, path: str, interface: str) -> Any:
        unit = self.unit_of(path)
        known = unit in self.state.units
        values: dict[str, Any] = {
            "Id": unit,
            "LoadState": "loaded" if known else "not-found",
            "ActiveState": self.state.units.get(unit, "inactive"),
            "CanStart": known,
            "Job": next(([job[0], f"{TOP}/job/{job[0]}"] for job in self.jobs if job[1] == unit),
                        [0, "/"]),
            "ConditionResult": known,
            "ConditionTimestampMonotonic": 0,
            "ActiveEnterTimestampMonotonic": 0,
            "ActiveExitTimestampMonotonic": 0,
            "InactiveEnterTimestampMonotonic": 0,
        }
        values |= self.state.properties.get("", {}) | self.state.properties.get(unit, {})
        types: dict[type, str] = {str: "s", bool: "b", int: "t", list: "(uo)"}
        return "a{sv}", [{key: Variant(types[type(v)], v) for key, v in values.items()}]

    def Subscribe(self, path: str) -> Any:
        return "", []

    Reload = Subscribe

    def ResetFailedUnit(self, path: str, unit: str) -> Any:
        self.state.units[unit] = "inactive"
        return "", []

    def GetDefaultTarget(self, path: str) -> Any:
        return "s", [self.state.default_target]

    def ListUnits(self, path: str) -> Any:
        rows = [
            [
                name, f"about {name}", "loaded", active,
                self.state.properties.get(name, {}).get("SubState", active),
                "", f"{TOP}/unit/x", 0, "", "/",
            ]
            for name, active in self.state.units.items()
        ]  # fmt: skip
        return "a(ssssssouso)", [rows]

    def ListJobs(self, path: str) -> Any:
        rows = [[*job, f"{TOP}/job/{job[0]}", f"{TOP}/unit/x"] for job in self.jobs]
        return "a(usssoo)", [rows]

    def StartUnit(self, path: str, unit: str, mode: str) -> Any:
        job = self.add_job(unit, "start")
        if mode == "isolate":
            for name in self.state.stops:
                self.add_job(name, "stop")
            for name in self.state.waiting:
                self.add_job(name, "stop", "waiting")
            return "o", [f"{TOP}/job/{job}"], self.end_stops
        result = self.state.results.get(unit, "done")
        if unit in self.state.early:
            self.end_job(job, result)
            result = ""
        later = (lambda: self.end_job(job, result)) if result else None
        return "o", [f"{TOP}/job/{job}"], later

    def StopUnit(self, path: str, unit: str, mode: str) -> Any:
        job = self.add_job(unit, "stop")
        return "o", [f"{TOP}/job/{job}"], lambda: self.end_job(job)

    def RestartUnit(self, path: str, unit: str, mode: str) -> Any:
        return self.StartUnit(path, unit, mode)

    def KillUnit(self, path: str, unit: str, whom: str, signal: int) -> Any:
        self.kills[unit] = self.kills.get(unit, 0) + 1
        return "", [], self.end_stops

    def Reboot(self, path: str) -> Any:
        return "", []

    def SoftReboot(self, path: str, root: str) -> Any:
        return "", []

    def SwitchRoot(self, path: str, root: str, init: str) -> Any:
        return "", []

    # dbus-next

    def handle(self, message: Any) -> Any:
        ours = str(message.path).startswith(TOP)
        if message.message_type is not MessageType.METHOD_CALL or not ours:
            return None
        method = message.member
        there = [
            path if os.path.getsize(path) else f"{path}: empty"  # noqa: PTH202
            for path in self.state.watch if os.path.exists(path)  # noqa: PTH110
        ]  # fmt: skip
        self.calls.append([method, *message.body])
        self.seen.append([method, there])
        try:
            signature, body, later = self.answer(method, message.path, message.body)
        except Refusal as refusal:
            name, text = refusal.args
            self.bus.send(Message.new_error(message, name, text))
        else:
            self.bus.send(Message.new_method_return(message, signature, body))
            if later:
                later()
        self.after(method)
        return True


async def serve(address: str, commands: IO[bytes]) -> None:
    bus = await asyncio.wait_for(MessageBus(bus_address=address).connect(), START_SEC)
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
