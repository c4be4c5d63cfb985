"""Commands that break forwarding are told from those that do not."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from issu_systemd import newroot, plan, stopactions
from issu_systemd.evidence import Action


@pytest.mark.parametrize(
    ("line", "does"),
    [
        ("/usr/sbin/nft flush ruleset", True),
        ("/usr/sbin/nft -f /etc/nftables.conf", False),
        ("iptables -F", True),
        ("/sbin/ip6tables -t nat --flush", True),
        ("iptables -A FORWARD -j ACCEPT", False),
        ("/sbin/ifdown -a --exclude=lo", True),
        ("ifup -a", False),
        ("ip link set dev eth0 down", True),
        ("ip -n a link set eth0 down", True),
        ("ip link del br0", True),
        ("ip link set dev eth0 up", False),
        ("ip route del default", False),
        ("rmmod asic", True),
        ("modprobe -r asic", True),
        ("modprobe asic", False),
        ("sh -c 'umount /srv'", True),
        ("mount /srv", False),
        ("ethtool --reset eth0 all", True),
        ("ethtool -k eth0", False),
        ("devlink dev reload pci/0000:01:00.0", True),
        ("devlink dev show", False),
        ("/usr/sbin/umountd", False),
    ],
)
def test_breaks(line: str, *, does: bool) -> None:
    assert stopactions.breaks(line) == does


def test_a_line_made_to_keep_us_busy() -> None:
    start = time.monotonic()
    assert not stopactions.breaks("ip link set " * 8000)
    assert time.monotonic() - start < 5


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "bin").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("text", "culprit"),
    [
        ("#!/bin/sh\n# rmmod a\necho a\n  rmmod asic\n", "rmmod asic"),
        ("#!/usr/bin/env bash\nip link del a\n", "ip link del a"),
        ("#!/bin/sh\n# rmmod a\n", ""),
        ("#!/usr/bin/python3\nrmmod = 1\n", ""),
        ("rmmod a\n", ""),
        ("#!/bin/sh\n" + "#" * stopactions.MAX_SCRIPT + "\nrmmod a\n", ""),
    ],
    ids=["sh", "bash", "comment", "python", "no-script", "too-long"],
)
def test_culprit(root: Path, text: str, culprit: str) -> None:
    (root / "bin/stop").write_text(text)
    assert stopactions.culprit_in(root, "/bin/stop") == culprit


def test_what_is_no_script(root: Path) -> None:
    os.mkfifo(root / "bin/pipe")
    (root / "bin/loop").symlink_to("loop")
    (root / "bin/out").symlink_to("../../../bin/pipe")
    (root / "bin/raw").write_bytes(b"#!/bin/sh\n\xff\xfe rmmod\n")
    for name in ("pipe", "loop", "out", "none"):
        assert stopactions.culprit_in(root, f"/bin/{name}") == ""
    assert "rmmod" in stopactions.culprit_in(root, "/bin/raw")


def test_words_of_an_odd_line() -> None:
    assert stopactions.words_of('a "b c"') == ["a", "b c"]
    assert stopactions.words_of('a "b c') == ["a", '"b', "c"]


# --- a plan -------------------------------------------------------------------------------------

DRY = """
\t→ Unit new.service:
\t\tUnit Load State: loaded
\t\t→ ExecStart:
\t\t\tCommand Line: /usr/sbin/nft flush ruleset
\t\t→ ExecStop:
\t\t\tCommand Line: /sbin/rmmod b
\t-> Unit again.service:
\t\tUnit Load State: loaded
\t\t-> ExecStartPre:
\t\t\tCommand Line: /bin/stop --now
\t-> Unit kept.service:
\t\t-> ExecStart:
\t\t\tCommand Line: /sbin/rmmod c
"""


class Manager:
    """PID 1 as far as it is asked: what each unit runs when it stops."""

    def properties(self, unit: str, interface: str) -> dict[str, Any]:
        words = {
            "gone.service": [b"/sbin/ifdown", b"-a"], "again.service": [b"/bin/true"],
            "kept.service": [b"/sbin/ifdown", b"b"], "a.socket": [b"/sbin/rmmod", b"a"],
        }[unit]  # fmt: skip
        name = "ExecStopPost" if interface == "Socket" else "ExecStop"
        return {name: [(words[0], words, False, 0)]}


def test_scan(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "bin/stop").write_text("#!/bin/sh\nmodprobe -r asic\n")
    monkeypatch.setattr(newroot, "dry_run", lambda _: DRY)
    steps = [
        plan.Step("a.socket", plan.GONE, ""),
        plan.Step("again.service", plan.RESTARTED, ""),
        plan.Step("gone.service", plan.GONE, ""),
        plan.Step("kept.service", plan.KEPT, ""),
        plan.Step("new.service", plan.NEW, ""),
        plan.Step("srv.mount", plan.GONE, ""),
    ]
    assert stopactions.scan(Manager(), root, steps) == (  # type: ignore[arg-type]
        Action("a.socket", "/sbin/rmmod a", "", starts=False),
        Action("gone.service", "/sbin/ifdown -a", "", starts=False),
        Action("new.service", "/usr/sbin/nft flush ruleset", "", starts=True),
        Action("again.service", "/bin/stop --now", "/bin/stop: modprobe -r asic", starts=True),
    )
    kept = [step._replace(action=plan.KEPT) for step in steps]
    assert stopactions.scan(Manager(), root, kept) == ()  # type: ignore[arg-type]
