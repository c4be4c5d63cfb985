"""Services that a probe can ask: one request, and how to know the expected answer."""

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address


class Wrong(Exception):
    """The service answered, but not what is expected of it."""


@dataclass(frozen=True)
class Tcp:
    """A service that greets each connection with one line of text."""

    address: str
    port: int
    udp = False

    def request(self) -> bytes:
        return b""

    def answer(self, data: bytes) -> str | None:
        """The line, or None while it is incomplete."""
        line, end, _ = data.partition(b"\n")
        return line.decode(errors="replace") if end else None

    def spec(self) -> str:
        return f"tcp,{self.address},{self.port}"


@dataclass(frozen=True)
class Http:
    """A web server whose start page must be found (RFC 9112)."""

    address: str
    port: int = 80
    udp = False

    def request(self) -> bytes:
        return b"GET / HTTP/1.1\r\nHost: element\r\nConnection: close\r\n\r\n"

    def answer(self, data: bytes) -> str | None:
        """Status and Server header, or None while the header is incomplete."""
        head, end, _ = data.partition(b"\r\n\r\n")
        if not end:
            return None
        status, *lines = head.decode(errors="replace").split("\r\n")
        if " 200 " not in f"{status} ":
            raise Wrong(status)
        server = [line.partition(": ")[2] for line in lines if line.startswith("Server: ")]
        return " ".join(["200", *server])

    def spec(self) -> str:
        return f"http,{self.address},{self.port}"


@dataclass(frozen=True)
class Dns:
    """A name server that must know an A record (RFC 1035)."""

    address: str
    port: int
    name: str
    udp = True

    def request(self) -> bytes:
        labels = b"".join(bytes([len(p)]) + p.encode() for p in self.name.split("."))
        header = struct.pack("!6H", 0x1551, 0x0100, 1, 0, 0, 0)  # id, RD, one question
        return header + labels + struct.pack("!BHH", 0, 1, 1)  # type A, class IN

    def answer(self, data: bytes) -> str | None:
        """The address; the answer section of a single A record ends with it."""
        flags, _, answers = struct.unpack_from("!3H", data, 2)
        if flags & 0x000F or answers != 1:
            raise Wrong(f"flags {flags:#06x}, {answers} answers")
        return str(IPv4Address(data[-4:]))

    def spec(self) -> str:
        return f"dns,{self.address},{self.port},{self.name}"


Service = Tcp | Http | Dns


def parse(spec: str) -> Service:
    """The service that `spec()` described."""
    match spec.split(","):
        case ["tcp", address, port]:
            return Tcp(address, int(port))
        case ["http", address, port]:
            return Http(address, int(port))
        case ["dns", address, port, name]:
            return Dns(address, int(port), name)
    raise ValueError(f"{spec}: neither tcp,ADDRESS,PORT nor http,… nor dns,ADDRESS,PORT,NAME")
