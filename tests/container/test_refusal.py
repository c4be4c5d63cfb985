"""What is refused is refused with its reason, in every place one looks, and changes nothing."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.rig import sh, traces, wait
from tests.rig.machine import Machine

from .element import (
    GATE,
    Element,
    change,
    changes,
    element,
    gate_first_boot,
    let_go,
    wait_blocked,
    write_settings,
)

PAIRS = [("bookworm", "trixie"), ("trixie", "bookworm")]
REFUSAL_SEC = 20
SMALL = 8 << 20  # bytes
SETTINGS = "/etc/issu/conf.d/50-test.toml"
LINK = "/dev/disk/by-uuid/0bad-cafe"  # to the target


@dataclass(frozen=True)
class Bench:
    """The element, and devices that are no target."""

    e: Element
    blank: Path  # no file system
    plain: Path  # a file system without an OS
    torn: Path  # blkid knows the file system, but it does not mount
    sealed: Path  # read-only


def images(work: Path) -> list[Path]:
    """The images of `Bench.blank`, `plain` and `torn`."""
    made = [work / name for name in ("blank.img", "plain.img", "torn.img")]
    for path in made:
        with path.open("wb") as file:
            file.truncate(SMALL)
    for path in made[1:]:
        sh.run(["mke2fs", "-q", "-t", "ext4", "-b", "1024", path])
    with made[2].open("r+b") as file:  # the group descriptors, behind the superblock
        file.seek(2048)
        file.write(b"\xff" * 1024)
    return made


@contextmanager
def sealed(machine: Machine, image: Path) -> Iterator[Path]:
    """A read-only loop device over `image` with a node in the machine."""
    device = Path(sh.output(["losetup", "--find", "--show", "--read-only", image]))
    try:
        numbers = sh.output(["stat", "-c", "%Hr %Lr", device]).split()
        machine.run(["mknod", device, "b", *numbers])
        yield device
    finally:
        sh.run(["losetup", "--detach", device])


@pytest.fixture(scope="module", params=PAIRS, ids="-".join)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """One machine for every refusal: it must be as good as new after each."""
    source, target = request.param
    with (
        traces.workspace() as work,
        element(work, source, target, in_target=gate_first_boot, more=images(work)) as e,
        sealed(e.machine, work / "plain.img") as read_only,
    ):
        e.machine.systemctl("daemon-reload")  # PID 1 looks what is mounted
        e.machine.path("/dev/disk/by-uuid").mkdir(parents=True)
        e.machine.path(LINK).symlink_to(e.target)
        yield Bench(e, *e.machine.devices[2:5], read_only)


@pytest.fixture(autouse=True)
def keep_logs(bench: Bench, request: pytest.FixtureRequest) -> Iterator[None]:
    """A machine of several tests keeps its logs when one of them fails."""
    failed = request.session.testsfailed
    yield
    bench.e.machine.failed |= request.session.testsfailed > failed


def instance(name: str) -> str:
    """The unit that `systemctl start issu@NAME` means: a slash becomes a dash, no more."""
    return f"issu@{name.replace('/', '-')}.service"


def assert_refused(e: Element, name: str, *reason: str, unit: str = "") -> str:
    """`systemctl start` refuses, says why wherever one looks, and nothing has changed."""
    unit = unit or instance(name)
    before, ids = e.state(), set(e.ids())
    start = ["systemctl", "start", f"issu@{name}"]
    try:
        done = e.machine.run(start, check=False, timeout=REFUSAL_SEC)
    except sh.CommandError:  # it stands at the gate
        e.machine.systemctl("stop", unit)
        raise
    assert done.returncode != 0, done.stdout + done.stderr
    assert_unchanged(e, before)
    said = {
        "status": e.machine.systemctl("show", "--property=StatusText", "--value", unit),
        "systemctl status": e.machine.systemctl("status", "--lines=0", unit, check=False),
        "journal": e.machine.journal(f"--unit={unit}"),
    }
    new = set(e.ids()) - ids
    assert len(new) == 1, f"no report: {said}"
    report = e.report(new.pop())
    said["report"] = report["error"]
    assert report["result"] == "refused", report
    for place, text in said.items():
        assert "refused" in text or place == "report", (place, text)
        assert [word for word in reason if word not in text] == [], (place, text)
    assert report["t2_usec"] == 0
    assert report["units"] == []
    return str(report["error"])


def assert_unchanged(e: Element, before: dict[str, Any]) -> None:
    """The state is what it was, once PID 1 has noticed which mounts are gone."""
    with suppress(wait.Timeout):
        e.machine.wait_for(lambda: e.state() == before, 5, "the state is as it was")
    assert changes(before, e.state()) == []


# -- what is named -------------------------------------------------------------------------------


def test_no_such_device(bench: Bench) -> None:
    assert_refused(bench.e, "/dev/loop999", "/dev/loop999: no such device", "lsblk")


def test_regular_file(bench: Bench) -> None:
    assert_refused(bench.e, "/etc/hostname", "/etc/hostname is not a block device")


def test_name_with_dashes_as_it_stands(bench: Bench) -> None:
    """systemctl(1) turns its slashes into dashes, and so nobody knows which were dashes."""
    words = ("no such device", "a name with a dash needs", "systemd-escape --template=issu@")
    assert_refused(bench.e, LINK, *words)


def test_own_root(bench: Bench) -> None:
    assert_refused(bench.e, bench.e.source, f"{bench.e.source} holds the running root")


# -- what is on it -------------------------------------------------------------------------------


def test_no_file_system(bench: Bench) -> None:
    assert_refused(bench.e, str(bench.blank), f"{bench.blank} holds no file system")


def test_no_operating_system(bench: Bench) -> None:
    assert_refused(bench.e, str(bench.plain), f"{bench.plain} holds no operating system")


def test_does_not_mount(bench: Bench) -> None:
    assert_refused(bench.e, str(bench.torn), f"{bench.torn} does not mount", f"fsck {bench.torn}")


def test_read_only_device(bench: Bench) -> None:
    assert_refused(bench.e, str(bench.sealed), f"{bench.sealed} is read-only")


def wait_mount(e: Element, state: str) -> None:
    """Wait until PID 1 has seen what became of /srv."""
    shown = ["systemctl", "show", "--property=ActiveState", "--value", "srv.mount"]
    e.machine.wait_for(lambda: e.machine.run(shown).stdout.strip() == state, 10, f"/srv {state}")


@pytest.mark.parametrize("options", ["rw", "rw,nosuid"])
def test_mounted_elsewhere(bench: Bench, options: str) -> None:
    run = bench.e.machine.run
    run(["mount", "-o", options, bench.e.target, "/srv"])
    wait_mount(bench.e, "active")
    try:
        reason = f"{bench.e.target} is mounted read-write at /srv"
        assert_refused(bench.e, bench.e.target, reason, "umount /srv")
    finally:
        run(["umount", "/srv"])
        wait_mount(bench.e, "inactive")


INIT = "usr/lib/systemd/systemd"
IN_TARGET = {
    "no-os-release": (
        "mv etc/os-release etc/.o; mv usr/lib/os-release usr/lib/.o",
        "mv etc/.o etc/os-release; mv usr/lib/.o usr/lib/os-release",
        ["holds no operating system", "os-release"],
    ),
    "no-init": (f"mv {INIT} good", f"mv good {INIT}", ["has no /usr/lib/systemd/systemd"]),
    "other-architecture": (
        # e_machine, elf(5): 183 is AArch64
        rf"cp -a {INIT} good; printf '\267\0' | dd of={INIT} bs=1 seek=18 conv=notrunc",
        f"mv good {INIT}",
        ["is for another machine", "ELF machine 183", "for this architecture"],
    ),
    "init-does-not-run": (
        "for lib in usr/lib/*/systemd/libsystemd-core-*; do cp -a $lib $lib.good; "
        "truncate -s 4096 $lib; done",
        "for lib in usr/lib/*/systemd/libsystemd-core-*.good; do mv $lib ${lib%.good}; done",
        ["/usr/lib/systemd/systemd", "does not run"],
    ),
    "init-is-a-script": (
        rf"mv {INIT} good; printf '#!/bin/sh\nexit 1\n' >{INIT}; chmod 755 {INIT}",
        f"mv good {INIT}",
        ["/usr/lib/systemd/systemd"],
    ),
    "not-merged-usr": (
        "rm bin; mkdir bin",
        "rmdir bin; ln -s usr/bin bin",
        ["is not a link into /usr", "usrmerge"],
    ),
    "without-issu-systemd": (
        "mv usr/bin/issu good",
        "mv good usr/bin/issu",
        ["issu-systemd is not installed"],
    ),
    "half-installed": (
        "mv usr/lib/python3/dist-packages/issu_systemd good",
        "mv good usr/lib/python3/dist-packages/issu_systemd",
        ["issu-systemd is not installed"],
    ),
    "wrong-settings": (
        "mkdir -p etc/issu/conf.d; echo '[release]\ncolour = 1' >etc/issu/conf.d/bad.toml",
        "rm etc/issu/conf.d/bad.toml",
        ["etc/issu/conf.d/bad.toml", "[release] colour is not a setting"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", IN_TARGET)
def test_target_unfit(bench: Bench, case: str) -> None:
    spoil, mend, reason = IN_TARGET[case]
    change(bench.e.target, spoil)
    try:
        assert_refused(bench.e, bench.e.target, bench.e.target, *reason)
    finally:
        change(bench.e.target, mend)


# -- what is set ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[release]\ncolour = 1\n", [SETTINGS, "[release] colour is not a setting"]),
        ("[paint]\ncolour = 1\n", [SETTINGS, "[paint] colour is not a setting"]),
        ('[release]\nstop-timeout = "soon"\n', [SETTINGS, "[release] stop-timeout"]),
        ("[release\n", [SETTINGS]),
        ('[carry]\nmounts = ["/opt"]\n', ["/opt is to be carried but nothing is mounted there"]),
        ('[switch]\nstrategy = "warm"\n', [SETTINGS, "[switch] strategy", "live"]),
    ],
)
def test_settings(bench: Bench, text: str, reason: list[str]) -> None:
    write_settings(bench.e.machine.path("/"), text)
    try:
        assert_refused(bench.e, bench.e.target, *reason)
    finally:
        bench.e.machine.path(SETTINGS).unlink()


# -- what there is room for ----------------------------------------------------------------------


@contextmanager
def run_limited(machine: Machine, limit: str) -> Iterator[None]:
    """/run with a limit of the tmpfs for a while; its old size afterwards."""
    was = machine.run(["findmnt", "-no", "FS-OPTIONS", "/run"]).stdout.strip().split(",")
    old = [o for o in was if o.startswith(("size=", "nr_inodes="))]
    machine.run(["mount", "-o", f"remount,{limit}", "/run"])
    try:
        yield
    finally:
        machine.path("/run/filler").unlink(missing_ok=True)
        machine.run(["mount", "-o", f"remount,{','.join(old)}", "/run"])


@pytest.mark.parametrize("left", [3, 0])
def test_run_is_full(bench: Bench, left: int) -> None:
    machine = bench.e.machine
    with run_limited(machine, "size=64M"):
        free = int(machine.run(["stat", "-fc", "%a", "/run"]).stdout) * 4096
        machine.run(["fallocate", "-l", str(free - (left << 20)), "/run/filler"])
        # Others write there too.
        words = f"/run has {max(0, left - 1)} MiB free, 32 MiB are needed"
        assert_refused(bench.e, bench.e.target, words)


def test_run_has_no_inodes(bench: Bench) -> None:
    machine = bench.e.machine
    used = int(machine.run(["df", "--output=iused", "/run"]).stdout.split()[1])
    with run_limited(machine, f"nr_inodes={used + 20}"):
        assert_refused(bench.e, bench.e.target, "/run", "inodes")


# -- the command ---------------------------------------------------------------------------------


def test_command(bench: Bench) -> None:
    """`issu start` ends with 3 and prints the reason; status and report tell it afterwards."""
    run, ids = bench.e.machine.run, set(bench.e.ids())
    reason = f"{bench.plain} holds no operating system"
    before = bench.e.state()
    done = run(["issu", "start", bench.plain], check=False)
    assert done.returncode == 3, done.stdout + done.stderr
    assert reason in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert_unchanged(bench.e, before)
    id = (set(bench.e.ids()) - ids).pop()
    assert reason in run(["issu", "report", id]).stdout
    status = run(["issu", "status"]).stdout
    assert f"{id}: refused" in status
    assert reason in status
    assert json.loads(run(["issu", "report", "--json"]).stdout)["id"] == id


def test_command_refuses_a_path_with_dashes_by_its_name(bench: Bench) -> None:
    """It escapes the name itself, so a dash is no trouble."""
    done = bench.e.machine.run(["issu", "start", "/dev/no-such-disk"], check=False)
    assert done.returncode == 2, done.stdout + done.stderr  # as issu(1) has it of a wrong argument
    assert "/dev/no-such-disk: no such device" in done.stdout + done.stderr


# -- a second one, and the good one --------------------------------------------------------------


def test_second_start_and_then_the_good_one(bench: Bench) -> None:
    """While one stages another is refused at once; the one that runs does not notice."""
    e, machine = bench.e, bench.e.machine
    assert "failed" in machine.systemctl("list-units", "--all", "--plain", "issu@*")
    ids = earlier = set(e.ids())
    first = machine.popen(["systemctl", "start", f"issu@{e.target}"])
    wait_blocked(machine, GATE)
    story = json.loads(machine.path("/run/issu/record.json").read_text())

    by_link = machine.run(["systemd-escape", "--template=issu@.service", "--path", LINK])
    unit = by_link.stdout.strip()
    refused = ["another upgrade", "issu status"]
    assert_refused(e, unit.removeprefix("issu@"), *refused, unit=unit)
    assert_refused(e, str(bench.plain), *refused)
    done = machine.run(["issu", "start", LINK], check=False)
    assert done.returncode == 6, done.stdout + done.stderr
    assert "another upgrade" in done.stdout + done.stderr
    assert f"{story['id']}: stage" in machine.run(["issu", "status"]).stdout
    assert json.loads(machine.path("/run/issu/record.json").read_text()) == story
    assert first.poll() is None
    ids = set(e.ids()) | ids

    let_go(machine, f"/sysroot{GATE}")
    assert first.wait(60) == 0
    report = e.wait_end(ids)
    assert report["id"] == story["id"]
    assert report["result"] == "accepted", report
    assert machine.state() == "running"
    assert machine.systemctl("--failed", "--no-legend") == ""
    assert earlier <= set(e.ids())  # the refusals before it went along
