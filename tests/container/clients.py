"""Those who are connected to an element while it is upgraded, and what it needs for them."""

import select
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.rig import sh
from tests.rig.net import Network

from .element import write_unit

ANSWER_SEC = 10.0
HELD, OFFERED, PLAIN = 7911, 7921, 7777  # ports; the last is version-echo's, without a socket
SERVE = Path(__file__).with_name("data") / "serve.py"
KEYS = "/root/.ssh/authorized_keys"
CONNECT = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as connection:
    lines = connection.makefile("r")
    for line in sys.stdin:
        connection.sendall(line.encode())
        print(lines.readline(), end="", flush=True)
"""


class Talk:
    """A program outside the element that answers lines with lines."""

    def __init__(self, network: Network, argv: Sequence[str]) -> None:
        inside = ["nsenter", f"--net=/run/netns/{network.outside}", *argv]
        self.process = sh.popen(inside, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def say(self, line: str) -> str:
        """One line there and one back, "" if the other end has hung up."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], ANSWER_SEC)
        assert ready, f"no answer to {line!r} within {ANSWER_SEC:g} s"
        return str(self.process.stdout.readline()).rstrip("\n")


@contextmanager
def talk(network: Network, argv: Sequence[str]) -> Iterator[Talk]:
    """A Talk for as long as it is needed."""
    made = Talk(network, argv)
    try:
        yield made
    finally:
        sh.kill(made.process)
        for stream in (made.process.stdin, made.process.stdout):
            if stream:
                stream.close()


def connection(network: Network) -> list[str]:
    """One TCP connection to the echo service."""
    return [sys.executable, "-c", CONNECT, network.address, str(HELD)]


def session(network: Network, key: Path) -> list[str]:
    """A shell of root's by ssh(1)."""
    options = ("BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null")
    words = [word for option in options for word in ("-o", option)]
    return ["ssh", "-T", "-F", "none", "-i", str(key), *words, f"root@{network.address}", "sh"]


def make_key(work: Path) -> Path:
    """A key of an operator's."""
    key = work / "key"
    sh.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key])
    return key


def offer_sessions(root: Path, key: Path) -> None:
    """Let the operator with the key log in."""
    place = root / KEYS.lstrip("/")
    place.parent.mkdir(mode=0o700, exist_ok=True)
    place.write_text(key.with_suffix(".pub").read_text())
    sh.run(["systemctl", f"--root={root}", "--quiet", "enable", "ssh.service"])


def offer_sockets(root: Path) -> None:
    """A service for each connection, and one for all, whose sockets PID 1 holds."""
    write_unit(root, "held.socket", f"[Socket]\nListenStream={HELD}\nAccept=yes\n")
    cat = "StandardInput=socket\nExecStart=/bin/cat\n"
    write_unit(root, "held@.service", f"[Service]\n{cat}", wanted_by="")
    write_unit(root, "offered.socket", f"[Socket]\nListenStream={OFFERED}\n")
    (root / "etc/serve.py").write_bytes(SERVE.read_bytes())
    serve = "ExecStart=/usr/bin/python3 /etc/serve.py\n"
    write_unit(root, "offered.service", f"[Service]\n{serve}", wanted_by="")
