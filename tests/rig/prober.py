"""The probing loop: a new attempt for each service every period, whatever became of the last.

One thread, epoll, no connection left in TIME-WAIT. Times are CLOCK_MONOTONIC nanoseconds
inside, microseconds in what is reported.
"""

import os
import select
import socket
import time
from bisect import insort
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from .outage import Answer, Observed, gaps
from .services import Service, Wrong

RESET_ON_CLOSE = b"\x01\0\0\0\0\0\0\0"  # struct linger { 1, 0 }
LARGEST = 2048  # bytes read at once
COMMANDS = 0  # standard input: its end ends the probing


@dataclass
class Log:
    """All that happened to one service."""

    service: Service
    begin: int
    good: list[int] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    spacing: int = 0
    last_error: str = ""

    def answered(self, text: str, now: int) -> None:
        if self.good:
            self.spacing = max(self.spacing, now - self.good[-1])
        self.good.append(now)
        last = self.answers[-1] if self.answers else None
        if last and last.text == text:
            self.answers[-1] = Answer(text, last.first_usec, now, last.count + 1)
        else:
            self.answers.append(Answer(text, now, now, 1))

    def failure(self, start: int, why: str) -> None:
        insort(self.failed, start)
        self.last_error = why

    def observed(self, now: int) -> Observed:
        found = gaps(self.good, self.failed, self.begin, now)
        answers = tuple(self.answers)
        return Observed(found, answers, len(self.failed), self.spacing, self.last_error)


@dataclass
class Attempt:
    """One request on its way. `start` in nanoseconds."""

    log: Log
    start: int
    socket: socket.socket
    unsent: bytes
    data: bytes = b""


class Prober:
    """Asks every service each `period` seconds; an attempt fails after `timeout` seconds."""

    def __init__(self, services: Mapping[str, Service], period: float, timeout: float) -> None:
        now = time.monotonic_ns()
        self._period, self._timeout = int(period * 1e9), int(timeout * 1e9)
        self.logs = {name: Log(service, now // 1000) for name, service in services.items()}
        step = self._period // max(1, len(services))
        self._due = [now + i * step for i in range(len(services))]
        self._poll = select.epoll()
        self._flying: dict[int, Attempt] = {}  # by descriptor, oldest first

    def observed(self) -> dict[str, Observed]:
        now = time.monotonic_ns() // 1000
        return {name: log.observed(now) for name, log in self.logs.items()}

    def run(self, command: Callable[[str], None]) -> None:
        """Probe until standard input ends; `command` gets each line of it."""
        self._poll.register(COMMANDS, select.EPOLLIN)
        while True:
            now = time.monotonic_ns()
            self._launch(now)
            self._expire(now)
            rest = max(0, min(self._due) - time.monotonic_ns())
            for descriptor, events in self._poll.poll(rest / 1e9):
                if descriptor == COMMANDS:
                    lines = os.read(COMMANDS, 4096).decode()
                    if not lines:
                        return
                    for line in lines.splitlines():
                        command(line)
                elif descriptor in self._flying:
                    self._advance(self._flying[descriptor], events)

    def _launch(self, now: int) -> None:
        for i, log in enumerate(self.logs.values()):
            if self._due[i] <= now:
                self._start(log)
                late = now - self._due[i]
                self._due[i] += self._period * (1 + late // self._period)

    def _start(self, log: Log) -> None:
        to = log.service
        family = socket.AF_INET6 if ":" in to.address else socket.AF_INET
        kind = socket.SOCK_DGRAM if to.udp else socket.SOCK_STREAM
        sock = socket.socket(family, kind | socket.SOCK_NONBLOCK)
        if not to.udp:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        attempt = Attempt(log, time.monotonic_ns(), sock, to.request())
        self._flying[sock.fileno()] = attempt
        try:
            with suppress(BlockingIOError):
                sock.connect((to.address, to.port))
            self._send(attempt)  # over a veth pair the connection stands already
            events = select.EPOLLIN | (select.EPOLLOUT if attempt.unsent else 0)
            self._poll.register(sock, events)
        except OSError as error:
            self._end(attempt, failure=str(error))

    def _send(self, attempt: Attempt) -> None:
        if attempt.unsent:
            with suppress(BlockingIOError):
                sent = attempt.socket.send(attempt.unsent)
                attempt.unsent = attempt.unsent[sent:]

    def _advance(self, attempt: Attempt, events: int) -> None:
        try:
            if events & select.EPOLLOUT:
                self._send(attempt)
                if not attempt.unsent:
                    self._poll.modify(attempt.socket, select.EPOLLIN)
            if events & ~select.EPOLLOUT:
                data = attempt.socket.recv(LARGEST)
                attempt.data += data
                text = attempt.log.service.answer(attempt.data)
                if text is not None:
                    self._end(attempt, answer=text)
                elif not data:
                    self._end(attempt, failure="closed without an answer")
        except BlockingIOError:
            return
        except (OSError, Wrong) as error:
            self._end(attempt, failure=str(error))

    def _expire(self, now: int) -> None:
        for attempt in list(self._flying.values()):
            if attempt.start + self._timeout > now:
                return
            self._end(attempt, failure="no answer in time")

    def _end(self, attempt: Attempt, *, answer: str | None = None, failure: str = "") -> None:
        now = time.monotonic_ns()
        del self._flying[attempt.socket.fileno()]
        attempt.socket.close()
        if answer is None:
            attempt.log.failure(attempt.start // 1000, failure)
        else:
            attempt.log.answered(answer, now // 1000)
