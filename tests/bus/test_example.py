"""The client that org.issu1(5) shows: it loses nothing when the service and the bus go away."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from issu_systemd.phase import ORDER, Phase
from tests.bus import fake as stand_in
from tests.bus import others
from tests.bus.fake import State
from tests.bus.launch import DEV, ROOT
from tests.bus.others import SOON_SEC, Machine

UNIT = "issu@dev-issu\\x2dtest-b.service"


def example() -> str:
    """The Python in the man page."""
    page = (ROOT / "docs/org.issu1.5.md").read_text()
    [code] = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    return str(code)


@contextmanager
def client(place: Path, address: str) -> Iterator[subprocess.Popen[str]]:
    """It runs, for as long as the block at most."""
    (place / "client.py").write_text(example())
    process = subprocess.Popen(
        [sys.executable, place / "client.py", f"{DEV}b"], text=True,
        env={**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": address},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def served(place: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The bus, PID 1 and the service of one root."""
    with others.system_bus(place) as address, stand_in.fake(address) as pid1:
        pid1.be(State(results={UNIT: ""}))
        service = others.begin(Machine(place, address))
        try:
            asyncio.run(others.ready(Machine(place, address), service))
            yield address, service
        except BaseException:
            others.end(service)
            raise


async def asked(machine: Machine) -> bool:
    return (machine.issu / "request.json").exists()


def test_it_follows_across_the_change_of_roots(tmp_path: Path) -> None:
    """The bus and the service of the old root end in the middle, those of the new one begin."""
    machine = others.machine(tmp_path, "")
    with ExitStack() as stack:
        with served(tmp_path) as (address, service):
            process = stack.enter_context(client(tmp_path, address))
            asyncio.run(others.until(lambda: asked(machine)))
            story = machine.take(UNIT)
            for phase in ORDER[: ORDER.index(Phase.SWITCH) + 1]:
                story.enter(phase)
                machine.save(story)
        assert service.wait(SOON_SEC) == 1  # it has lost its bus
        others.end(service)
        assert process.poll() is None
        with served(tmp_path) as (_, service):
            for phase in ORDER[ORDER.index(Phase.ARRIVE) :]:
                story.enter(phase)
                machine.save(story)
            assert process.poll() is None
            machine.report(story.id, "accepted")
            said, trouble = process.communicate(timeout=SOON_SEC)
            assert (said, trouble) == ("accepted\n", "")
            others.end(service)


def test_it_says_why_there_is_no_upgrade(tmp_path: Path) -> None:
    others.machine(tmp_path, "")
    (tmp_path / "dev/b").unlink()
    with served(tmp_path) as (address, service):
        with client(tmp_path, address) as process:
            said, trouble = process.communicate(timeout=SOON_SEC)
        assert said == ""
        assert trouble.startswith("org.issu1.Error.InvalidArgument: /dev/issu-test/b: no such")
        others.end(service)
