"""Names as systemd escapes them, and sd_notify(3) as it arrives."""

from __future__ import annotations

import os
import random
import socket
import string
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from issu_systemd import arrive
from issu_systemd.systemd import bus_label, escape_path, notify, unescape_path

# --- sd_bus_path_encode(3) ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("dbus.service", "dbus_2eservice"),  # as systemd's own documentation has it
        ("issu@dev-sdb2.service", "issu_40dev_2dsdb2_2eservice"),
        (r"a\x2d", "a_5cx2d"),
        ("1a", "_31a"),
        ("ä", "_c3_a4"),
        ("", "_"),
    ],
)
def test_a_unit_in_an_object_path(name: str, label: str) -> None:
    assert bus_label(name) == label


# --- systemd-escape(1) --unescape --path --------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["/dev/sdb2", "/dev/disk/by-uuid/12-34", "/.hidden", r"/a\b", "/ä b", "/dev/\udcff", "/"],
)
def test_unescape_is_the_inverse(path: str) -> None:
    assert unescape_path(escape_path(path)) == path


@pytest.mark.parametrize(
    "name", ["", "a/b", "dev--sdb2", "dev-sdb2-", r"dev\xzz", r"dev\x61", r"\X2d", ".x", "a b"]
)
def test_what_is_no_escaped_path_is_named(name: str) -> None:
    with pytest.raises(ValueError, match="systemd-escape"):
        unescape_path(name)


# --- systemd-escape(1) --path -------------------------------------------------------------------


def systemd_escape(paths: list[str]) -> list[str]:
    """What the real program makes of the paths; none of them may hold a newline."""
    argv = ["systemd-escape", "--path", "--", *paths]
    done = subprocess.run(argv, capture_output=True, check=True)
    return os.fsdecode(done.stdout).removesuffix("\n").split(" ")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/", "-"),
        ("//", "-"),
        ("/dev/sdb2", "dev-sdb2"),
        ("/dev//sdb2/", "dev-sdb2"),
        ("dev/sdb2", "dev-sdb2"),
        ("/dev/disk/by-uuid/12-34", r"dev-disk-by\x2duuid-12\x2d34"),
        ("/.hidden", r"\x2ehidden"),
        ("/a/.b", "a-.b"),
        ("/a b", r"a\x20b"),
        (r"/a\b", r"a\x5cb"),
        ("/ä", r"\xc3\xa4"),
        ("/a:b_c.d", "a:b_c.d"),
        ("/dev/./sdb2", "dev-sdb2"),
        ("/./dev", "dev"),
        ("/dev/.", "dev"),
        ("/dev/\udcff", r"dev-\xff"),
    ],
)
def test_escape_path(path: str, name: str) -> None:
    assert escape_path(path) == name
    assert systemd_escape([path]) == [name]  # the case itself is right


def random_paths(n: int) -> list[str]:
    dice = random.Random(20260801)
    alphabet = string.ascii_letters + string.digits + string.punctuation + " \t äß€\U0001f600"

    def part() -> str:
        word = "".join(dice.choices(alphabet.replace("/", ""), k=dice.randint(1, 8)))
        return f"{word}x" if set(word) == {"."} else word

    return ["/" + "/".join(part() for _ in range(dice.randint(1, 4))) for _ in range(n)]


def test_escape_path_of_random_paths() -> None:
    paths = random_paths(1000)
    assert [escape_path(path) for path in paths] == systemd_escape(paths)


# --- sd_notify ----------------------------------------------------------------------------------


class Inbox:
    """A datagram socket in the place of PID 1's."""

    def __init__(self, address: str | bytes) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.setblocking(False)

    def messages(self) -> list[set[str]]:
        """What has arrived: the assignments of each message."""
        found = []
        while True:
            try:
                found.append(set(self.socket.recv(4096).decode().split("\n")) - {""})
            except BlockingIOError:
                return found


@pytest.fixture(params=["path", "abstract"])
def inbox(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Inbox]:
    name = str(tmp_path / "notify")
    box = Inbox(name if request.param == "path" else "\0" + name)
    monkeypatch.setenv("NOTIFY_SOCKET", name if request.param == "path" else f"@{name}")
    yield box
    box.socket.close()


def test_a_status_alone_does_not_make_us_ready(inbox: Inbox) -> None:
    notify(status="staging /dev/sdb2")
    [message] = inbox.messages()
    assert "STATUS=staging /dev/sdb2" in message
    assert "READY=1" not in message


def test_ready(inbox: Inbox) -> None:
    notify(ready=True)
    assert inbox.messages() == [{"READY=1"}]


def test_ready_with_a_status(inbox: Inbox) -> None:
    notify(status="stopping every service", ready=True)
    assert inbox.messages() == [{"READY=1", "STATUS=stopping every service"}]


def test_an_empty_status_does_not_make_us_ready(inbox: Inbox) -> None:
    """An error may have no text; READY=1 would tell `systemctl start` that all went well."""
    notify(status="")
    assert [message for message in inbox.messages() if "READY=1" in message] == []


def test_a_status_of_any_language(inbox: Inbox) -> None:
    notify(status="/dev/größe fehlt: 100 %")
    [message] = inbox.messages()
    assert "STATUS=/dev/größe fehlt: 100 %" in message


def test_the_socket_is_there_for_the_next_message(inbox: Inbox) -> None:
    for n in range(3):
        notify(status=str(n))
    assert len(inbox.messages()) == 3


def test_arrive_tells_without_a_library(inbox: Inbox) -> None:
    arrive.ready()
    [message] = inbox.messages()
    assert "READY=1" in message


def test_outside_a_unit_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify(status="x", ready=True)
    notify(ready=True)
    arrive.ready()
