"""The dead man's switch on a real kernel: hardware (QEMU's i6300esb), or else softdog.

A new root that hangs, or whose program of ours is stopped, is reset, and the machine is on the old
root; without a watchdog it hangs on. One that is not healthy goes back under its eyes, and then it
is as it was found; that it is so after acceptance is shown in test_continuity.py. One guest for
all, since each boot takes long where it is emulated.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rig import traces
from tests.rig.wait import until

from . import network
from .channel import Lost
from .guest import BOOT_SEC, ENDED, READY, UPGRADE_SEC, Guest, guest

SUITE = "trixie"  # the kernel of Debian 12 has no driver for the hardware
SECONDS = 45  # twice what the switch takes in an emulated guest on a busy machine; no default
SETTINGS = """\
[switch]
strategy = "{strategy}"
watchdog = "{seconds}s"
[accept]
program-timeout = "5min"
"""
CLASS = "/sys/class/watchdog"
STATE = f"cat {CLASS}/watchdog0/state {CLASS}/watchdog0/timeout"
# What is there, and the only one.
KINDS = {
    "hardware": ("modprobe i6300esb", "i6300ESB timer"),
    "softdog": ("true", ""),  # the upgrade loads it
}
NONE = "modprobe -r softdog; modprobe -r i6300esb"
# Runs when an upgrade has been accepted, or has come back.
# It takes longer than the watchdog waits, if one is armed: somebody writes to it.
LOOK = f"""\
#!/bin/sh
{STATE} >/run/seen.new
mv /run/seen.new /run/seen
case $(cat /run/seen) in active*) sleep {SECONDS + 5};; esac
"""
ILL = "#!/bin/sh\ntest ! -e /etc/ill\n"
# issu-arrive.service does not come to its own program for as long as the root has this file.
HANG = """\
[Service]
ExecStartPre=/bin/sh -c 'while [ -e /etc/hang ]; do sleep 0.2; done'
TimeoutStartSec=infinity
"""
CLOSED = "watchdog did not stop!"  # one that runs was closed: nobody writes to it from here on
BOOTS = "Linux version"
BOOT_ID = "cat /proc/sys/kernel/random/boot_id"
SLACK_SEC = 10.0  # of the device's own clock, and until a kernel that boots has a console
ON_OTHER = "mount {disk} /mnt; {script}; umount /mnt"
BACK = "while [ -e /run/issu/record.json ] || [ -e /run/issu/way-back.json ]; do sleep 0.2; done"


def customize(top: Path) -> None:
    """Programs that look at the watchdog, and ways to be no good."""
    programs = {"accept.d/10-look": LOOK, "rollback.d/10-look": LOOK, "verify.d/10-ill": ILL}
    for name, text in programs.items():
        program = top / "etc/issu" / name
        program.parent.mkdir(parents=True)
        program.write_text(text)
        program.chmod(0o755)
    drop_in = top / "etc/systemd/system/issu-arrive.service.d/hang.conf"
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text(HANG)


@pytest.fixture(scope="module")
def g() -> Iterator[Guest]:
    """A guest that its watchdog resets."""
    with (
        traces.workspace() as work,
        guest(
            work, (SUITE, SUITE), kernel_of=SUITE, customize=[network.ifupdown, customize],
            options="-action reboot=reset,watchdog=reset",
        ) as made,
    ):  # fmt: skip
        yield made


def configure(g: Guest, strategy: str, seconds: int = SECONDS, kind: str = "") -> None:
    """Settings for the next upgrade, and a watchdog of that kind."""
    g.configure(SETTINGS.format(strategy=strategy, seconds=seconds))
    script, identity = KINDS[kind] if kind else ("true", "")
    g.run(f"{NONE}; {script}")
    assert g.run(f"cat {CLASS}/*/identity 2>/dev/null || :").strip() == identity


def on_other(g: Guest, script: str) -> None:
    """Change the root that does not run."""
    g.run(ON_OTHER.format(disk=g.other(), script=script))


def said(g: Guest, words: str) -> int:
    """How often the kernel has said something on the console."""
    return g.console.read_text(errors="replace").count(words)


def start(g: Guest) -> tuple[str, str]:
    """Ask for an upgrade; the root that is left, and the boot's id."""
    here, boot_id = g.here(), g.run(BOOT_ID)
    g.run(f"rm -f /run/seen; systemctl start --no-block issu@{g.other()}; true")
    return here, boot_id


def comes_up_again(g: Guest, old: str, boot_id: str) -> None:
    """Wait for the reset: the machine is on the old root, in service, and no upgrade runs."""
    g.root = g.channel.hello(SECONDS + BOOT_SEC)
    g.run(READY, BOOT_SEC)
    assert g.here() == old
    assert g.run(BOOT_ID) != boot_id
    assert g.run("ls -A /run/issu").strip() == ""
    assert g.run("systemctl --failed --no-legend").strip() == ""


@pytest.mark.long
def test_rolled_back_it_is_as_it_was_found(g: Guest) -> None:
    """Armed there and back, over three closes without a stop: two switches, and the hand-over."""
    configure(g, "halt", kind="hardware")
    before, closes = g.run(STATE), said(g, CLOSED)
    on_other(g, "touch /mnt/etc/ill")
    old, boot_id = start(g)
    for _ in range(2):
        g.root = g.channel.hello(UPGRADE_SEC)
    g.run(BACK, UPGRADE_SEC)
    report = json.loads(g.run("issu report --json"))
    assert report["result"] == "accepted", report
    assert "10-ill ended with 1" in report["way_back"]["reason"]
    assert (g.here(), g.run(BOOT_ID)) == (old, boot_id)
    assert g.run("cat /run/seen").split() == ["active", str(SECONDS)]
    assert g.run(STATE) == before
    assert before.split()[0] == "inactive"
    assert said(g, CLOSED) == closes + 3
    on_other(g, "rm /mnt/etc/ill")


def test_a_new_root_that_hangs_is_reset(g: Guest) -> None:
    configure(g, "halt", kind="softdog")
    on_other(g, "touch /mnt/etc/hang")
    closes, boots = said(g, CLOSED), said(g, BOOTS)
    old, boot_id = start(g)
    until(lambda: said(g, CLOSED) > closes, UPGRADE_SEC, "the agent is gone", detail=g.tail)
    begin = time.monotonic()
    until(lambda: said(g, BOOTS) > boots, SECONDS + SLACK_SEC, "the reset", detail=g.tail)
    assert time.monotonic() - begin > SECONDS - SLACK_SEC
    comes_up_again(g, old, boot_id)
    on_other(g, "rm /mnt/etc/hang")


@pytest.mark.long
def test_a_stopped_program_of_ours_is_reset(g: Guest) -> None:
    """SIGSTOP for the one process that is at work; the child that writes for it runs on."""
    configure(g, "live", kind="hardware")
    old, boot_id = start(g)
    g.root = g.channel.hello(UPGRADE_SEC)
    g.run("until [ -e /run/seen ]; do sleep 0.2; done", UPGRADE_SEC)
    assert g.here() != old
    g.run("systemctl kill --kill-whom=main --signal=STOP issu-arrive.service")
    comes_up_again(g, old, boot_id)


def test_without_a_watchdog_it_hangs_on(g: Guest) -> None:
    """The control, and the last: it takes more than the watchdog's time, and then goes on."""
    configure(g, "live", 0)
    on_other(g, "touch /mnt/etc/hang")
    other = g.other()
    _, boot_id = start(g)
    g.run(f"until [ $(findmnt -no SOURCE /) = {other} ]; do sleep 0.2; done", UPGRADE_SEC)
    with pytest.raises(Lost):
        g.channel.hello(SECONDS + SLACK_SEC)
    assert g.run(BOOT_ID) == boot_id
    assert g.run("systemctl is-active issu-arrive.service", check=False).strip() == "activating"
    g.run("rm /etc/hang")
    g.root = g.channel.hello(UPGRADE_SEC)
    g.run(ENDED, UPGRADE_SEC)
    assert "ACCEPTED" in g.run("issu report")
