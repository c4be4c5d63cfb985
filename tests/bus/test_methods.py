"""org.issu1 as its contract says: every method, property and error, and who may call what."""

from __future__ import annotations

import asyncio
import os
import xml.etree.ElementTree as ET
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from dbus_next.signature import Variant

from tests.bus.fake import Fake
from tests.bus.launch import DEV, ROOT
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
    Polkit,
    caller,
    polkit,
)

CONTRACT = ROOT / "data/dbus/org.issu1.xml"
INTROSPECTABLE = "org.freedesktop.DBus.Introspectable"
UNIT = "issu@dev-issu\\x2dtest-b.service"


def as_root(machine: Machine, play: Callable[[Caller], Awaitable[Any]]) -> None:
    async def go() -> None:
        async with caller(machine.address) as root:
            await play(root)

    asyncio.run(go())


def as_user(
    machine: Machine, play: Callable[[Caller, Polkit], Awaitable[Any]], **rules: Any
) -> None:
    async def go() -> None:
        address = machine.address
        async with polkit(address, **rules) as decides, caller(address, USER) as user:
            await play(user, decides)

    asyncio.run(go())


# --- the contract -------------------------------------------------------------------------------


def shape(element: ET.Element) -> Any:
    """An interface without its layout: every member with its arguments, types and annotations."""
    return (
        element.tag,
        sorted(element.attrib.items()),
        [shape(child) for child in element if child.tag != "node"],
    )


def contract(name: str) -> Any:
    [found] = [e for e in ET.parse(CONTRACT).iter("interface") if e.attrib["name"] == name]
    return shape(found)


async def live(root: Caller, path: str, name: str) -> Any:
    xml = await root.ask("Introspect", path=path, interface=INTROSPECTABLE)
    found = [e for e in ET.fromstring(xml).iter("interface") if e.attrib["name"] == name]
    return shape(found[0]) if found else None


def test_the_live_objects_are_the_contract(shared: Machine) -> None:
    shared.report("20260101T000000_1", "accepted")

    async def play(root: Caller) -> None:
        assert await live(root, TOP, MANAGER) == contract(MANAGER)
        assert await live(root, f"{TOP}/job/20260101T000000_1", JOB) == contract(JOB)
        assert await live(root, TOP, JOB) is None

    as_root(shared, play)


def test_a_contract_that_differs_is_seen() -> None:
    changed = ET.parse(CONTRACT).getroot()
    next(changed.iter("arg")).attrib["type"] = "u"
    assert shape(next(changed.iter("interface"))) != contract(MANAGER)


def test_every_property_of_the_contract_can_be_read(shared: Machine) -> None:
    shared.report("20260101T000000_1", "accepted")

    async def play(root: Caller) -> None:
        for path, name in ((TOP, MANAGER), (f"{TOP}/job/20260101T000000_1", JOB)):
            [interface] = [
                e for e in ET.parse(CONTRACT).iter("interface") if e.attrib["name"] == name
            ]
            names = {p.attrib["name"] for p in interface.iter("property")}
            every = await root.all(path)
            assert every.keys() == names
            for one in names:
                assert await root.get(one, path) == every[one]

    as_root(shared, play)


def test_nodes_can_be_walked(shared: Machine) -> None:
    shared.report("20260101T000000_1", "accepted")

    async def below(root: Caller, path: str) -> list[str]:
        xml = await root.ask("Introspect", path=path, interface=INTROSPECTABLE)
        return [node.attrib["name"] for node in ET.fromstring(xml).findall("node")]

    async def play(root: Caller) -> None:
        assert await below(root, "/") == ["org"]
        assert await below(root, "/org") == ["issu1"]
        assert await below(root, TOP) == ["job"]
        assert await below(root, f"{TOP}/job") == ["20260101T000000_1"]
        wrong = below(root, "/org/else")
        assert (await root.refused(wrong)).name == f"{BUS}.Error.UnknownObject"

    as_root(shared, play)


def test_peer(shared: Machine) -> None:
    async def play(root: Caller) -> None:
        peer = "org.freedesktop.DBus.Peer"
        assert await root.ask("Ping", interface=peer, path="/any") == []
        if Path("/etc/machine-id").exists():
            said = await root.ask("GetMachineId", interface=peer)
            assert said == Path("/etc/machine-id").read_text().strip()

    as_root(shared, play)


# --- Check --------------------------------------------------------------------------------------


def test_check(shared: Machine) -> None:
    found = {"id": "memory", "severity": "block", "text": "too little", "way_out": "stop something"}
    shared.says({"eligible": False, "findings": [found]})

    async def play(user: Caller, decides: Polkit) -> None:
        answer = await user.ask("Check", "sa{sv}", f"{DEV}b", {"strategy": Variant("s", "live")})
        assert answer == [False, [found]]
        assert decides.asked == [(user.bus.unique_name, f"{NAME}.check", 0)]
        shared.says({"eligible": True, "findings": []})
        assert await user.ask("Check", "sa{sv}", "dev-issu\\x2dtest-b", {}) == [True, []]

    as_user(shared, play, check=(True, False))
    assert shared.checks()[-2:] == [
        f'{DEV}b {{"strategy": "live", "force": [], "rehearse": false}}',
        f'{DEV}b {{"strategy": null, "force": [], "rehearse": false}}',
    ]


def test_only_who_may_start_may_have_a_device_booted(shared: Machine) -> None:
    shared.says({"eligible": True, "findings": []})
    before = len(shared.checks())

    async def play(user: Caller, decides: Polkit) -> None:
        words = "Check", "sa{sv}", f"{DEV}b"
        error = await user.refused(user.ask(*words, {"rehearse": Variant("b", True)}))
        assert error.short == "NotAuthorized"
        assert await user.ask(*words, {"rehearse": Variant("b", False)}) == [True, []]
        assert [asked[1] for asked in decides.asked] == [f"{NAME}.start", f"{NAME}.check"]

    as_user(shared, play, check=(True, False), start=(False, False))
    assert len(shared.checks()) == before + 1

    async def granted(user: Caller, decides: Polkit) -> None:
        options = {"rehearse": Variant("b", True)}
        assert await user.ask("Check", "sa{sv}", f"{DEV}b", options) == [True, []]

    as_user(shared, granted, start=(True, False))
    assert shared.checks()[-1].endswith('"rehearse": true}')


def test_check_that_fails_says_why(shared: Machine) -> None:
    async def play(root: Caller) -> None:
        for answer, words in (
            ({"error": "PID 1 cannot be reached", "hint": "wait"}, "PID 1 cannot be reached"),
            ("no JSON", "preflight"),
        ):
            shared.says(answer)
            error = await root.refused(root.ask("Check", "sa{sv}", f"{DEV}b", {}))
            assert error.short == "Failed"
            assert words in error.text

    as_root(shared, play)
    shared.says({"eligible": True, "findings": []})


def test_equal_checks_are_one_and_few_run_at_a_time(shared: Machine) -> None:
    before = len(shared.checks())
    (shared.place / "hold").touch()

    async def play(root: Caller) -> None:
        asked = [root.ask("Check", "sa{sv}", f"{DEV}{name}", {}) for name in "bbbccca"]
        tasks = [asyncio.ensure_future(one) for one in asked]
        while len(shared.checks()) < before + 2:
            await asyncio.sleep(0.01)
        assert await root.get("Phase") == "idle"  # nobody else waits
        (shared.place / "hold").unlink()
        assert await asyncio.gather(*tasks) == [[True, []]] * 7

    as_root(shared, play)
    assert len(shared.checks()) == before + 3


# --- inhibitors ---------------------------------------------------------------------------------


def test_an_inhibitor_forbids_until_its_handle_is_closed(shared: Machine, pid1_there: Fake) -> None:
    async def play(user: Caller, decides: Polkit) -> None:
        assert await user.ask("Inhibit", "ss", "backup", "the nightly one") == 0
        [fd] = user.fds
        assert await user.ask("ListInhibitors") == [
            ["backup", "the nightly one", USER, os.getpid()]
        ]
        async with caller(shared.address) as root:
            error = await root.refused(root.start())
            assert error.short == "Inhibited"
            assert "backup (the nightly one)" in error.text
            assert pid1_there.calls("StartUnit") == []
            os.close(fd)
            assert await root.ask("ListInhibitors") == []

    as_user(shared, play, inhibit=(True, False))


@pytest.mark.parametrize("words", [("", "x"), ("x", ""), ("x" * 257, "x"), ("x", "a\nb")])
def test_an_inhibitor_needs_words(shared: Machine, words: tuple[str, str]) -> None:
    async def play(root: Caller) -> None:
        assert (await root.refused(root.ask("Inhibit", "ss", *words))).short == "InvalidArgument"
        assert await root.ask("ListInhibitors") == []

    as_root(shared, play)


# --- the past -----------------------------------------------------------------


# --- polkit -------------------------------------------------------------------------------------

MAY = (True, False)
CALLS: list[tuple[str, str, str, tuple[Any, ...]]] = [
    ("check", "Check", "sa{sv}", (f"{DEV}b", {})),
    ("start", "Start", "sa{sv}", (f"{DEV}b", {})),
    ("start-forced", "Start", "sa{sv}", (f"{DEV}b", {"force": Variant("as", ["memory"])})),
    ("accept", "Accept", "", ()),
    ("rollback", "Rollback", "", ()),
    ("inhibit", "Inhibit", "ss", ("who", "why")),
]


@pytest.mark.parametrize(("action", "member", "sign", "args"), CALLS, ids=lambda x: str(x)[:12])
def test_each_method_asks_for_its_own_right(
    shared: Machine, pid1_there: Fake, action: str, member: str, sign: str, args: tuple[Any, ...]
) -> None:
    every = {one.replace("-", "_"): MAY for one, *_ in CALLS if one != action}

    async def play(user: Caller, decides: Polkit) -> None:
        error = await user.refused(user.ask(member, sign, *args))
        assert error.name == f"{NAME}.Error.NotAuthorized"
        assert f"{NAME}.{action}" in error.text
        assert decides.asked == [(user.bus.unique_name, f"{NAME}.{action}", 0)]
        assert pid1_there.calls("StartUnit") == []
        assert await user.ask("ListInhibitors") == []

    as_user(shared, play, **every)


def test_root_is_not_asked_for(shared: Machine) -> None:
    async def play() -> None:
        async with polkit(shared.address) as decides, caller(shared.address) as root:
            await root.ask("Check", "sa{sv}", f"{DEV}b", {})
            assert decides.asked == []

    asyncio.run(play())


def test_without_polkit_only_root_may(shared: Machine) -> None:
    async def play() -> None:
        async with caller(shared.address, USER) as user, caller(shared.address) as root:
            error = await user.refused(user.ask("Check", "sa{sv}", f"{DEV}b", {}))
            assert error.short == "NotAuthorized"
            assert await user.ask("CanStart") == "no"
            assert await root.ask("CanStart") == "yes"
            assert await root.ask("Check", "sa{sv}", f"{DEV}b", {}) == [True, []]
            assert await user.get("Phase") == "idle"

    asyncio.run(play())


@pytest.mark.parametrize(
    ("ruling", "answer"),
    [((True, False), "yes"), ((False, False), "no"), ((False, True), "challenge")],
)
def test_can_start(shared: Machine, ruling: tuple[bool, bool], answer: str) -> None:
    async def play(user: Caller, decides: Polkit) -> None:
        assert await user.ask("CanStart", interactive=True) == answer
        assert decides.asked == [(user.bus.unique_name, f"{NAME}.start", 0)]

    as_user(shared, play, start=ruling)


def test_a_challenge_is_put_only_to_whom_allows_it_and_holds_up_nobody(shared: Machine) -> None:
    async def play(user: Caller, decides: Polkit) -> None:
        error = await user.refused(user.ask("Inhibit", "ss", "who", "why"))
        assert "interactive" in error.text
        asked = asyncio.ensure_future(user.ask("Inhibit", "ss", "who", "why", interactive=True))
        while not decides.asked[1:]:
            await asyncio.sleep(0.01)
        assert decides.asked[1][2] == 1  # AllowUserInteraction
        async with caller(shared.address) as root:
            assert await root.get("Phase") == "idle"
            assert await root.ask("ListInhibitors") == []
        assert not asked.done()
        decides.hold.set()
        await asked
        os.close(user.fds[0])

    as_user(shared, play, inhibit=(False, True))


def test_a_polkit_that_fails_allows_nothing(shared: Machine) -> None:
    async def play(user: Caller, decides: Polkit) -> None:
        error = await user.refused(user.ask("Check", "sa{sv}", f"{DEV}b", {}))
        assert error.short == "Failed"
        assert "polkit" in error.text

    as_user(shared, play, check="org.freedesktop.PolicyKit1.Error.Failed")


def test_only_root_can_own_the_name(shared: Machine) -> None:
    async def play() -> None:
        async with caller(shared.address, USER) as user:
            request = user.ask("RequestName", "su", f"{NAME}", 0, path="/org/freedesktop/DBus",
                               interface=BUS, name=BUS)  # fmt: skip
            assert (await user.refused(request)).name == f"{BUS}.Error.AccessDenied"

    asyncio.run(play())


def test_nothing_can_be_set(shared: Machine) -> None:
    async def play(root: Caller) -> None:
        change = root.ask("Set", "ssv", MANAGER, "Phase", Variant("s", "x"), interface=PROPERTIES)
        assert (await root.refused(change)).name == f"{BUS}.Error.PropertyReadOnly"

    as_root(shared, play)
