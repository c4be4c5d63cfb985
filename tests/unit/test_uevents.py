"""What the kernel tells of the devices, PID 1 keeps meanwhile, and is read in the end."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from issu_systemd import record, uevents
from issu_systemd.errors import IssuError
from issu_systemd.uevents import Number, Uevent

DISK = "/devices/pci0000:00/0000:00:04.0/virtio1/block/vda"
REMOVED = f"remove@{DISK}\0ACTION=remove\0DEVPATH={DISK}\0SUBSYSTEM=block\0SEQNUM=7\0".encode()
LO = Path("/sys/class/net/lo/uevent")
PATIENCE_SEC = 20.0
kernel_only = pytest.mark.skipif(
    os.geteuid() != 0 or not os.access(LO, os.W_OK), reason="needs root: uevents of the kernel"
)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The end that is watched, and the kernel's."""
    watch, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with watch, kernel:
        yield watch, kernel


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory in place of /run/issu."""
    monkeypatch.setattr(record, "DIRECTORY", tmp_path)
    monkeypatch.setattr(uevents, "DEVICES", tmp_path / "devices")
    monkeypatch.setattr(uevents, "FOUND", tmp_path / "uevents.json")
    return tmp_path


# --- one message --------------------------------------------------------------------------------


def test_a_message() -> None:
    assert uevents.parse(REMOVED) == Uevent("remove", DISK, "block")


@pytest.mark.parametrize(
    ("message", "want"),
    [
        (b"add@/module/xfs\0SUBSYSTEM=module\0", Uevent("add", "/module/xfs", "module")),
        (b"add@/devices/a@b\0", Uevent("add", "/devices/a@b", "")),
        (b"add@/devices/x\0SUBSYSTEM\0X=SUBSYSTEM=no\0", Uevent("add", "/devices/x", "")),
        (b"libudev\0\xfe\xed\xca\xfeACTION=add\0", None),
        (b"", None),
    ],
)
def test_other_messages(message: bytes, want: Uevent | None) -> None:
    assert uevents.parse(message) == want


def test_no_message_is_an_error() -> None:
    dice = random.Random(1)
    parts = [b"@", b"\0", b"=", b"SUBSYSTEM=", b"add", b"\xff\xfe", REMOVED]
    for _ in range(5000):
        noise = (dice.choice([*parts, dice.randbytes(4)]) for _ in range(dice.randrange(12)))
        message = b"".join(noise)
        event = uevents.parse(message)
        assert (event is not None) == (b"@" in message.partition(b"\0")[0])


# --- which are forbidden ------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["add", "remove", "bind", "unbind"])
def test_a_device_that_was_there_is_not_taken_away_or_made_again(action: str) -> None:
    event = Uevent(action, DISK, "block")
    assert list(uevents.forbidden([event], {DISK})) == [event]
    assert list(uevents.forbidden([event], {"/devices/other"})) == []


@pytest.mark.parametrize(
    "event",
    [
        Uevent("change", DISK, "block"),
        Uevent("move", DISK, "net"),
        Uevent("remove", DISK, "bdi"),
    ],
)
def test_what_may_be(event: Uevent) -> None:
    assert list(uevents.forbidden([event], {DISK})) == []


def test_devices_are_the_directories_with_an_uevent(tmp_path: Path) -> None:
    for name in ("devices/pci0/net/eth0", "devices/pci0", "module/xfs", "class/net"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / name / "uevent").touch()
    (tmp_path / "module/builtin_one/parameters").mkdir(parents=True)
    (tmp_path / "devices/pci0/net/eth0/device").symlink_to("../..")
    want = ["/devices/pci0", "/devices/pci0/net/eth0", "/module/xfs"]
    assert uevents.devices(tmp_path) == want
    assert uevents.devices(tmp_path / "nosuch") == []


# --- in a container -----------------------------------------------------------------------------

LOOPS = "/devices/virtual/block"
PCI = "/devices/pci0000:00"
KERNEL = {  # device: subsystem, number
    f"{LOOPS}/loop0": ("block", "7:0"),
    f"{LOOPS}/loop0/loop0p1": ("block", "259:0"),
    f"{LOOPS}/loop1": ("block", "7:1"),
    f"{LOOPS}/loop1/loop1p1": ("block", "259:1"),
    "/devices/virtual/mem/null": ("mem", "1:3"),
    "/devices/virtual/vc/vcs1": ("vc", "7:1"),  # a character device, not loop1
    "/devices/virtual/net/eth0": ("net", ""),
    PCI: ("", ""),
    f"{PCI}/0000:00:04.0": ("pci", ""),
    f"{PCI}/0000:00:04.0/net/enp0s4": ("net", ""),
    f"{PCI}/0000:00:05.0": ("pci", ""),
    f"{PCI}/0000:00:05.0/tty/ttyS0": ("tty", "4:64"),
    "/module/xfs": ("module", ""),
}
NULL = Number(block=False, number="1:3")


def block(*numbers: str) -> set[Number]:
    return {Number(block=True, number=number) for number in numbers}


@pytest.fixture
def sysfs(tmp_path: Path) -> Path:
    """A /sys with the devices of KERNEL."""
    for device, (subsystem, number) in KERNEL.items():
        place = tmp_path / device.lstrip("/")
        place.mkdir(parents=True, exist_ok=True)
        (place / "uevent").touch()
        if subsystem:
            (place / "subsystem").symlink_to(f"/sys/class/{subsystem}")
        if number:
            (place / "dev").write_text(f"{number}\n")
    return tmp_path


NETWORK = [
    "/devices/virtual/net/eth0", PCI, f"{PCI}/0000:00:04.0", f"{PCI}/0000:00:04.0/net/enp0s4",
]  # fmt: skip


@pytest.mark.parametrize(
    ("nodes", "own"),
    [
        (set(), []),
        ({NULL}, ["/devices/virtual/mem/null"]),
        (block("7:0"), [f"{LOOPS}/loop0"]),  # of its partitions it has no node
        (block("259:1"), [f"{LOOPS}/loop1", f"{LOOPS}/loop1/loop1p1"]),  # what it lies on
        ({Number(block=False, number="7:1")}, ["/devices/virtual/vc/vcs1"]),
        (
            {Number(block=False, number="4:64")},
            [f"{PCI}/0000:00:05.0", f"{PCI}/0000:00:05.0/tty/ttyS0"],
        ),
    ],
    ids=["none", "null", "disk", "partition", "character", "port"],
)
def test_what_a_container_can_have_to_do_with(
    sysfs: Path, nodes: set[Number], own: list[str]
) -> None:
    everything = uevents.devices(sysfs)
    assert set(everything) == set(KERNEL)
    found = uevents.of_container(everything, nodes, sysfs)
    assert set(found) == {*NETWORK, *own}
    # The loop device of another container goes; and one that this one has a node of.
    gone = [Uevent("remove", device, "block") for device in KERNEL if device.startswith(LOOPS)]
    want = {device for device in own if device.startswith(LOOPS)}
    assert {event.device for event in uevents.forbidden(gone, set(found))} == want
    assert len(list(uevents.forbidden(gone, set(everything)))) == len(gone)  # control


def test_nodes_are_found_by_their_numbers(tmp_path: Path) -> None:
    found = uevents.nodes_below(Path("/dev"))
    assert NULL in found
    assert Number(block=True, number="1:3") not in found
    (tmp_path / "null").symlink_to("/dev/null")
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "fifo")
    assert uevents.nodes_below(tmp_path) == uevents.nodes_below(tmp_path / "nosuch") == set()


@pytest.mark.parametrize("inside", [True, False])
def test_only_a_container_looks_at_its_nodes(
    monkeypatch: pytest.MonkeyPatch, *, inside: bool
) -> None:
    """On a machine of its own every device counts, whether it has a node or not."""
    ours = "/devices/virtual/net/lo"
    monkeypatch.setattr(uevents, "in_container", lambda: inside)
    monkeypatch.setattr(uevents, "devices", lambda: [ours, "/module/xfs"])
    assert uevents.watched() == ([ours] if inside else [ours, "/module/xfs"])


@pytest.mark.parametrize(("script", "inside"), [("exit 0", True), ("exit 1", False), ("", False)])
def test_systemd_says_whether_it_is_a_container(
    monkeypatch: pytest.MonkeyPatch, script: str, *, inside: bool
) -> None:
    def ask(argv: list[str], *, check: bool) -> subprocess.CompletedProcess[str]:
        assert argv == ["systemd-detect-virt", "--quiet", "--container"] and not check
        if not script:
            raise IssuError(f"{argv[0]} is not installed")
        return subprocess.run(["sh", "-c", script], text=True, check=False)

    monkeypatch.setattr(uevents, "run", ask)
    assert uevents.in_container() == inside


# --- what is queued -----------------------------------------------------------------------------


def test_everything_queued_is_read(pair: tuple[socket.socket, socket.socket]) -> None:
    watch, kernel = pair
    assert uevents.drain(watch) == ([], False)
    for message in (REMOVED, b"libudev\0", b"add@/module/xfs\0"):
        kernel.send(message)
    events, lost = uevents.drain(watch)
    assert [event.action for event in events] == ["remove", "add"]
    assert not lost
    assert uevents.drain(watch) == ([], False)


def test_a_socket_that_cannot_be_read_is_an_error(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    """Not events lost, again and again."""
    watch, _ = pair
    watch.close()
    with pytest.raises((OSError, ValueError)):
        uevents.drain(watch)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as nothing, pytest.raises(OSError):
        uevents.drain(nothing)


@kernel_only
def test_the_kernel_is_heard() -> None:
    with uevents.open_socket() as watch:
        LO.write_text("change")
        events, lost = uevents.drain(watch)  # the kernel queues before write(2) returns
    assert Uevent("change", "/devices/virtual/net/lo", "net") in events
    assert not lost


@kernel_only
def test_what_does_not_fit_is_told_as_lost_and_reading_goes_on() -> None:
    with uevents.open_socket() as watch:
        watch.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # the least there is, socket(7)
        for _ in range(100):
            LO.write_text("change")
        events, lost = uevents.drain(watch)
        assert lost
        assert 0 < len(events) < 100
        LO.write_text("change")
        events, lost = uevents.drain(watch)
        assert events and not lost


# --- PID 1's store ------------------------------------------------------------------------------


@pytest.mark.parametrize("abstract", [False, True])
def test_the_socket_arrives_and_we_wait_until_it_has(
    pair: tuple[socket.socket, socket.socket],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    abstract: bool,
) -> None:
    """PID 1 has it once it has closed the descriptor of the barrier, sd_notify(3)."""
    watch, kernel = pair
    path = f"@issu-{os.getpid()}-{tmp_path.name}" if abstract else str(tmp_path / "a@b")
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    waiting, read = threading.Event(), os.read

    def told(fd: int, size: int) -> bytes:
        if threading.current_thread() is ours:
            waiting.set()
        return read(fd, size)

    monkeypatch.setattr(os, "read", told)
    ours = threading.Thread(target=uevents.leave_to_pid1, args=(watch,), daemon=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as pid1:
        pid1.bind(path.replace("@", "\0", 1) if abstract else path)
        pid1.settimeout(PATIENCE_SEC)
        ours.start()
        words, [kept], *_ = socket.recv_fds(pid1, 4096, 4)
        assert words.decode().split("\n") == ["FDSTORE=1", "FDNAME=uevents", "FDPOLL=0"]
        words, [barrier], *_ = socket.recv_fds(pid1, 4096, 4)
        assert words == b"BARRIER=1"
    assert waiting.wait(PATIENCE_SEC)
    assert ours.is_alive()
    os.close(barrier)
    ours.join(PATIENCE_SEC)
    assert not ours.is_alive()
    kernel.send(REMOVED)
    watch.close()
    with socket.socket(fileno=kept) as found:
        assert uevents.drain(found) == ([Uevent("remove", DISK, "block")], False)


def test_the_unit_has_a_store_for_one_socket() -> None:
    unit = (Path(__file__).parents[2] / "units/issu-watch.service").read_text()
    assert "FileDescriptorStoreMax=1" in unit.splitlines()
    assert "NotifyAccess=all" in unit.splitlines()
    assert uevents.UNIT == "issu-watch.service"


# --- the two runs -------------------------------------------------------------------------------


def test_the_first_run_leaves_the_socket(
    places: Path, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[socket.socket] = []
    monkeypatch.delenv("LISTEN_FDNAMES", raising=False)
    monkeypatch.setattr(uevents, "watched", lambda: [DISK, "/module/xfs"])
    monkeypatch.setattr(uevents, "open_socket", lambda: pair[0])
    monkeypatch.setattr(uevents, "leave_to_pid1", left.append)
    assert uevents.main() == 0
    assert left == [pair[0]]
    assert uevents.DEVICES.read_text() == f"{DISK}\n/module/xfs\n"
    assert not uevents.FOUND.exists()


@pytest.mark.parametrize(
    ("messages", "forbidden"),
    [
        ([b"add@/devices/new\0", f"change@{DISK}\0".encode()], []),
        (
            [REMOVED, b"add@/devices/new\0"],
            [{"action": "remove", "device": DISK, "subsystem": "block"}],
        ),
    ],
)
def test_the_second_run_reads_it(
    places: Path,
    pair: tuple[socket.socket, socket.socket],
    monkeypatch: pytest.MonkeyPatch,
    messages: list[bytes],
    forbidden: list[dict[str, str]],
) -> None:
    watch, kernel = pair
    record.write_atomically(uevents.DEVICES, f"{DISK}\n")
    for message in messages:
        kernel.send(message)
    monkeypatch.setenv("LISTEN_FDNAMES", "uevents")
    monkeypatch.setattr(uevents, "FIRST_FD", os.dup(watch.fileno()))
    assert uevents.main() == 0
    assert json.loads(uevents.FOUND.read_text()) == {
        "devices": 1,
        "seen": 2,
        "lost": False,
        "forbidden": forbidden,
    }


@kernel_only
def test_both_runs_on_the_kernel_s_own_socket(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is queued between them is seen, though the first program has ended."""
    kept: list[int] = []
    monkeypatch.delenv("LISTEN_FDNAMES", raising=False)
    monkeypatch.setattr(uevents, "leave_to_pid1", lambda watch: kept.append(os.dup(watch.fileno())))
    assert uevents.main() == 0
    assert "/devices/virtual/net/lo" in uevents.DEVICES.read_text().splitlines()
    LO.write_text("change")
    LO.write_text("add")
    monkeypatch.setenv("LISTEN_FDNAMES", "uevents")
    monkeypatch.setattr(uevents, "FIRST_FD", kept[0])
    assert uevents.main() == 0
    document = json.loads(uevents.FOUND.read_text())
    added = {"action": "add", "device": "/devices/virtual/net/lo", "subsystem": "net"}
    assert added in document["forbidden"]
    assert added | {"action": "change"} not in document["forbidden"]
    assert document["seen"] >= 2
