"""What is said to a guest, by its second serial line; it answers from whichever root it is on."""

import json
import socket
import time
from itertools import count
from pathlib import Path
from typing import Any

POLL_SEC = 0.05


class Lost(Exception):
    """The guest's side has ended, or says nothing."""


class Channel:
    """A connection to the program data/channel in the guest."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        deadline = time.monotonic() + 30
        while self.socket.connect_ex(str(path)):  # QEMU makes it
            if time.monotonic() > deadline:
                raise Lost(f"{path} does not appear")
            time.sleep(POLL_SEC)
        self.left = b""
        self.others: list[dict[str, Any]] = []  # messages that came before an answer
        self.ids = count(1)

    def read(self, timeout: float) -> dict[str, Any]:
        """The next message; raises Lost after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            line, end, rest = self.left.partition(b"\n")
            if end:
                self.left = rest
                start = line.find(b"{")
                try:
                    found: dict[str, Any] = json.loads(line[start:]) if start >= 0 else {}
                except ValueError:
                    found = {}
                if found:
                    return found
                continue
            self.socket.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                data = self.socket.recv(65536)
            except TimeoutError:
                raise Lost(f"no answer within {timeout:g} s") from None
            if not data:
                raise Lost("the guest has ended")
            self.left += data

    def run(self, script: str, timeout: float = 120, *, check: bool = True) -> str:
        """What a shell script prints in the guest; raises AssertionError if it fails."""
        me = next(self.ids)
        self.socket.sendall(json.dumps({"id": me, "script": script}).encode() + b"\n")
        deadline = time.monotonic() + timeout
        while True:
            found = self.read(deadline - time.monotonic())
            if found.get("id") == me:
                assert not check or found["code"] == 0, f"{script}: {found['out']}"
                return str(found["out"])
            if "id" not in found:
                self.others.append(found)

    def wait(self, key: str, value: str, timeout: float) -> None:
        """Wait until somebody in the guest says so, or has said so since; raises Lost."""
        deadline = time.monotonic() + timeout
        while not any(found.get(key) == value for found in self.others):
            self.others = [self.read(deadline - time.monotonic())]
        self.others.clear()

    def hello(self, timeout: float) -> str:
        """Wait until the guest's side has started, again or for the first time; its root."""
        deadline = time.monotonic() + timeout
        while True:
            found = self.read(deadline - time.monotonic())
            if "hello" in found:
                return str(found["hello"])
