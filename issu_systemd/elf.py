"""What an ELF file says of itself, see elf(5). A hostile file is read within bounds."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

MAX_HEADERS, MAX_NOTES = 128, 1 << 16  # program headers; bytes of one segment of notes
PT_NOTE = 4
NT_GNU_ABI_TAG, ABI_LINUX = 1, 0


def elf_machine(path: Path) -> int:
    """e_machine of an ELF file, see elf(5); 0 if it is none."""
    with path.open("rb") as file:
        head = file.read(20)
    if head[:4] != b"\x7fELF" or len(head) < 20:
        return 0
    return int.from_bytes(head[18:20], "little" if head[5] == 1 else "big")


def oldest_kernel(path: Path) -> tuple[int, ...]:
    """The oldest kernel that the file runs on, by its note ABI-tag; () if it does not say.

    Source: Linux Standard Base, Core, section ABI note tag. Raises OSError.
    """
    if not elf_machine(path):
        return ()
    with path.open("rb") as file:
        head = file.read(64)
        order = "<" if head[5] == 1 else ">"
        for data in notes(file, head, order):
            if found := abi_tag(data, order):
                return found
    return ()


def notes(file: BinaryIO, head: bytes, order: str) -> Iterator[bytes]:
    """The segments of notes that the program headers name."""
    wide = head[4] == 2
    try:
        (start,) = struct.unpack_from(order + ("Q" if wide else "I"), head, 32 if wide else 28)
        size, count = struct.unpack_from(order + "HH", head, 54 if wide else 42)
    except struct.error:
        return
    layout = struct.Struct(order + ("IIQQQQ" if wide else "IIIII"))
    for i in range(min(count, MAX_HEADERS)):
        file.seek(start + i * size)
        data = file.read(layout.size)
        if len(data) < layout.size:
            return
        fields = layout.unpack(data)
        if fields[0] == PT_NOTE:
            file.seek(fields[2] if wide else fields[1])
            yield file.read(min(fields[5] if wide else fields[4], MAX_NOTES))


def abi_tag(data: bytes, order: str) -> tuple[int, ...]:
    """The kernel version in the ABI tag among the notes, () without one."""
    at = 0
    while at + 12 <= len(data):
        name, size, kind = struct.unpack_from(order + "III", data, at)
        body = at + 12 + -(-name // 4) * 4
        if kind == NT_GNU_ABI_TAG and data[at + 12 : at + 16] == b"GNU\0" and size >= 16:
            if body + 16 > len(data):
                return ()
            system, *numbers = struct.unpack_from(order + "4I", data, body)
            return tuple(numbers) if system == ABI_LINUX else ()
        at = body + -(-size // 4) * 4
    return ()
