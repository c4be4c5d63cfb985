"""The traffic tester: numbered frames in through one port of the element and out of the other.

A process of its own, beside the guest. Each port is a pair of Unix datagram sockets with QEMU's
`-netdev dgram`. When the emulator has no time to read, such a socket is full and the frame waits
here: the host never drops one. What is lost is lost in the guest. Method: RFC 7654 section 5,
RFC 6201 section 4 (frame loss, and the longest gap by time stamps).

    python3 -m tests.vm.traffic DIRECTORY RATE TCP-PORT     ends when its input does; prints JSON
"""

import json
import os
import select
import socket
import sys
import time
from collections import deque
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from . import frames
from .frames import End, mac

ENDS = (
    End(mac("02:00:00:00:01:02"), mac("02:00:00:00:01:01"), "10.1.0.2", "fd00:1::2"),
    End(mac("02:00:00:00:02:02"), mac("02:00:00:00:02:01"), "10.2.0.2", "fd00:2::2"),
)
ELEMENT = "10.1.0.1"
SIZES = (64, 512, 1518)  # bytes
FORBIDDEN_PORT = 6666  # what the element's firewall must drop
KNOCK_SEC = 0.01
DRAIN_SEC = 1.0  # nothing has come for so long: the rest is lost
DRAIN_MOST_SEC = 20.0
BIN_USEC = 20_000  # of the picture
LARGEST = 2048


@dataclass
class Flow:
    """Frames of one kind in one direction, and what became of them; times in microseconds."""

    start: int
    size: int
    v6: bool
    port: int = frames.PORT
    sent: int = 0
    received: int = 0
    duplicates: int = 0
    last: int = 0
    longest_gap: int = 0
    seen: set[int] = field(default_factory=set)

    @property
    def name(self) -> str:
        """For people."""
        way = "out" if self.start == 0 else "back"
        forbidden = ", forbidden" if self.port == FORBIDDEN_PORT else ""
        return f"IPv{6 if self.v6 else 4} {self.size} {way}{forbidden}"

    def take(self, number: int, now: int) -> None:
        """One has arrived."""
        if number in self.seen:
            self.duplicates += 1
            return
        self.seen.add(number)
        self.received += 1
        if self.last:
            self.longest_gap = max(self.longest_gap, now - self.last)
        self.last = now


def flows() -> list[Flow]:
    """Both directions, both families, each size; and what must not come through."""
    kinds = [Flow(start, size, v6) for start in (0, 1) for v6 in (False, True) for size in SIZES]
    return [*kinds, Flow(0, 64, False, FORBIDDEN_PORT), Flow(0, 64, True, FORBIDDEN_PORT)]


class Port:
    """One virtual wire; frames that the other side has no room for wait here, in order."""

    def __init__(self, directory: Path, index: int) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind(str(directory / f"tester{index}"))
        self.peer = str(directory / f"element{index}")
        self.waiting: deque[tuple[int, bytes]] = deque()
        self.longest_wait = 0

    def send(self, frame: bytes) -> None:
        """Put a frame on the wire."""
        self.waiting.append((usec(), frame))
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as there is room."""
        while self.waiting:
            since, frame = self.waiting[0]
            try:
                self.socket.sendto(frame, self.peer)
            except (BlockingIOError, FileNotFoundError, ConnectionRefusedError):
                return
            self.waiting.popleft()
            self.longest_wait = max(self.longest_wait, usec() - since)

    def receive(self) -> list[bytes]:
        """All that has come."""
        found = []
        with suppress(BlockingIOError):
            while True:
                found.append(self.socket.recv(LARGEST))
        return found


@dataclass
class Knocks:
    """A TCP service of the element, asked again and again whether it takes a connection."""

    port: int
    next_usec: int = 0
    number: int = 0
    up: int = 0
    refused: int = 0
    last: int = 0
    longest_gap: int = 0

    def due(self, now: int) -> bytes | None:
        """The next question, if it is time."""
        if not self.port or now < self.next_usec:
            return None
        self.next_usec = now + int(KNOCK_SEC * 1_000_000)
        self.number += 1
        return frames.knock(ENDS[0], ELEMENT, self.source(), self.port, frames.SYN, self.number)

    def source(self) -> int:
        """Another port each time, so that an answer is known to be to this question."""
        return 20000 + self.number % 40000

    def take(self, frame: bytes, now: int) -> bytes | None:
        """An answer; what to say to it."""
        found = frames.answer(frame)
        if not found:
            return None
        port, flags = found
        if flags & frames.RST:
            self.refused += 1
            return None
        self.up += 1
        if self.last:
            self.longest_gap = max(self.longest_gap, now - self.last)
        self.last = now
        return frames.knock(ENDS[0], ELEMENT, port, self.port, frames.RST, 0xFFFF)


def usec() -> int:
    """CLOCK_MONOTONIC in microseconds."""
    return time.monotonic_ns() // 1000


class Tester:
    """Sends every flow at the same rate, and keeps count."""

    def __init__(self, directory: Path, rate: float, tcp_port: int) -> None:
        self.ports = [Port(directory, 0), Port(directory, 1)]
        self.flows = flows()
        self.knocks = Knocks(tcp_port)
        self.period = int(1_000_000 / rate)  # from one frame to the next, whatever the flow
        self.begin = self.next_usec = usec()
        self.turn = 0
        self.bins: dict[int, int] = {}

    def step(self, *, sending: bool) -> int:
        """Send what is due, take what has come; how many came."""
        now = usec()
        while sending and self.next_usec <= now:
            self.send_next()
            self.next_usec += self.period
        if sending and (question := self.knocks.due(now)):
            self.ports[0].send(question)
        for port in self.ports:
            port.flush()
        wait = max(self.next_usec - usec(), 0) / 1_000_000 if sending else 0.05
        select.select(self.ports_sockets(), [], [], min(wait, 0.005) if sending else wait)
        return sum(self.take(i, frame) for i in (0, 1) for frame in self.ports[i].receive())

    def ports_sockets(self) -> list[socket.socket]:
        """To wait on."""
        return [port.socket for port in self.ports]

    def send_next(self) -> None:
        """One frame of the flow whose turn it is."""
        index = self.turn % len(self.flows)
        self.turn += 1
        flow = self.flows[index]
        start, end = ENDS[flow.start], ENDS[1 - flow.start]
        frame = frames.numbered(start, end, index, flow.sent, flow.size, v6=flow.v6, port=flow.port)
        flow.sent += 1
        self.ports[flow.start].send(frame)

    def take(self, index: int, frame: bytes) -> int:
        """Count one frame that came; 1 if it was one of ours, else 0."""
        now = usec()
        found = frames.number_of(frame)
        if found:
            flow, number = found
            self.flows[flow].take(number, now)
            place = (now - self.begin) // BIN_USEC
            self.bins[place] = self.bins.get(place, 0) + 1
            return 1
        if index == 0 and (reply := self.knocks.take(frame, now)):
            self.ports[0].send(reply)
        return 0

    def drain(self) -> None:
        """Take what is still under way."""
        last = first = usec()
        while usec() - last < DRAIN_SEC * 1e6 and usec() - first < DRAIN_MOST_SEC * 1e6:
            if self.step(sending=False) or any(port.waiting for port in self.ports):
                last = usec()

    def close(self, stopped: int) -> None:
        """What had not come back when sending stopped was away until then, at the least."""
        watched: list[Flow | Knocks] = [*self.flows, self.knocks]
        for one in watched:
            one.longest_gap = max(one.longest_gap, stopped - (one.last or self.begin))

    def result(self) -> dict[str, object]:
        """Everything that was counted."""
        return {
            "begin_usec": self.begin,
            "bin_usec": BIN_USEC,
            "bins": [self.bins.get(i, 0) for i in range(max(self.bins, default=-1) + 1)],
            "longest_wait_usec": max(port.longest_wait for port in self.ports),
            "flows": [
                {"name": f.name, **{k: v for k, v in vars(f).items() if k != "seen"}}
                for f in self.flows
            ],
            "tcp": asdict(self.knocks),
        }


def main(argv: list[str]) -> int:
    """Run until standard input ends."""
    directory, rate, tcp_port = Path(argv[0]), float(argv[1]), int(argv[2])
    tester = Tester(directory, rate, tcp_port)
    print("ready", flush=True)
    os.set_blocking(0, False)
    while True:
        tester.step(sending=True)
        with suppress(BlockingIOError):
            if not os.read(0, 1):
                break
    stopped = usec()
    tester.drain()
    tester.close(stopped)
    json.dump(tester.result(), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
