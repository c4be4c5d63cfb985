"""Image trust: what is asked of whom, in which order, and what is said when it is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from issu_systemd import mounts, run, trust
from issu_systemd.devices import Device
from issu_systemd.settings import Settings
from issu_systemd.trust import Doubts

DEVICE = Device("/dev/sdx1", 2065, "ext4", read_only=False)
HASH = "ab" * 32
SEALED = Settings(verity=HASH, verity_hashes="/dev/sdx2")
BOTH = Settings(verity=HASH, verity_hashes="/dev/sdx2", verify_command=("/yes", "-q"))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """What is done to the device, in order; every program but /no is content."""
    done: list[str] = []
    monkeypatch.setattr(
        mounts, "mount", lambda source, point, *, options, fstype: done.append(f"mount {options}")
    )
    monkeypatch.setattr(mounts, "remount", lambda point, options: done.append(f"to {options}"))

    def run_bounded(argv: list[str], *, timeout: float, keep: int) -> run.Done:
        done.append(" ".join(argv))
        return run.Done(int(argv[0] == "/no"), "asking\nbad\x1b signature\n")

    monkeypatch.setattr(trust, "run_bounded", run_bounded)
    return done


def test_nothing_is_executable_before_it_is_trusted(told: list[str]) -> None:
    assert trust.mount(DEVICE, Path("/x"), BOTH) == Doubts()
    assert told == [
        f"veritysetup verify /dev/sdx1 /dev/sdx2 {HASH}",
        "mount ro,nosuid,nodev,noexec",
        "/yes -q /dev/sdx1",
        "to ro,suid,dev,exec",
    ]


def test_without_either_the_order_is_the_same(told: list[str]) -> None:
    assert trust.mount(DEVICE, Path("/x"), Settings()) == Doubts()
    assert told == ["mount ro,nosuid,nodev,noexec", "to ro,suid,dev,exec"]


def test_a_refusal_leaves_it_not_executable(told: list[str]) -> None:
    found = trust.mount(DEVICE, Path("/x"), Settings(verify_command=("/no",)))
    assert found == Doubts(verify_command="/no: bad signature")
    assert told[-1] == "/no /dev/sdx1"


def test_a_wrong_hash_is_not_even_mounted_and_all_is_told(
    told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trust, "VERITYSETUP", "/no")
    found = trust.mount(DEVICE, Path("/x"), replace(BOTH, verify_command=("/no",)))
    assert found == Doubts("bad signature", "/no: bad signature")
    assert [step for step in told if not step.startswith("/no")] == []


def test_a_hash_without_a_hash_tree() -> None:
    assert "verity-hashes" in trust.verity("/dev/sdx1", Settings(verity=HASH))


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("exit 0", ""),
        ("exit 3", "exit 3"),
        ("echo checking; echo no seal; exit 1", "no seal"),
        ("printf 'red\\033[31m\\007\\n\\n'; exit 1", "red[31m"),
        ("echo asking; sleep 300", "it took longer than 0.3 s"),
        ("head -c 100M /dev/zero | tr '\\0' x; echo; echo enough; exit 1", "enough"),
    ],
)
def test_what_a_program_says(script: str, reason: str) -> None:
    quick = 300_000 if "sleep" in script else 60_000_000
    chosen = Settings(verify_command=("/bin/sh", "-c", script), trust_timeout_usec=quick)
    assert trust.command("/dev/sdx1", chosen) == (reason and f"/bin/sh: {reason}")


def test_a_program_that_is_not_there_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust, "VERITYSETUP", "/no/such")
    assert trust.verity("/dev/sdx1", SEALED) == "/no/such cannot be run: No such file or directory"


def test_how_long_it_may_take() -> None:
    assert trust.seconds(Settings()) == 0
    assert trust.seconds(SEALED) == SEALED.trust_timeout_usec / 1e6
    assert trust.seconds(BOTH) == 2 * trust.seconds(SEALED)
