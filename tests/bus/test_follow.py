"""The command while bus and service go away and come back, and on a terminal."""

from __future__ import annotations

import re
import resource
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.bus import fake, issu1
from tests.bus.issu import END_SEC, ID, Issu
from tests.bus.issu1 import Service, job
from tests.bus.test_issu import ENDED, HALT, LIVE, RUNS, STARTED, TARGET, a_report

COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-9][0-9;]*m")


class Lines:
    """The lines of a running program, of which each is waited for."""

    def __init__(self, issu: Issu, *words: str, **more: str) -> None:
        self.process = issu.popen(*words, **more)

    def expect(self, line: str) -> None:
        assert self.process.stdout
        while (read := self.process.stdout.readline()) != f"{line}\n":
            assert read, self.process.stderr and self.process.stderr.read()

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=END_SEC)
        return self.process.returncode, out, err


class World:
    """A bus and a service that can go away, each for itself."""

    def __init__(self, place: Path, stack: ExitStack) -> None:
        self.place, self.outer = place, stack
        self.address = f"unix:path={place}/bus"
        self.bus, self.server = ExitStack(), ExitStack()
        stack.callback(self.bus.close)
        stack.callback(self.server.close)

    def come(self, **state: Any) -> Service:
        """The bus and the service come."""
        self.bus.enter_context(fake.bus(self.place))
        return self.serve(**state)

    def serve(self, **state: Any) -> Service:
        """The service comes, as another process."""
        service = self.server.enter_context(issu1.service(self.address))
        service.be(**state)
        return service

    def leave(self) -> None:
        """The service goes."""
        self.server.close()

    def go(self) -> None:
        """Both go."""
        self.bus.close()
        self.server.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(tmp_path, stack)


@pytest.fixture
def mine(world: World) -> Issu:
    return Issu(world.address, world.place)


MONITORED = {"ListJobs": [[[ID, job(ID), "stage"]]]}


@pytest.mark.parametrize(
    ("words", "mechanism"), [(["monitor"], HALT), (["start", "--wait", TARGET], HALT)]
)
def test_the_bus_goes_and_comes_back(
    world: World, mine: Issu, words: list[str], mechanism: dict[str, str]
) -> None:
    """Halt: another bus, another service, the same job; nothing is lost."""
    world.come(answers=MONITORED | STARTED, jobs={ID: RUNS}, manager=mechanism)
    lines = Lines(mine, *words)
    lines.expect("stage")
    world.go()
    lines.expect("the system bus is away; waiting for it")
    service = world.come(answers=a_report(), jobs={ID: RUNS | {"Phase": "arrive"}})
    lines.expect("arrive")
    service.job(ID, **ENDED)
    status, out, err = lines.end()
    assert (status, err) == (0, "")
    assert out.splitlines()[-1].startswith(f"{ID}: accepted")


def test_it_ended_while_the_bus_was_away(world: World, mine: Issu) -> None:
    world.come(answers=MONITORED, jobs={ID: RUNS})
    lines = Lines(mine, "monitor")
    lines.expect("stage")
    world.go()
    lines.expect("the system bus is away; waiting for it")
    world.come(answers=a_report(), jobs={ID: ENDED | {"Result": "rolled-back", "Error": "frail"}})
    status, _, err = lines.end()
    assert (status, err.splitlines()[0]) == (4, "issu: rolled back to the old root: frail")


def test_the_service_goes_and_another_comes(world: World, mine: Issu) -> None:
    """Live: the bus stays, and NameOwnerChanged tells that the service is another."""
    world.come(answers=STARTED, jobs={ID: RUNS}, manager=LIVE)
    lines = Lines(mine, "start", TARGET)
    lines.expect("stage")
    world.leave()
    lines.expect("the system bus is away; waiting for it")
    service = world.serve(answers=a_report(), jobs={ID: RUNS | {"Phase": "verify"}})
    lines.expect("verify")
    service.job(ID, **ENDED)
    assert lines.end()[0] == 0


def test_a_change_that_no_signal_told_is_seen(world: World, mine: Issu) -> None:
    service = world.come(answers=MONITORED | a_report(), jobs={ID: RUNS})
    lines = Lines(mine, "monitor")
    lines.expect("stage")
    service.job(ID, tell=False, Phase="verify")
    lines.expect("verify")
    service.job(ID, tell=False, **ENDED)
    assert lines.end()[0] == 0


def test_a_signal_is_heard_at_once(world: World, mine: Issu) -> None:
    """Control of the one before: with no look in a minute, only the signal can have told it."""
    service = world.come(answers=MONITORED | a_report(), jobs={ID: RUNS})
    lines = Lines(mine, "monitor", TEST_LOOK_SEC="3600")
    lines.expect("stage")
    service.job(ID, Phase="verify")
    lines.expect("verify")
    service.job(ID, **ENDED)
    assert lines.end()[0] == 0


def test_start_with_halt_takes_the_loss_of_the_bus_for_the_release(
    world: World, mine: Issu
) -> None:
    world.come(answers=STARTED, jobs={ID: RUNS}, manager=HALT)
    lines = Lines(mine, "start", TARGET)
    lines.expect("stage")
    world.go()
    status, out, err = lines.end()
    assert (status, err) == (0, "")
    assert out.startswith("release: every service stops now")


def test_a_bus_that_never_comes_back_is_told(world: World, mine: Issu) -> None:
    world.come(answers=MONITORED, jobs={ID: RUNS})
    lines = Lines(mine, "monitor", TEST_AWAY_SEC="1")
    lines.expect("stage")
    world.go()
    status, _, err = lines.end()
    assert status == 1
    assert err.startswith("issu: the system bus cannot be reached: ")


def test_a_job_that_is_gone_is_told(world: World, mine: Issu) -> None:
    world.come(answers=MONITORED, jobs={ID: RUNS})
    lines = Lines(mine, "monitor", TEST_UNKNOWN_SEC="1")
    lines.expect("stage")
    world.leave()
    world.serve()
    status, _, err = lines.end()
    assert (status, err) == (1, f"issu: no upgrade {ID}\n")


def test_waiting_costs_nothing(world: World, mine: Issu) -> None:
    """Neither with a bus nor without one does it spin."""
    service = world.come(answers=MONITORED | a_report(), jobs={ID: RUNS})
    lines = Lines(mine, "monitor", TEST_AWAY_SEC="4")
    lines.expect("stage")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    del service
    world.go()
    status, _, _ = lines.end()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert status == 1
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert used < 2.0  # of the 4 s at least that it waited, its imports and two servers included


# --- on a terminal ------------------------------------------------------------------------------


def test_a_bar_is_drawn_on_a_terminal(issu: Issu, service: Service) -> None:
    service.be(answers=STARTED | a_report(), jobs={ID: RUNS}, manager=LIVE)
    with issu.on_terminal("start", TARGET) as terminal:
        terminal.until("20%")
        assert service.is_interactive()
        service.job(ID, Phase="arrive", Progress=[60, "", 1])
        assert COLOUR.search(terminal.until("60%"))
        service.job(ID, **ENDED)
        status, seen = terminal.end()
    assert status == 0
    assert re.search(r"^.*stage +\d+\.\d s\r$", seen, re.MULTILINE)
    assert re.search(r"^.*arrive +\d+\.\d s\r$", seen, re.MULTILINE)
    assert f"{ID}: accepted" in seen
    assert "\x1b[?25h" in seen  # the cursor is back


def test_no_colour_if_none_is_wanted(issu: Issu, service: Service) -> None:
    service.be(answers=STARTED | a_report(), jobs={ID: RUNS}, manager=LIVE)
    with issu.on_terminal("start", TARGET, NO_COLOR="1") as terminal:
        terminal.until("20%")
        service.job(ID, **ENDED)
        status, seen = terminal.end()
    assert status == 0
    assert not COLOUR.search(seen)


@pytest.mark.parametrize("how", ["dumb", "without-rich"])
def test_plain_lines_where_nothing_can_be_drawn(issu: Issu, service: Service, how: str) -> None:
    service.be(answers=STARTED | a_report(), jobs={ID: ENDED}, manager=LIVE)
    more = {"TERM": "dumb"}
    if how == "without-rich":
        (issu.place / "rich.py").write_text("raise ImportError\n")
        more = {"PYTHONPATH": str(issu.place)}
    with issu.on_terminal("start", TARGET, **more) as terminal:
        status, seen = terminal.end()
    assert status == 0
    assert "\x1b" not in seen
    assert seen.splitlines()[0] == "accept"


PAGER = "sed s/^/paged:/"


@pytest.mark.parametrize(
    ("words", "more", "is_paged"),
    [
        ([], {"SYSTEMD_PAGER": PAGER}, True),
        ([], {"PAGER": PAGER}, True),
        ([], {"SYSTEMD_PAGER": "", "PAGER": PAGER}, False),
        ([], {"SYSTEMD_PAGER": "cat", "PAGER": PAGER}, False),
        ([], {"SYSTEMD_PAGER": "/no/such/pager"}, False),
        (["--no-pager"], {"SYSTEMD_PAGER": PAGER}, False),
    ],
)
def test_the_pager(
    issu: Issu, service: Service, words: list[str], more: dict[str, str], is_paged: bool
) -> None:
    service.be(answers=a_report())
    with issu.on_terminal("report", *words, **more) as terminal:
        status, seen = terminal.end()
    assert status == 0
    assert seen.startswith(f"paged:ISSU {ID}" if is_paged else f"ISSU {ID}")


def test_no_pager_where_nobody_reads(issu: Issu, service: Service) -> None:
    service.be(answers=a_report())
    assert issu("report", SYSTEMD_PAGER=PAGER).out.startswith("ISSU")
