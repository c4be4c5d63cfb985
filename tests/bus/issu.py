"""The command `issu` as a program on a private bus with a stand-in for org.issu1 on it."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
REPORT = json.loads((ROOT / "tests/unit/data/report-accepted.json").read_text())
ID = "20260101T000000_aaaa"
END_SEC = 30.0

# Record and history lie in a directory of the test's; what waits long waits short.
PROGRAM = """
import os, pathlib, sys
from issu_systemd import cli, history, record
place = pathlib.Path(sys.argv.pop(1))
history.PLACE = record.HISTORY = place / "history"
record.load.__defaults__ = (place / "record.json",)
for name, value in os.environ.items():
    if name.startswith("TEST_"):
        from issu_systemd import commands, follow
        setattr(commands if hasattr(commands, name[5:]) else follow, name[5:], float(value))
sys.argv[0] = "issu"
sys.exit(cli.main())
"""


def heed_ctrl_c() -> None:
    """A shell has its background jobs, and what they start, ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Done(NamedTuple):
    """How the program ended."""

    status: int
    out: str
    err: str


@dataclass(frozen=True)
class Issu:
    """The program, its bus and its files."""

    address: str
    place: Path

    def environment(self, **more: str) -> dict[str, str]:
        keep = {k: v for k, v in os.environ.items() if not k.startswith(("NO_COLOR", "SYSTEMD_"))}
        return keep | {"DBUS_SYSTEM_BUS_ADDRESS": self.address, "TERM": "xterm"} | more

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, "-c", PROGRAM, str(self.place), *words]

    def __call__(self, *words: str, **more: str) -> Done:
        """Run it to its end."""
        process = self.popen(*words, **more)
        out, err = process.communicate(timeout=END_SEC)
        return Done(process.returncode, out, err)

    def popen(self, *words: str, **more: str) -> subprocess.Popen[str]:
        """Start it."""
        return subprocess.Popen(
            self.argv(*words), cwd=ROOT, env=self.environment(**more), text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            preexec_fn=heed_ctrl_c,
        )  # fmt: skip

    def report(self, id: str = ID, **more: Any) -> dict[str, Any]:
        """Put a report into the history."""
        document = REPORT | {"id": id} | more
        (self.place / "history").mkdir(exist_ok=True)
        (self.place / f"history/{id}.json").write_text(json.dumps(document))
        return document

    @contextmanager
    def on_terminal(self, *words: str, **more: str) -> Iterator[Terminal]:
        """Start it on a terminal of 100 columns; it is dead after the block."""
        controller, side = pty.openpty()
        process = subprocess.Popen(
            self.argv(*words), cwd=ROOT, env=self.environment(COLUMNS="100", LINES="30", **more),
            stdin=side, stdout=side, stderr=side, start_new_session=True,
        )  # fmt: skip
        os.close(side)
        try:
            yield Terminal(controller, process)
        finally:
            process.kill()
            process.wait()
            os.close(controller)


@dataclass
class Terminal:
    """What a program draws."""

    fd: int
    process: subprocess.Popen[bytes]
    seen: str = ""

    def until(self, text: str) -> str:
        """Everything up to where `text` has come; fails if the program ends before."""
        while text not in self.seen:
            read = self._read()
            assert read, f"no {text!r} in {self.seen!r}"
            self.seen += read
        return self.seen

    def end(self) -> tuple[int, str]:
        """Exit status and everything that was drawn."""
        while read := self._read():
            self.seen += read
        return self.process.wait(END_SEC), self.seen

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def _read(self) -> str:
        with suppress(OSError):  # EIO: nobody has the other side any more
            return os.read(self.fd, 4096).decode(errors="replace")
        return ""
