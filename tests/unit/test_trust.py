"""Image trust: what is asked of whom, in which order, and what is said when it is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from issu_systemd import mounts, trust
from issu_systemd.devices import Device
from issu_systemd.errors import IssuError
from issu_systemd.finding import BLOCK
from issu_systemd.settings import Settings

DEVICE = Device("/dev/sdx1", 2065, "ext4", read_only=False)
HASH = "ab" * 32
SEALED = Settings(verity=HASH, verity_hashes="/dev/sdx2")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is done to the device, in order; `veritysetup` is content."""
    done: list[str] = []
    monkeypatch.setattr(
        mounts, "mount", lambda source, point, *, options, fstype: done.append(f"mount {options}")
    )
    monkeypatch.setattr(mounts, "remount", lambda point, options: done.append(f"to {options}"))

    def last_line(argv: list[str], *, timeout: float) -> tuple[int, str]:
        done.append(" ".join(argv))
        return (0, "") if argv[0] == "veritysetup" else (int(argv[0] == "/no"), "bad\x1b signature")

    monkeypatch.setattr(trust, "last_line", last_line)
    return done


def test_nothing_is_executable_before_it_is_trusted(told: list[str]) -> None:
    chosen = Settings(verity=HASH, verity_hashes="/dev/sdx2", verify_command=("/yes", "-q"))
    assert trust.mount(DEVICE, Path("/x"), chosen) == []
    assert told == [
        f"veritysetup verify /dev/sdx1 /dev/sdx2 {HASH}",
        "mount ro,nosuid,nodev,noexec",
        "/yes -q /dev/sdx1",
        "to ro,suid,dev,exec",
    ]


def test_without_either_the_order_is_the_same(told: list[str]) -> None:
    assert trust.mount(DEVICE, Path("/x"), Settings()) == []
    assert told == ["mount ro,nosuid,nodev,noexec", "to ro,suid,dev,exec"]


def test_a_refusal_leaves_it_not_executable(told: list[str]) -> None:
    [found] = trust.mount(DEVICE, Path("/x"), Settings(verify_command=("/no",)))
    assert (found.id, found.severity) == ("verify-command", BLOCK)
    assert "bad" in found.text
    assert "/no /dev/sdx1" in found.way_out
    assert told[-1] == "/no /dev/sdx1"


def test_a_wrong_hash_is_not_even_mounted_and_all_is_told(
    told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trust, "last_line", lambda argv, *, timeout: (1, f"{argv[0]} says no"))
    chosen = Settings(verity=HASH, verity_hashes="/dev/sdx2", verify_command=("/no",))
    found = trust.mount(DEVICE, Path("/x"), chosen)
    assert [f.id for f in found] == ["verity", "verify-command"]
    assert "veritysetup says no" in found[0].text
    assert told == []


def test_a_hash_without_a_hash_tree() -> None:
    [found] = trust.verity("/dev/sdx1", Settings(verity=HASH))
    assert (found.id, found.severity) == ("verity", BLOCK)
    assert "verity-hashes" in found.way_out


@pytest.mark.parametrize(
    ("raised", "reason"),
    [("veritysetup cannot be run: No such file", "cannot be run"), ("took longer", "took longer")],
)
def test_a_program_that_cannot_tell_refuses(
    monkeypatch: pytest.MonkeyPatch, raised: str, reason: str
) -> None:
    def last_line(argv: list[str], *, timeout: float) -> tuple[int, str]:
        raise IssuError(raised)

    monkeypatch.setattr(trust, "last_line", last_line)
    [found] = trust.verity("/dev/sdx1", SEALED)
    assert reason in found.text


def test_one_that_says_nothing_is_told_by_its_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust, "last_line", lambda argv, *, timeout: (3, ""))
    [found] = trust.verity("/dev/sdx1", SEALED)
    assert "exit 3" in found.text
