"""docs/safety.md names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SAFETY = (ROOT / "docs/safety.md").read_text()
NAMED = re.findall(r"`(test_\w+\.py)::(test_\w+)`", SAFETY)
HEAD = "| what fails | when | what the machine does | how long | shown by |"
MATRIX = "make fault-matrix"


def rows() -> list[list[str]]:
    """The cells of the first table."""
    table = SAFETY.partition(HEAD)[2].partition("\n\n")[0]
    lines = table.splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_every_row_names_what_shows_it(row: list[str]) -> None:
    assert len(row) == HEAD.count(" | ") + 1
    assert re.search(r"`test_\w+\.py::test_\w+`", row[-1]) or MATRIX in row[-1], row


@pytest.mark.parametrize(("file", "name"), sorted(set(NAMED)))
def test_it_is_there(file: str, name: str) -> None:
    found = [*(ROOT / "tests").rglob(file)]
    assert found, file
    assert any(f"\ndef {name}(" in path.read_text() for path in found), f"{file}::{name}"


def test_the_matrix_has_its_marks_and_its_target() -> None:
    assert SAFETY.count("<!-- fault matrix -->") == SAFETY.count("<!-- end -->") == 1
    assert "\nfault-matrix: " in (ROOT / "Makefile").read_text()
