"""What an ELF file says of the kernel that it needs; nothing that it says is believed blindly."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from issu_systemd.elf import oldest_kernel


def note(name: bytes, kind: int, body: bytes, order: str = "<") -> bytes:
    padded = name + bytes(-len(name) % 4)
    return struct.pack(f"{order}III", len(name), len(body), kind) + padded + body


def tag(*version: int, system: int = 0, order: str = "<") -> bytes:
    return note(b"GNU\0", 1, struct.pack(f"{order}4I", system, *version), order)


def elf(segment: bytes, *, wide: bool = True, order: str = "<", count: int = 1) -> bytes:
    """An ELF file with one segment of notes behind its program header."""
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1 if order == "<" else 2, 1]) + bytes(9)
    start, size = (64, 56) if wide else (52, 32)
    head = ident + struct.pack(f"{order}HHI", 3, 62, 1)
    words = "QQQ" if wide else "III"
    head += struct.pack(f"{order}{words}I6H", 0, start, 0, 0, start, size, count, 0, 0, 0)
    at = start + size
    if wide:
        header = struct.pack("<IIQQQQQQ", 4, 4, at, 0, 0, len(segment), 0, 4)
    else:
        header = struct.pack(f"{order}8I", 4, at, 0, 0, len(segment), 0, 4, 4)
    return head + header + segment


BUILD_ID = note(b"GNU\0", 3, b"\1" * 20)


@pytest.mark.parametrize(
    ("content", "version"),
    [
        (elf(tag(3, 2, 0)), (3, 2, 0)),
        (elf(BUILD_ID + tag(6, 12, 1)), (6, 12, 1)),
        (elf(tag(4, 19, 0, order=">"), wide=False, order=">"), (4, 19, 0)),
        (elf(tag(3, 2, 0), wide=False), (3, 2, 0)),
        (elf(BUILD_ID), ()),
        (elf(tag(3, 2, 0, system=2)), ()),  # for another system: 2 is Solaris
        (elf(tag(3, 2, 0)[:-4]), ()),
        (elf(tag(3, 2, 0))[:70], ()),
        (elf(struct.pack("<III", 0xFFFFFFFF, 0xFFFFFFFF, 1)), ()),
        (elf(tag(3, 2, 0), count=0), ()),
        (b"#!/bin/sh\nexit 0 # no ELF file at all\n", ()),
        (b"", ()),
    ],
    ids=["wide", "second", "big", "narrow", "no-tag", "solaris", "cut", "cut-header", "huge",
         "no-header", "script", "empty"],
)  # fmt: skip
def test_oldest_kernel(tmp_path: Path, content: bytes, version: tuple[int, ...]) -> None:
    path = tmp_path / "libc.so.6"
    path.write_bytes(content)
    assert oldest_kernel(path) == version


def test_of_the_libc_that_runs_here() -> None:
    maps = Path("/proc/self/maps").read_text().split()
    libc = next(Path(word) for word in maps if word.endswith("libc.so.6"))
    found = oldest_kernel(libc)
    assert len(found) == 3
    assert found >= (2, 6, 32)
