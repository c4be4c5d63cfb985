"""Only acceptance changes what the next boot starts; and what a container has no watchdog for."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.rig import sh, traces

from .back import change_target, wait_back
from .element import Element, element, write_settings, write_unit
from .kinds import SLEEP
from .whole import check_of

PAIRS = [("bookworm", "trixie"), ("trixie", "bookworm")]
SETTINGS = """\
[switch]
strategy = "{strategy}"
[live]
timeout = "10s"
[carry]
mounts = ["/boot"]
[accept]
boot-loader = "{boot_loader}"
program-timeout = "10s"
"""
VERIFY = "/etc/issu/verify.d/50-look"
CONFIG = """\
DEFAULT a
TIMEOUT 50

LABEL a
    APPEND ro root={a} quiet
LABEL b
    APPEND ro root={b} quiet
"""
# A site's own: what it is told is kept, and it fails.
OWN = "#!/bin/sh\necho $ISSU_ID $ISSU_RESULT $(cat /etc/issu-root) >>/boot/{name}\n{then}\n"


def settings(strategy: str, boot_loader: str) -> str:
    return SETTINGS.format(strategy=strategy, boot_loader=boot_loader)


def customize(strategy: str) -> Any:
    def change(root: Path) -> None:
        write_settings(root, settings(strategy, "extlinux"))
        write_unit(root, "frail.service", f"[Service]\nExecStart={SLEEP}\n")
        for name, then in (("accept", "echo no pager; exit 9"), ("rollback", "")):
            program = root / f"etc/issu/{name}.d/90-site"
            program.parent.mkdir(parents=True)
            program.write_text(OWN.format(name=name, then=then))
            program.chmod(0o755)

    return change


def boot_disk(work: Path) -> Path:
    """A file system for /boot."""
    made = work / "boot.img"
    sh.run(["mke2fs", "-q", "-t", "ext4", made, "16M"])
    return made


@contextmanager
def element_with_boot(source: str, target: str, strategy: str) -> Iterator[Element]:
    """An element with a third disk for /boot, whose roots take a strategy."""
    change = customize(strategy)
    with (
        traces.workspace() as work,
        element(
            work, source, target, in_source=change, in_target=change, more=[boot_disk(work)]
        ) as e,
    ):
        yield e


def mount_boot(e: Element) -> Path:
    """Mount it in the machine, with one entry a root in extlinux.conf; the file."""
    e.machine.run(["mount", e.machine.devices[2], "/boot"])
    ask = ["blkid", "--probe", "--output", "value", "--match-tag", "UUID"]
    a, b = (e.machine.run([*ask, disk]).stdout.strip() for disk in (e.source, e.target))
    config = e.machine.path("/boot/extlinux/extlinux.conf")
    config.parent.mkdir()
    config.write_text(CONFIG.format(a=f"UUID={a}", b=f"UUID={b}"))
    return Path("/boot/extlinux/extlinux.conf")


def default(e: Element) -> str:
    """What the next boot starts."""
    lines = e.machine.path("/boot/extlinux/extlinux.conf").read_text().splitlines()
    return lines[0].removeprefix("DEFAULT ")


def told(e: Element, name: str) -> list[str]:
    """What the site's own program was told, a line each time it ran."""
    place = e.machine.path(f"/boot/{name}")
    return place.read_text().splitlines() if place.exists() else []


def break_target(e: Element, unit: str) -> None:
    """Give the other root another frail.service."""
    script = 'mount "$0" /mnt; printf %s "$1" >/mnt/etc/systemd/system/frail.service; umount /mnt'
    e.machine.run(["sh", "-euc", script, e.target, unit])


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_only_acceptance_changes_what_the_next_boot_starts(source: str, target: str) -> None:
    with element_with_boot(source, target, "live") as e:
        config = e.machine.path(mount_boot(e))
        first = config.stat().st_ino, config.read_bytes()

        assert e.start(e.source)[0] != 0
        assert e.report()["result"] == "refused"
        assert (config.stat().st_ino, config.read_bytes()) == first
        assert (told(e, "accept"), told(e, "rollback")) == ([], [])

        break_target(e, "[Service]\nType=exec\nExecStartPre=/bin/false\nExecStart=/bin/true\n")
        report = e.upgrade()
        assert report["result"] == "rolled-back"
        assert (config.stat().st_ino, config.read_bytes()) == first
        assert told(e, "accept") == []
        assert told(e, "rollback") == [f"{report['id']} rolled-back {source}"]
        assert "hook" not in {found["id"] for found in report["findings"]}

        break_target(e, f"[Service]\nExecStart={SLEEP}\n")
        report = e.upgrade()
        assert report["result"] == "accepted", report
        assert default(e) == "b"
        assert told(e, "accept") == [f"{report['id']} accepted {target}"]
        [hook] = [found for found in report["findings"] if found["id"] == "hook"]
        assert "/etc/issu/accept.d/90-site ended with 9: no pager" in hook["text"]
        check_of(e, target, e.source)

        # The control: without the setting nothing is changed, not even by acceptance.
        write_settings(e.machine.path("/"), settings("live", "none"))
        script = 'mount "$0" /mnt; rm /mnt/etc/issu/conf.d/50-test.toml; umount /mnt'
        e.machine.run(["sh", "-euc", script, e.source])
        report = e.upgrade(e.source)
        assert report["result"] == "accepted", report
        assert default(e) == "b"
        assert len(told(e, "accept")) == 2


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_with_halt_there_and_back(source: str, target: str) -> None:
    """The way back is an upgrade, and yet what was never accepted leaves the boot loader alone.

    What was accepted and is taken back does not: then the first root is set again.
    """
    with element_with_boot(source, target, "halt") as e:
        config = e.machine.path(mount_boot(e))
        first = config.stat().st_ino, config.read_bytes()
        change_target(e, {VERIFY: "#!/bin/sh\nexit 1\n"})
        known = set(e.ids())
        assert e.start()[0] == 0
        there, back = wait_back(e, known)
        assert (there["result"], back["result"]) == ("rolled-back", "accepted")
        assert (config.stat().st_ino, config.read_bytes()) == first
        assert told(e, "accept") == []
        assert told(e, "rollback") == [f"{back['id']} rolled-back {source}"]

        change_target(e, {VERIFY: ""})
        assert e.upgrade()["result"] == "accepted"
        assert default(e) == "b"
        known = set(e.ids())
        e.machine.run(["issu", "rollback"])
        back = e.wait_end(known)
        assert back["result"] == "accepted", back["error"]
        assert default(e) == "a"
        assert told(e, "rollback")[1:] == [f"{back['id']} rolled-back {source}"]
        assert len(told(e, "accept")) == 1


def test_a_container_has_no_watchdog(tmp_path: Path) -> None:
    with element(tmp_path) as e:
        settings = "[switch]\nwatchdog = '60s'\n"
        write_settings(e.machine.path("/"), settings)
        before = e.state()
        status, printed = e.start()
        assert status != 0, printed
        report = e.report()
        assert report["result"] == "refused"
        assert {f["id"] for f in report["findings"] if f["severity"] == "block"} == {"watchdog"}
        assert "softdog" in report["error"]
        assert e.state() == before
