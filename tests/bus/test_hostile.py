"""Whatever is sent to org.issu1, it answers with a named error, tells nobody how it is built, lives
on, and grows by nothing.
"""

from __future__ import annotations

import asyncio
import os
import socket
import string
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dbus_next.constants import MessageType
from dbus_next.message import Message
from dbus_next.signature import SignatureTree, Variant
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.bus import others
from tests.bus.fake import Fake
from tests.bus.launch import DEV
from tests.bus.others import (
    BUS,
    JOB,
    MANAGER,
    NAME,
    PROPERTIES,
    TOP,
    USER,
    Caller,
    Machine,
    Refused,
    caller,
    polkit,
)

METHODS = ("Check", "Start", "Accept", "Rollback", "GetReport", "ListJobs", "ListHistory",
           "CanStart", "Inhibit", "ListInhibitors", "Cancel")  # fmt: skip
NAMED = (f"{NAME}.Error.", f"{BUS}.Error.Unknown", f"{BUS}.Error.PropertyReadOnly")


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, machine_bus: str, machine_pid1: Fake
) -> Iterator[tuple[Machine, int]]:
    """One service for all of this file, and its process id."""
    found = others.machine(tmp_path_factory.mktemp("hostile"), machine_bus)
    process = others.begin(found)
    asyncio.run(others.ready(found, process))
    yield found, process.pid
    assert process.poll() is None, "the service has died"
    said = others.end(process)
    assert "Traceback" not in said


def play(machine: Machine, part: Callable[[Caller], Awaitable[Any]]) -> None:
    async def go() -> None:
        async with caller(machine.address) as root:
            await part(root)
            assert await root.get("Phase") == "idle"

    asyncio.run(go())


async def error_of(root: Caller, member: str, sign: str, *args: Any, **more: Any) -> Refused:
    error = await root.refused(root.ask(member, sign, *args, **more))
    assert error.name.startswith(NAMED), error
    assert error.text.isprintable(), error
    return error


# --- arguments ----------------------------------------------------------------------------------

TARGETS = {
    "empty": "", "relative": "sdb2", "none": f"{DEV}nosuch", "dots": f"{DEV}../b",
    "dots escaped": "dev-..-b", "newline": f"{DEV}b\n", "control": f"{DEV}\x07",
    "escape": "\x1b[2J",
    "long": "/dev/" + "x" * 4092, "unit": f"{DEV}" + "é" * 200, "elsewhere": "/etc/passwd",
    "root": "/", "dev": "/dev", "null": "/dev/null", "not UTF-8": "dev-\\xff\\xfe",
    "broken escape": "dev-\\xzz", "NUL escaped": "dev-\\x00", "10 MB": "/dev/" + "x" * 10_000_000,
    "instance": "/dev/sda.service\u2028", "options": "--help", "spaces": "  ", "glob": f"{DEV}*",
}  # fmt: skip


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_that_is_none_is_named(
    server: tuple[Machine, int], machine_pid1: Fake, name: str
) -> None:
    async def part(root: Caller) -> None:
        for member in ("Check", "Start"):
            error = await error_of(root, member, "sa{sv}", TARGETS[name], {})
            assert error.short == "InvalidArgument"

    play(server[0], part)
    assert machine_pid1.calls("StartUnit") == []
    assert server[0].checks() == []


@pytest.mark.parametrize(
    "options",
    [
        {"nosuch": Variant("s", "x")}, {"strategy": Variant("s", "both")},
        {"strategy": Variant("i", 1)}, {"strategy": Variant("as", ["live"])},
        {"strategy": Variant("v", Variant("v", Variant("u", 1)))},
        {"rehearse": Variant("b", True)}, {"force": Variant("s", "memory")},
        {"force": Variant("ai", [1])},
        {"force": Variant("as", ["a\nb"])}, {"force": Variant("as", ["x"] * 100_000)},
        {"\n": Variant("s", "")}, {"x" * 1_000_000: Variant("s", "")},
    ],
    ids=range(12),
)  # fmt: skip
def test_an_option_that_is_wrong_is_named(
    server: tuple[Machine, int], options: dict[str, Variant]
) -> None:
    async def part(root: Caller) -> None:
        error = await error_of(root, "Start", "sa{sv}", f"{DEV}b", options)
        assert error.short == "InvalidArgument"

    play(server[0], part)


@pytest.mark.parametrize(
    ("member", "sign", "args"),
    [
        ("Start", "", ()), ("Start", "s", ("x",)), ("Start", "sa{ss}", ("x", {})),
        ("Start", "ays", (b"/dev/\xff", "x")), ("Check", "ia{sv}", (1, {})),
        ("GetReport", "o", ("/",)), ("GetReport", "ss", ("", "")), ("ListHistory", "i", (-1,)),
        ("Inhibit", "s", ("x",)), ("Inhibit", "ssh", ("x", "y", 0)), ("ListJobs", "s", ("",)),
    ],
)  # fmt: skip
def test_arguments_of_a_wrong_type_are_named(
    server: tuple[Machine, int], member: str, sign: str, args: tuple[Any, ...]
) -> None:
    async def part(root: Caller) -> None:
        error = await error_of(root, member, sign, *args)
        assert error.short == "InvalidArgument"
        assert member in error.text
        if sign:
            assert f'"{sign}"' in error.text

    play(server[0], part)


@pytest.mark.parametrize(
    ("path", "interface", "member", "short"),
    [
        (TOP, MANAGER, "Nosuch", "UnknownMethod"),
        (TOP, JOB, "Cancel", "UnknownInterface"),
        (TOP, "a.b", "Check", "UnknownInterface"),
        (TOP, PROPERTIES, "Nosuch", "UnknownMethod"),
        (TOP, None, "Nosuch", "UnknownMethod"),
        ("/", MANAGER, "Check", "UnknownObject"),
        (f"{TOP}/job", JOB, "Cancel", "UnknownObject"),
        (f"{TOP}/job/nosuch", JOB, "Cancel", "NoSuchJob"),
        (f"{TOP}/job/nosuch", PROPERTIES, "GetAll", "NoSuchJob"),
        (f"{TOP}/job/" + "x" * 10_000, JOB, "Cancel", "NoSuchJob"),
        (f"{TOP}/job/a/b", JOB, "Cancel", "UnknownObject"),
        (TOP, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects", "UnknownInterface"),
    ],
)
def test_what_is_not_there_is_named(
    server: tuple[Machine, int], path: str, interface: str | None, member: str, short: str
) -> None:
    async def part(root: Caller) -> None:
        error = await error_of(root, member, "", path=path, interface=interface)
        assert error.short == short

    play(server[0], part)


def test_properties_that_are_not_there_are_named(server: tuple[Machine, int]) -> None:
    async def part(root: Caller) -> None:
        for member, sign, args, short in (
            ("Get", "ss", (MANAGER, "Nosuch"), "UnknownProperty"),
            ("Get", "ss", (JOB, "Phase"), "UnknownInterface"),
            ("Get", "ss", ("x" * 1_000_000, "\n"), "UnknownInterface"),
            ("Get", "s", (MANAGER,), "InvalidArgument"),
            ("GetAll", "s", ("a.b",), "UnknownInterface"),
            ("Set", "ssv", (MANAGER, "Nosuch", Variant("i", 1)), "UnknownProperty"),
            ("Set", "ssv", (MANAGER, "Version", Variant("s", "9")), "PropertyReadOnly"),
        ):
            error = await error_of(root, member, sign, *args, interface=PROPERTIES)
            assert error.short == short

    play(server[0], part)


def test_a_method_may_be_called_without_its_interface(server: tuple[Machine, int]) -> None:
    async def part(root: Caller) -> None:
        assert await root.ask("ListJobs", interface=None) == []

    play(server[0], part)


# --- generated ----------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=40)
BASIC = {
    "s": TEXT, "u": st.integers(0, 2**32 - 1), "i": st.integers(-(2**31), 2**31 - 1),
    "b": st.booleans(), "t": st.integers(0, 2**64 - 1), "d": st.floats(), "y": st.integers(0, 255),
    "o": st.text(string.ascii_letters, min_size=1, max_size=9).map(lambda name: f"/{name}"),
    "g": st.sampled_from(["", "s", "a{sv}", "(ii)"]),
}  # fmt: skip
SIGNS = st.recursive(
    st.sampled_from([*BASIC, "v"]),
    lambda inner: inner.map(lambda sign: f"a{sign}")
    | st.lists(inner, min_size=1, max_size=3).map(lambda signs: f"({''.join(signs)})")
    | st.tuples(st.sampled_from("sui"), inner).map(lambda pair: f"a{{{pair[0]}{pair[1]}}}"),
    max_leaves=4,
)
KNOWN = st.sampled_from(["", "s", "u", "ss", "ssv", "sa{sv}"])


@st.composite
def value_of(draw: st.DrawFn, sign: str) -> Any:
    """A value of one complete type."""
    if sign in BASIC:
        return draw(BASIC[sign])
    if sign == "v":
        inner = draw(st.sampled_from(["s", "as", "i", "a{sv}"]))
        return Variant(inner, draw(value_of(inner)))
    if sign.startswith("a{"):
        key, rest = sign[2], sign[3:-1]
        return {draw(BASIC[key]): draw(value_of(rest)) for _ in range(draw(st.integers(0, 2)))}
    if sign == "ay":
        return draw(st.binary(max_size=9))
    if sign.startswith("a"):
        return [draw(value_of(sign[1:])) for _ in range(draw(st.integers(0, 2)))]
    children = SignatureTree._get(sign).types[0].children
    return [draw(value_of(child.signature)) for child in children]


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, str | None, str, str, list[Any]]:
    """A path, an interface, a method, and arguments: sometimes what is right, mostly not."""
    sign = draw(KNOWN | st.lists(SIGNS, max_size=3).map("".join))
    words = st.sampled_from(["", MANAGER, JOB, "Phase", "strategy", "/dev/null", "../x"])
    body = []
    for one in SignatureTree._get(sign).types:
        plain = one.signature == "s" and draw(st.booleans())
        body.append(draw(words) if plain else draw(value_of(one.signature)))
    return (
        draw(st.sampled_from([TOP, f"{TOP}/job/x", f"{TOP}/job", "/", f"{TOP}/job/a/b"])),
        draw(st.sampled_from([MANAGER, JOB, PROPERTIES, None, "a.b"])),
        draw(st.sampled_from([*METHODS, "Get", "GetAll", "Set", "Nosuch"])),
        sign,
        body,
    )


def test_generated_calls(server: tuple[Machine, int], machine_pid1: Fake) -> None:
    loop = asyncio.new_event_loop()
    who = caller(server[0].address)
    root = loop.run_until_complete(who.__aenter__())

    @settings(max_examples=600, deadline=None, database=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(calls())
    def send(call: tuple[str, str | None, str, str, list[Any]]) -> None:
        path, interface, member, sign, body = call

        async def go() -> None:
            try:
                await root.ask(member, sign, *body, path=path, interface=interface)
            except Refused as error:
                assert error.name.startswith(NAMED), error
                assert "Traceback" not in error.text
                assert len(error.text) < 1024
            for fd in getattr(root, "fds", []):
                os.close(fd)
            root.fds = []

        loop.run_until_complete(go())

    send()
    loop.run_until_complete(who.__aexit__(None, None, None))
    loop.close()
    assert machine_pid1.calls("StartUnit", "StopUnit") == []


# --- messages -----------------------------------------------------------------------------------


def test_bytes_that_are_no_utf_8_do_not_come_through(server: tuple[Machine, int]) -> None:
    """The bus hangs up on whoever sends them."""

    async def part(root: Caller) -> None:
        async with caller(server[0].address) as other:
            message = Message(destination=NAME, path=TOP, interface=MANAGER, member="GetReport",
                              signature="s", body=["/dev/Q"], serial=77)  # fmt: skip
            for wrong in (b"/dev/\xff", b"/dev/\x00"):
                data = bytes(message._marshall()).replace(b"/dev/Q", wrong)
                sock = socket.socket(fileno=os.dup(other.bus._sock.fileno()))
                try:
                    sock.send(data)
                except OSError:
                    break  # it has hung up already
                finally:
                    sock.close()
            await asyncio.wait_for(asyncio.shield(_closed(other)), others.SOON_SEC)

    play(server[0], part)


async def _closed(who: Caller) -> None:
    with pytest.raises(Exception):  # noqa: B017  # the library raises whatever it met
        await who.bus.wait_for_disconnect()


def test_a_message_of_an_unknown_type_does_no_harm(server: tuple[Machine, int]) -> None:
    """dbus-next gives its connection up when it reads one; the bus lets none through."""

    async def part(root: Caller) -> None:
        async with caller(server[0].address, USER) as user:
            send_type_5(user)
            assert await user.get("Phase") == "idle"  # and nobody has hung up

    play(server[0], part)


def send_type_5(user: Caller) -> None:
    """Send a message that is no call, no answer, no error and no signal."""
    message = Message(destination=NAME, path=TOP, interface=MANAGER, member="ListJobs", serial=77)
    data = bytearray(message._marshall())
    assert data[1] == MessageType.METHOD_CALL.value
    data[1] = 5
    user.bus._sock.send(bytes(data))


def test_descriptors_that_nobody_asked_for_are_closed(server: tuple[Machine, int]) -> None:
    machine, pid = server

    async def part(root: Caller) -> None:
        before = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        pair = socket.socketpair()
        fds = [pair[0].fileno()] * 8
        for _ in range(50):
            await root.refused(root.send(Message(
                destination=NAME, path=TOP, interface=MANAGER, member="ListJobs",
                signature="h" * 8, body=list(range(8)), unix_fds=fds,
            )))  # fmt: skip
        assert len(list(Path(f"/proc/{pid}/fd").iterdir())) <= before
        for end in pair:
            end.close()

    play(machine, part)


def test_who_does_not_wait_for_an_answer_gets_none(server: tuple[Machine, int]) -> None:
    async def part(root: Caller) -> None:
        from dbus_next.constants import MessageFlag

        message = Message(destination=NAME, path=TOP, interface=MANAGER, member="Nosuch",
                          flags=MessageFlag.NO_REPLY_EXPECTED)  # fmt: skip
        for _ in range(100):
            await root.bus.send(message)
            message.serial = 0
        assert await root.ask("ListJobs") == []

    play(server[0], part)


# --- many ---------------------------------------------------------------------------------------


def test_fifty_callers_at_once(server: tuple[Machine, int]) -> None:
    machine, _ = server

    async def one(n: int) -> None:
        async with caller(machine.address, USER if n % 2 else 0) as who:
            for _ in range(4):
                assert (await who.all())["Phase"] == "idle"
                assert await who.ask("ListJobs") == []
                assert await who.ask("Check", "sa{sv}", f"{DEV}b", {}) == [True, []]
                none = await who.refused(who.ask("Check", "sa{sv}", f"{DEV}nosuch", {}))
                assert none.short == "InvalidArgument"

    async def go() -> None:
        async with polkit(machine.address, check=(True, False)):
            await asyncio.gather(*(one(n) for n in range(50)))

    asyncio.run(go())


def test_neither_memory_nor_descriptors_grow(server: tuple[Machine, int]) -> None:
    machine, pid = server

    async def round_of(root: Caller, calls: int) -> None:
        for start in range(0, calls, 100):
            assert start < calls
            await asyncio.gather(
                *(root.ask("ListJobs") for _ in range(40)),
                *(root.get("Phase") for _ in range(40)),
                *(root.refused(root.ask("GetReport", "s", "nosuch")) for _ in range(10)),
                *(root.refused(root.ask("Check", "sa{sv}", "x" * 5000, {})) for _ in range(10)),
            )

    async def part(root: Caller) -> None:
        await round_of(root, 3000)
        before = resident(pid), len(list(Path(f"/proc/{pid}/fd").iterdir()))
        await round_of(root, 10_000)
        after = resident(pid), len(list(Path(f"/proc/{pid}/fd").iterdir()))
        assert after[1] <= before[1]
        assert after[0] - before[0] < 2 * 1024 * 1024  # less than 210 bytes a call

    play(machine, part)


def resident(pid: int) -> int:
    """VmRSS in bytes, see proc_pid_status(5)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(subprocess.run(["ps", str(pid)], check=False))
