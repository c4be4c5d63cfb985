"""The dead man's switch, with a pipe in place of the device; real ones are in the VM tier."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from issu_systemd import record, watchdog
from issu_systemd.errors import IssuError
from issu_systemd.evidence import Watchdog
from issu_systemd.record import Record
from issu_systemd.settings import Settings
from tests.rig.wait import Timeout, until

HARDWARE = Watchdog("/dev/watchdog0", "iTCO_wdt", timeout=30)
SOFTWARE = Watchdog("/dev/watchdog1", watchdog.SOFTWARE, timeout=60)
MINUTE = Settings(watchdog_usec=60_000_000)


class Fake:
    """A watchdog made of a pipe, and of directories in place of sysfs and /dev."""

    def __init__(self, place: Path) -> None:
        self.sysfs, self.dev, self.ioctls = place / "class", place / "dev", list[tuple[int, int]]()
        self.options, self.longest = watchdog.MAGICCLOSE, 1 << 16
        self.dev.mkdir()
        self.fifo = self.dev / "watchdog0"
        os.mkfifo(self.fifo)
        self.reader = os.open(self.fifo, os.O_RDONLY | os.O_NONBLOCK)
        self.say("watchdog0")

    def say(self, name: str, **told: str) -> None:
        """What sysfs says of a device."""
        words = {"identity": "iTCO_wdt", "state": "inactive", "nowayout": "0", "timeout": "30"}
        (self.sysfs / name).mkdir(parents=True, exist_ok=True)
        for key, value in (words | told).items():
            (self.sysfs / name / key).write_text(f"{value}\n")

    def ioctl(self, fd: int, number: int, argument: bytes) -> bytes:
        if number == watchdog.GETSUPPORT:
            return struct.pack("II32s", self.options, 0, b"iTCO_wdt")
        seconds = min(struct.unpack("i", argument)[0], self.longest)
        self.ioctls.append((number, seconds))
        return struct.pack("i", seconds)

    def written(self) -> bytes:
        """What was written to it since it was last asked."""
        try:
            return os.read(self.reader, 65536)
        except BlockingIOError:
            return b""

    def is_closed(self) -> bool:
        """Whether nobody has it open any more: an end of file instead of nothing to read yet."""
        try:
            return os.read(self.reader, 65536) == b""
        except BlockingIOError:
            return False


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    made = Fake(tmp_path)
    monkeypatch.setattr(watchdog, "CLASS", made.sysfs)
    monkeypatch.setattr(watchdog, "DEV", made.dev)
    monkeypatch.setattr(watchdog, "PETS", 600)  # in a minute: every 100 ms
    monkeypatch.setattr(fcntl, "ioctl", made.ioctl)
    monkeypatch.setattr(record, "save", lambda story: None)
    yield made
    for fd, child in watchdog._held.values():
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(fd)
    watchdog._held.clear()
    os.close(made.reader)


def armed(fake: Fake, **more: Any) -> Record:
    story = Record(id="x", started="y")
    watchdog.prepare(story, Settings(**{"watchdog_usec": 60_000_000, **more}))
    watchdog.arm(story)
    return story


# --- which one ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "taken"),
    [
        ((HARDWARE, SOFTWARE), HARDWARE),
        ((SOFTWARE, HARDWARE), HARDWARE),
        ((HARDWARE._replace(active=True), SOFTWARE), SOFTWARE),
        ((HARDWARE._replace(nowayout=True), SOFTWARE), SOFTWARE),
        ((HARDWARE._replace(active=True),), None),
        ((), None),
    ],
)
def test_the_choice(found: tuple[Watchdog, ...], taken: Watchdog | None) -> None:
    assert watchdog.choose(found) == taken


def test_what_sysfs_tells(fake: Fake) -> None:
    fake.say("watchdog1", state="active", nowayout="1")  # of the host, in a container
    fake.say("watchdog2", state="active", nowayout="1", timeout="")
    (fake.dev / "watchdog2").touch()
    assert watchdog.devices() == (
        Watchdog(str(fake.dev / "watchdog0"), "iTCO_wdt", timeout=30),
        Watchdog(str(fake.dev / "watchdog2"), "iTCO_wdt", active=True, nowayout=True),
    )


def test_softdog_is_loaded_only_if_there_is_no_other(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[list[str]] = []

    def run(argv: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        called.append(argv)
        if argv == ["modprobe", "softdog"]:
            (fake.dev / "watchdog1").touch()
            fake.say("watchdog1", identity=watchdog.SOFTWARE, timeout="60")
        return subprocess.CompletedProcess(argv, 0)

    monkeypatch.setattr(watchdog, "run", run)
    story = Record(id="x", started="y")
    watchdog.prepare(story, MINUTE)
    assert called == []
    assert story.watchdog["device"] == str(fake.fifo)

    fake.say("watchdog0", state="active")
    watchdog.prepare(story, MINUTE)
    assert story.watchdog == {
        "device": str(fake.dev / "watchdog1"), "seconds": 60, "before": 60, "armed": False
    }  # fmt: skip
    assert called[-1] == ["modprobe", "softdog"]


def test_a_part_of_a_second_is_a_whole_one(fake: Fake) -> None:
    story = Record(id="x", started="y")
    watchdog.prepare(story, Settings(watchdog_usec=10_000_001))
    assert story.watchdog["seconds"] == 11


def test_without_the_setting_nothing_is_touched(fake: Fake) -> None:
    story = armed(fake, watchdog_usec=0)
    watchdog.take_over(story)
    watchdog.disarm(story)
    assert story.watchdog == {}
    assert (fake.ioctls, fake.written(), fake.is_closed()) == ([], b"", True)


# --- armed --------------------------------------------------------------------------------------


def wait_written(fake: Fake) -> bytes:
    found: bytes = until(fake.written, 5, "something is written to the watchdog")
    return found


def test_it_is_written_to_until_it_is_disarmed_and_then_is_as_it_was(fake: Fake) -> None:
    story = armed(fake)
    assert story.watchdog["armed"]
    for _ in range(3):
        assert set(wait_written(fake)) == {0}
    watchdog.disarm(story)
    assert fake.written().endswith(b"V")
    assert fake.is_closed()
    assert fake.ioctls == [(watchdog.SETTIMEOUT, 60), (watchdog.SETTIMEOUT, 30)]
    assert not story.watchdog["armed"]
    assert story.findings == []


def test_the_next_process_goes_on_with_it(fake: Fake) -> None:
    """On the new root: it is opened again, with its time, and disarmed in the end."""
    story = Record(id="x", started="y")
    story.watchdog = {"device": str(fake.fifo), "seconds": 60, "before": 30, "armed": True}
    watchdog.take_over(story)
    wait_written(fake)
    held = dict(watchdog._held)
    watchdog.take_over(story)  # once is enough
    assert watchdog._held == held
    watchdog.disarm(story)
    assert fake.written().endswith(b"V")
    assert fake.ioctls == [(watchdog.SETTIMEOUT, 30)]


def test_on_the_way_back_the_agent_gets_it_from_who_asked_for_it(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That one has it for as long as the agent needs to get ready, and a moment more.

    So it is wherever one follows on another: on a busy machine the moment may be long.
    """
    real, tries = os.open, list[int]()

    def busy_first(*argv: Any) -> int:
        tries.append(1)
        if len(tries) < 3:
            raise OSError(errno.EBUSY, "Device or resource busy")
        return real(*argv)

    monkeypatch.setattr(os, "open", busy_first)
    story = Record(id="x", started="y")
    story.watchdog = {"device": str(fake.fifo), "seconds": 60, "before": 30, "armed": True}
    watchdog.arm(story)
    wait_written(fake)
    assert fake.ioctls == []  # it has its time
    watchdog.disarm(story)
    assert story.findings == []
    assert fake.ioctls == [(watchdog.SETTIMEOUT, 30)]


def test_who_only_undoes_disarms_it_too(fake: Fake) -> None:
    story = Record(id="x", started="y")
    story.watchdog = {"device": str(fake.fifo), "seconds": 60, "before": 30, "armed": True}
    watchdog.disarm(story)
    assert fake.written().endswith(b"V")
    assert fake.is_closed()


def test_one_that_was_not_armed_yet_is_not_opened(fake: Fake) -> None:
    story = Record(id="x", started="y")
    watchdog.prepare(story, MINUTE)
    watchdog.take_over(story)
    watchdog.disarm(story)
    assert (fake.written(), fake.ioctls) == (b"", [])


def test_one_that_cannot_be_stopped_is_told(fake: Fake) -> None:
    story = armed(fake)
    fake.say("watchdog0", state="active")
    watchdog.disarm(story)
    assert [found["id"] for found in story.findings] == ["watchdog-runs"]


@pytest.mark.parametrize(
    ("seconds", "of_pid1"), [(60, True), (0, False)], ids=["PID 1", "another, for too long"]
)
def test_one_that_somebody_else_has_is_told(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, seconds: int, *, of_pid1: bool
) -> None:
    """Systemd of the new root may open it for itself; it is not waited for."""

    def busy(*_: object) -> int:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(watchdog, "is_of_pid1", lambda node: of_pid1)
    monkeypatch.setattr(os, "open", busy)
    story = Record(id="x", started="y")
    story.watchdog = {"device": str(fake.fifo), "seconds": seconds, "before": 30, "armed": True}
    begin = time.monotonic()
    watchdog.take_over(story)
    assert [found["id"] for found in story.findings] == ["watchdog-lost"]
    assert "busy" in story.findings[0]["text"]
    watchdog.disarm(story)  # is not tried once more
    assert time.monotonic() - begin < 5
    assert len(story.findings) == 1


@pytest.mark.parametrize("name", ["/dev/watchdog", "/dev/watchdog0"])
def test_what_pid_1_has_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(watchdog, "PID1_FILES", tmp_path)
    assert not watchdog.is_of_pid1("/dev/watchdog0")
    (tmp_path / "3").symlink_to("/dev/null")
    (tmp_path / "4").symlink_to(name)
    (tmp_path / "5").touch()  # what cannot be read is passed over
    assert watchdog.is_of_pid1("/dev/watchdog0")
    assert not watchdog.is_of_pid1("/dev/watchdog1")


@pytest.mark.parametrize(
    ("changed", "value", "says"),
    [("options", 0, "stops when it is closed"), ("longest", 45, "no more than 45 s")],
)
def test_one_that_will_not_do_is_stopped_again(
    fake: Fake, changed: str, value: int, says: str
) -> None:
    setattr(fake, changed, value)
    with pytest.raises(IssuError, match=says):
        armed(fake)
    assert fake.written() == b"V"
    assert fake.is_closed()


# --- who writes ---------------------------------------------------------------------------------

HOLDER = """
import os, sys, time
from issu_systemd import watchdog
fd = os.open(sys.argv[1], os.O_WRONLY)
spare = os.open("/dev/null", os.O_RDONLY)
watchdog.PETS = 600
print(watchdog.tend(fd, 60), flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(fake: Fake) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A program of ours at work, and the child that writes for it."""
    argv = [sys.executable, "-c", HOLDER, str(fake.fifo)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


def test_it_ends_with_the_one_at_work_and_closes_without_the_magic(
    fake: Fake, holder: tuple[subprocess.Popen[str], int]
) -> None:
    wait_written(fake)
    holder[0].kill()
    holder[0].wait()
    last = b""

    def ended() -> bool:
        nonlocal last
        try:
            chunk = os.read(fake.reader, 65536)
        except BlockingIOError:
            return False
        last += chunk
        return chunk == b""

    until(ended, 5, "the device is closed")
    assert b"V" not in last


def test_it_does_not_write_for_one_that_is_stopped(
    fake: Fake, holder: tuple[subprocess.Popen[str], int]
) -> None:
    process, _ = holder
    wait_written(fake)
    process.send_signal(signal.SIGSTOP)
    until(lambda: watchdog.state(process.pid) == "T", 5, "it is stopped")
    time.sleep(0.2)  # one more may have been on its way
    fake.written()
    with pytest.raises(Timeout):
        until(fake.written, 1, "something is written, ten times that long")
    process.send_signal(signal.SIGCONT)
    wait_written(fake)


def test_it_holds_nothing_else(fake: Fake, holder: tuple[subprocess.Popen[str], int]) -> None:
    """The lock of all upgrades ends with the one at work, and so do its connections."""
    process, child = holder
    wait_written(fake)

    def open_files(pid: int) -> list[str]:
        return [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()]

    assert "/dev/null" in open_files(process.pid)
    others = [Path(f"/proc/{child}/fd/{n}") for n in range(3)]
    left = set(open_files(child)) - {str(path.readlink()) for path in others if path.exists()}
    assert left == {str(fake.fifo), "anon_inode:[pidfd]"}


@pytest.mark.parametrize(("pid", "letter"), [(os.getpid(), "R"), (1 << 30, "X")])
def test_what_a_process_does(pid: int, letter: str) -> None:
    assert watchdog.state(pid) == letter
