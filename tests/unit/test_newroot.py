"""What the new root offers, out of what its systemd prints."""

from __future__ import annotations

from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from issu_systemd import newroot
from issu_systemd.errors import IssuError

DATA = Path(__file__).parent / "data"
DNSMASQ = "/usr/share/dnsmasq/systemd-helper"
NGINX = ["/sbin/start-stop-daemon", "/usr/sbin/nginx"]
DRY = """-> By units:
\t→ Unit nginx.service:
\t\tUnit Load State: loaded
\t\t-> Job 3:
\t\t\tAction: nginx.service -> start
\t→ Unit gone.service:
\t\tUnit Load State: not-found
\t→ Unit echo.socket:
\t\tUnit Load State: loaded
\t\tListenStream: /run/echo
\t\tListenStream: 7
\t→ Unit srv.mount:
\t\tUnit Load State: loaded
\t\tWhere: /srv
\t\tWhat: /dev/sdc1
-> By jobs:
\t-> Job 3:
\t\tAction: nginx.service -> start
\t\tAction: old.service -> stop
"""
FILES = """echo@.service static -
bad.service masked enabled
alias.service alias -
run.service enabled enabled
"""


def test_an_offer() -> None:
    offer = newroot.parse(DRY, FILES)
    assert offer.wanted == {"nginx.service"}
    assert offer.known == {
        *("nginx.service", "echo.socket", "srv.mount"),
        *("echo@.service", "alias.service", "run.service"),
    }
    assert offer.mounts == {"/srv": "/dev/sdc1"}
    assert offer.listens == {"echo.socket": ("/run/echo", "7")}
    assert offer.dry


@pytest.mark.parametrize(
    ("unit", "there"),
    [
        ("nginx.service", True),
        ("echo@7.service", True),
        ("bad.service", False),
        ("gone.service", False),
        ("echo@7.socket", False),
        ("other@7.service", False),
    ],
)
def test_what_it_has(unit: str, *, there: bool) -> None:
    assert newroot.parse(DRY, FILES).has(unit) is there


def test_both_forms_of_the_arrow() -> None:
    assert newroot.parse(DRY.replace("→", "->"), "") == newroot.parse(DRY, "")


def test_nothing_is_said() -> None:
    offer = newroot.parse("", "")
    assert not offer.dry
    assert not offer.known


def answer(monkeypatch: pytest.MonkeyPatch, text: str) -> list[list[str]]:
    """Let every program of the tree print `text`; the list fills with what is run."""
    asked: list[list[str]] = []

    def run_inside(root: Path, argv: list[str], **how: Any) -> CompletedProcess[str]:
        asked.append([str(word) for word in argv])
        return CompletedProcess(argv, 0, text, "")

    monkeypatch.setattr(newroot, "run_inside", run_inside)
    return asked


@pytest.mark.parametrize(
    ("version", "journald"),
    [("252", "/lib/systemd/systemd-journald"), ("257", "/usr/lib/systemd/systemd-journald")],
)
def test_the_programs_of_the_default_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, journald: str
) -> None:
    plan = (DATA / f"systemd-test-{version}.txt").read_text()
    asked = answer(monkeypatch, plan)
    assert plan.count("Command Line: journalctl ") == 2  # a name without a path is left out
    assert newroot.commands(tmp_path) == sorted(["/bin/kill", journald, DNSMASQ, *NGINX])
    assert asked[0][:2] == ["/usr/lib/systemd/systemd", "--test"]
    newroot.ask(tmp_path)
    assert [words[0] for words in asked] == ["/usr/lib/systemd/systemd", "systemctl"]  # once each


def test_what_cannot_be_had_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def run_inside(*args: Any, **how: Any) -> CompletedProcess[str]:
        raise IssuError("took longer than 60 s")

    monkeypatch.setattr(newroot, "run_inside", run_inside)
    assert newroot.ask(tmp_path) == newroot.Offer(dry=False)
    assert caplog.text.count("took longer than 60 s") == 2
