"""The agent waits for the service to tell the bus: only while there is one, and never for long."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from issu_systemd import herald, record

HOLD = """
import sys
from pathlib import Path
from issu_systemd import herald, record
record.DIRECTORY = Path(sys.argv[1])
herald.PLACE = Path(sys.argv[1]) / "bus"
with herald.listen():
    print(flush=True)
    input()
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(record, "DIRECTORY", tmp_path)
    monkeypatch.setattr(herald, "PLACE", tmp_path / "bus")
    return tmp_path


def test_without_a_service_nothing_is_waited_for(place: Path) -> None:
    assert not herald.announce(60)
    assert list(place.iterdir()) == []


def test_a_service_that_has_ended_is_none() -> None:
    with herald.listen():
        assert herald.is_listening()
    assert not herald.is_listening()
    assert not herald.announce(60)


def test_the_agent_goes_on_once_everybody_was_told() -> None:
    def tell() -> None:
        while not herald.is_announced():
            time.sleep(0.001)
        herald.told()

    with herald.listen():
        service = threading.Thread(target=tell)
        service.start()
        assert herald.announce(60)
        service.join()
    assert not herald.leaving().exists()


def test_a_service_that_does_nothing_is_not_waited_for_long() -> None:
    with herald.listen():
        assert not herald.announce(0.05)
    assert not herald.leaving().exists()


def test_a_service_that_dies_meanwhile_is_not_waited_for(place: Path) -> None:
    service = subprocess.Popen(
        [sys.executable, "-c", HOLD, place], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip

    def kill() -> None:
        while not herald.is_announced():
            time.sleep(0.001)
        service.kill()

    with service:
        assert service.stdout
        service.stdout.readline()
        assert herald.is_listening()
        killer = threading.Thread(target=kill)
        killer.start()
        begun = time.monotonic()
        assert not herald.announce(60)
        assert time.monotonic() - begun < 30
        killer.join()
    assert not herald.leaving().exists()


def test_only_root_may_hold_it() -> None:
    with herald.listen():
        assert os.stat(herald.listener()).st_mode & 0o777 == 0o600  # noqa: PTH116
