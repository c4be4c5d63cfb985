"""Frames as they are on the wire: numbered UDP in IPv4 and IPv6, and TCP's first step.

Sources: RFC 791, 768, 8200, 9293 (TCP), 1071 (checksum). Sizes are those of RFC 2544, with the
four bytes of the frame check sequence, which a virtual wire does not carry.
"""

import struct
from dataclasses import dataclass
from ipaddress import ip_address

FCS = 4  # bytes
MAGIC = b"ISSU"
NUMBER = struct.Struct("!4sBQ")  # magic, flow, number
PORT = 5001
UDP, TCP = 17, 6
SYN, RST, ACK = 0x02, 0x04, 0x10
IPV4, IPV6 = b"\x08\x00", b"\x86\xdd"
ETHERNET = 14  # bytes of its header


@dataclass(frozen=True)
class End:
    """A host beside the element: its addresses, and the element's port before it."""

    mac: bytes
    port_mac: bytes
    ipv4: str
    ipv6: str


def mac(text: str) -> bytes:
    """The six bytes of 02:00:…"""
    return bytes.fromhex(text.replace(":", ""))


def checksum(data: bytes) -> int:
    """RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def packet(source: str, dest: str, protocol: int, segment: bytes) -> bytes:
    """An IP packet, of the family of the addresses, with its Ethernet type before it."""
    one, two = ip_address(source), ip_address(dest)
    if one.version == 6:
        head = struct.pack("!IHBB", 6 << 28, len(segment), protocol, 64)
        return IPV6 + head + one.packed + two.packed + segment
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0x4000, 64, protocol, 0)
    head += one.packed + two.packed
    return IPV4 + head[:10] + struct.pack("!H", checksum(head)) + head[12:] + segment


def with_checksum(source: str, dest: str, protocol: int, segment: bytes, place: int) -> bytes:
    """A UDP or TCP segment with its checksum at `place`, over the pseudo header."""
    one, two = ip_address(source), ip_address(dest)
    pseudo = one.packed + two.packed + struct.pack("!HI", protocol, len(segment))
    value = checksum(pseudo + segment) or 0xFFFF
    return segment[:place] + struct.pack("!H", value) + segment[place + 2 :]


def numbered(
    start: End, end: End, flow: int, number: int, size: int, *, v6: bool, port: int
) -> bytes:
    """A UDP frame of `size` bytes from one end to the other; IPv6 may need more than 64."""
    source, dest = (start.ipv6, end.ipv6) if v6 else (start.ipv4, end.ipv4)
    headers = ETHERNET + (40 if v6 else 20) + 8
    room = max(size - FCS - headers, NUMBER.size)
    data = NUMBER.pack(MAGIC, flow, number).ljust(room, b"\0")
    segment = struct.pack("!HHHH", port, port, 8 + len(data), 0) + data
    segment = with_checksum(source, dest, UDP, segment, 6)
    return start.port_mac + start.mac + packet(source, dest, UDP, segment)


def number_of(frame: bytes) -> tuple[int, int] | None:
    """Flow and number of one of our UDP frames; None for anything else."""
    headers = {IPV4: 20, IPV6: 40}.get(frame[12:14])
    if not headers:
        return None
    at = ETHERNET + headers + 8
    protocol = frame[ETHERNET + (9 if headers == 20 else 6)]
    if protocol != UDP or frame[at : at + 4] != MAGIC or len(frame) < at + NUMBER.size:
        return None
    _, flow, number = NUMBER.unpack_from(frame, at)
    return flow, number


def knock(start: End, dest: str, source_port: int, port: int, flags: int, number: int) -> bytes:
    """A TCP segment without data to a service of the element itself."""
    segment = struct.pack("!HHIIBBHHH", source_port, port, number, 0, 5 << 4, flags, 65535, 0, 0)
    segment = with_checksum(start.ipv4, dest, TCP, segment, 16)
    return start.port_mac + start.mac + packet(start.ipv4, dest, TCP, segment)


def answer(frame: bytes) -> tuple[int, int] | None:
    """Of an answer to `knock` the port it came to and its flags; None for anything else."""
    if frame[12:14] != IPV4 or frame[ETHERNET + 9] != TCP or len(frame) < ETHERNET + 40:
        return None
    _, dest, _, _, _, flags = struct.unpack_from("!HHIIBB", frame, ETHERNET + 20)
    return dest, flags
