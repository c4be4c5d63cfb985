"""Bad images are refused before anything is stopped: by preflight, in rehearsal, for lack of trust.

One machine, and one target that is spoiled and mended: after each refusal all is as it was. What
only the real switch would show is in other files.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from issu_systemd import oldroot
from tests.rig import archive, cache, sh, traces, wait

from .element import Element, changes, element, write_settings

PAIRS = [("bookworm", "trixie"), ("trixie", "bookworm")]
REFUSAL_SEC = 150  # two rehearsals, the second to tell whether the container is to blame
REHEARSE = '[stage]\nrehearse = true\nrehearse-timeout = "25s"\n'
SETTINGS = "/etc/issu/conf.d/50-test.toml"
INIT = "usr/lib/systemd/systemd"
# PID 1 of a bad image. Asked for its version or for a dry run it is systemd.
BAD_INIT = """
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv) {
    if (argc > 1 && strncmp(argv[1], "--", 2) == 0) {
        execv("/usr/lib/systemd/systemd.good", argv);
        return 1;
    }
    %s
}
"""
BAD_INITS = {"exits": "return 1;", "hangs": "for (;;) pause();"}
UNIT = "etc/systemd/system/bad.service"
NO = "etc/systemd/system/no.service"
OWN = "etc/issu/conf.d/99-bad.toml"  # the target's own [verify] units


@dataclass(frozen=True)
class Bench:
    """The element, a truncated root, and programs that are bad as PID 1."""

    e: Element
    torn: Path
    inits: dict[str, Path]


def bad_init(what: str) -> Path:
    """A statically linked bad PID 1."""
    text = BAD_INIT % BAD_INITS[what]

    def build(part: Path) -> None:
        source = part.with_suffix(".c")
        source.write_text(text)
        sh.run(["gcc", "-static", "-O2", "-Wall", "-Werror", "-Wl,-s", source, "-o", part])
        source.unlink()

    return cache.entry(f"bad-init-{what}-{cache.digest(text)}", build)


def truncated(work: Path) -> Path:
    """A file system of which the second half is missing."""
    path = work / "torn.img"
    sh.run(["mke2fs", "-q", "-t", "ext4", path, "64M"])
    with path.open("r+b") as file:
        file.truncate(32 << 20)
    return path


@pytest.fixture(scope="module", params=PAIRS, ids="-".join)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """One machine for every image: it must be as good as new after each."""
    source, target = request.param

    def in_source(root: Path) -> None:
        archive.add_tools(root, source)
        (root / "usr/local/sbin/check-image").write_text(CHECK)
        (root / "usr/local/sbin/check-image").chmod(0o755)
        write_settings(root, REHEARSE)

    with (
        traces.workspace() as work,
        element(work, source, target, in_source=in_source, more=[truncated(work)]) as e,
    ):
        yield Bench(e, e.machine.devices[2], {what: bad_init(what) for what in BAD_INITS})


@pytest.fixture(autouse=True)
def keep_logs(bench: Bench, request: pytest.FixtureRequest) -> Iterator[None]:
    """A machine of several tests keeps its logs when one of them fails."""
    failed = request.session.testsfailed
    yield
    bench.e.machine.failed |= request.session.testsfailed > failed


def change(device: str, script: str, *words: str) -> None:
    """Run a script in the file system on `device`, mounted for nobody else; the words are $2 on."""
    mount = 'mount "$0" /mnt; cd /mnt; eval "$1"; cd /; umount /mnt'
    apart = ["unshare", "--mount", "--propagation=private"]
    sh.run([*apart, "sh", "-euc", mount, device, script, *words])


def add_unit(device: str, text: str, path: str = UNIT) -> None:
    """Give the root on `device` a unit that its multi-user.target wants."""
    change(device, f'printf %s "$2" >{path}; ln -s ../{Path(path).name} {wants(path)}', text)


def wants(path: str = UNIT) -> str:
    """The link by which multi-user.target wants a unit."""
    return path.replace("/system/", "/system/multi-user.target.wants/")


def take_unit(device: str, path: str = UNIT) -> None:
    """The inverse of `add_unit`."""
    change(device, f"rm -f {path} {wants(path)}")


def digest(device: str) -> str:
    with Path(device).open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def refused(e: Element, device: str, *reason: str, result: str = "refused") -> dict[str, Any]:
    """The upgrade is refused with its reason; nothing was stopped, nothing is left of it."""
    before, ids = e.state(), set(e.ids())
    done = e.machine.run(
        ["systemctl", "start", f"issu@{device}"], check=False, timeout=REFUSAL_SEC
    )
    assert done.returncode != 0, done.stdout + done.stderr
    unchanged(e, before)
    [id] = set(e.ids()) - ids
    report = e.report(id)
    assert report["result"] == result, report
    assert [word for word in reason if word not in report["error"]] == [], report["error"]
    assert report["units"] == []
    assert report["t2_usec"] == 0
    return report


def unchanged(e: Element, before: dict[str, Any]) -> None:
    """Units, mounts and flags are as they were, and nothing of a rehearsal is left."""
    with suppress(wait.Timeout):
        e.machine.wait_for(lambda: changes(before, e.state()) == [], 10, "it is as it was")
    assert changes(before, e.state()) == []
    left = e.machine.run(["sh", "-c", "find /sys/fs/cgroup -name 'issu-rehearsal*'"]).stdout
    assert left == ""
    assert not e.machine.path("/run/systemd/nspawn").exists()
    assert "systemd-nspawn" not in e.machine.run(["ps", "ax"]).stdout


def findings(report: dict[str, Any], severity: str) -> list[str]:
    """The ids of the findings of one severity."""
    return [f["id"] for f in report["findings"] if f["severity"] == severity]


# -- what preflight sees ---------------------------------------------------------------------------

SEEN = {
    "no-init": (f"mv {INIT} good", f"mv good {INIT}", ["has no /usr/lib/systemd/systemd"]),
    "init-of-another-architecture": (  # e_machine, elf(5): 183 is AArch64
        rf"cp -a {INIT} good; printf '\267\0' | dd of={INIT} bs=1 seek=18 conv=notrunc",
        f"mv good {INIT}",
        ["is for another machine"],
    ),
    "no-libc": (
        "mv usr/lib/x86_64-linux-gnu/libc.so.6 good",
        "mv good usr/lib/x86_64-linux-gnu/libc.so.6",
        ["/usr/lib/systemd/systemd", "does not run"],
    ),
    "no-issu-systemd": ("mv usr/bin/issu good", "mv good usr/bin/issu", ["issu-systemd is not"]),
}


@pytest.mark.parametrize("case", SEEN)
def test_preflight(bench: Bench, case: str) -> None:
    spoil, mend, reason = SEEN[case]
    change(bench.e.target, spoil)
    try:
        refused(bench.e, bench.e.target, *reason)
    finally:
        change(bench.e.target, mend)


def test_truncated_file_system(bench: Bench) -> None:
    refused(bench.e, str(bench.torn), "does not mount")


def test_read_only(bench: Bench) -> None:
    sh.run(["blockdev", "--setro", bench.e.target])
    try:
        refused(bench.e, bench.e.target, "is read-only")
    finally:
        sh.run(["blockdev", "--setrw", bench.e.target])


# -- what the rehearsal sees -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "reason"), [("exits", "PID 1"), ("hangs", "its PID 1 does not answer")]
)
def test_init(bench: Bench, what: str, reason: str) -> None:
    good = f"{INIT}.good"
    change(bench.e.target, f"mv {INIT} {good}; install -m 755 {bench.inits[what]} {INIT}")
    try:
        report = refused(bench.e, bench.e.target, "rehearsal of", reason)
        assert findings(report, "block") == ["rehearsal"]
    finally:
        change(bench.e.target, f"mv {good} {INIT}")


LOOP = "Restart=always\nRestartSec=1\n[Unit]\nStartLimitIntervalSec=0\n"
# Each of them waits for somebody who opens the pipe, and nobody does. No program is loaded for it.
BOMB = "ExecStart=/bin/sh -c 'mkfifo /tmp/f; while :; do { read x </tmp/f; } & done'\n"
REHEARSED = {
    "default-target-never-completes": (
        "Type=oneshot\nTimeoutStartSec=infinity\nExecStart=/bin/sleep infinity\n",
        [],
        ["graphical.target was not reached in time, it waits for bad.service"],
    ),
    "crash-loop": (
        f"ExecStart=/bin/sh -c 'echo no such table; exit 7'\n{LOOP}",
        ["bad.service"],
        ["bad.service is", "no such table", "rehearse-skip"],
    ),
    "fails": (
        "ExecStart=/bin/sh -c 'echo no such table; exit 7'\n",
        ["bad.service"],
        ["bad.service failed (exit-code)", "no such table"],
    ),
    "dies-3-s-later": ("ExecStart=/bin/sleep 3\n", ["bad.service"], ["bad.service is inactive"]),
    "is-not-there": ("ExecStart=/bin/true\n", ["nope.service"], ["nope.service is not-found"]),
    "fork-bomb": (BOMB, [], ["4096 tasks"]),
}  # fmt: skip


@pytest.mark.parametrize("case", REHEARSED)
def test_rehearsal(bench: Bench, case: str) -> None:
    """Its [verify] units count; the block device is the same to the last bit afterwards."""
    service, verify, reason = REHEARSED[case]
    own = f"[verify]\nunits = {json.dumps(verify)}\n"
    add_unit(bench.e.target, f"[Service]\n{service}")
    change(bench.e.target, f'mkdir -p etc/issu/conf.d; printf %s "$2" >{OWN}', own)
    try:
        before = digest(bench.e.target)
        report = refused(bench.e, bench.e.target, "rehearsal of", *reason)
        assert digest(bench.e.target) == before
        assert set(findings(report, "block")) == {"rehearsal"}
    finally:
        take_unit(bench.e.target)
        change(bench.e.target, f"rm {OWN}")


def rehearsed(e: Element, *units: str) -> tuple[int, str]:
    """A rehearsal by itself: exit status, and what it found."""
    argv = ["python3", "-I", "-m", "issu_systemd.rehearse", e.target, *units]
    done = e.machine.run(argv, check=False, timeout=REFUSAL_SEC)
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_what_the_container_cannot_do_is_no_reason(bench: Bench) -> None:
    """One unit that wants a device; one that says itself that it is for no container."""
    e, run = bench.e, bench.e.machine.run
    needs = f"[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/test -b {e.source}\n"
    never = "[Unit]\nConditionVirtualization=!container\n[Service]\nExecStart=/bin/false\n"
    add_unit(e.target, needs)
    add_unit(e.target, never, NO)
    here, link = e.machine.path(f"/{UNIT}"), e.machine.path(f"/{wants()}")
    try:
        status, said = rehearsed(e, "nginx.service", "no.service")
        assert status == 0, said
        assert "warn: " in said
        assert "bad.service failed there" in said
        assert "info: " in said

        status, said = rehearsed(e, "bad.service")
        assert status == 1, said  # there is nothing like it in the running root

        here.write_text(needs)
        link.symlink_to("../bad.service")
        run(["systemctl", "daemon-reload"])
        run(["systemctl", "start", "bad.service"])
        status, said = rehearsed(e, "bad.service")
        assert status == 0, said
        assert "in the running root's rehearsal too" in said
    finally:
        run(["systemctl", "stop", "bad.service"], check=False)
        here.unlink(missing_ok=True)
        link.unlink(missing_ok=True)
        run(["systemctl", "daemon-reload"])
        take_unit(e.target)
        take_unit(e.target, NO)


# Content only where there is neither a link nor a disk, nor what the running system has on /run.
CUT_OFF = """#!/bin/sh
ip -o link | grep -v ': lo:' && exit 1
ls /dev | grep loop && exit 1
ls /run/marker && exit 1
mknod /root/disk b 7 0 && exit 1
exit 0
"""


def test_it_is_cut_off(bench: Bench) -> None:
    e, script = bench.e, "usr/local/sbin/cut-off"
    oneshot = f"[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/{script}\n"
    add_unit(e.target, oneshot)
    change(e.target, f'printf %s "$2" >{script}; chmod 755 {script}', CUT_OFF)
    e.machine.path("/run/marker").touch()
    try:
        status, said = rehearsed(e, "bad.service")
        assert status == 0, said
        assert e.machine.run(["sh", "-c", CUT_OFF], check=False).returncode == 1
    finally:
        e.machine.path("/run/marker").unlink()
        take_unit(e.target)
        change(e.target, f"rm {script}")


def test_cancelled_in_the_middle(bench: Bench) -> None:
    """Nothing of the rehearsal outlives the agent, stopped or killed."""
    e = bench.e
    main = f"systemctl show --property=MainPID --value issu@-{e.target.replace('/', '-')[1:]}"
    hang = "Type=oneshot\nTimeoutStartSec=infinity\nExecStart=/bin/sleep infinity\n"
    add_unit(e.target, f"[Service]\n{hang}")
    try:
        for way in ("systemctl stop 'issu@*'", f"kill -9 $({main})"):
            before, ids = e.state(), set(e.ids())
            started = e.machine.popen(["systemctl", "start", f"issu@{e.target}"])
            e.machine.wait_for(
                lambda: "systemd-nspawn" in e.machine.run(["ps", "ax"]).stdout, 60, "it boots"
            )
            e.machine.run(["sh", "-c", way])
            assert started.wait(60) != 0
            e.machine.wait_for(lambda: set(e.ids()) - ids, 60, "it is in the history")  # noqa: B023
            unchanged(e, before)
    finally:
        take_unit(e.target)


# -- trust -----------------------------------------------------------------------------------------

# A site's check: it is content with what has a seal, and tells how the device is mounted meanwhile.
CHECK = """#!/bin/sh
findmnt -no OPTIONS --source "$1" >/run/mounted-as
[ -e /etc/sealed ] && exit 0
echo checking...
echo "no seal on $1"
exit 1
"""
TRUST = '[stage]\nverify-command = "/usr/local/sbin/check-image"\n'


def configure(e: Element, text: str) -> None:
    write_settings(e.machine.path("/"), text)


def test_a_site_refuses(bench: Bench) -> None:
    e = bench.e
    configure(e, TRUST)
    try:
        report = refused(e, e.target, f"check-image refuses {e.target}: no seal on {e.target}")
        assert findings(report, "block") == ["verify-command"]
        mounted = set(e.machine.path("/run/mounted-as").read_text().strip().split(","))
        assert {"ro", "nosuid", "nodev", "noexec"} <= mounted
        plan = e.machine.run(["issu", "plan", e.target], check=False)
        assert plan.returncode != 0
        assert "no seal" in plan.stdout + plan.stderr
    finally:
        configure(e, REHEARSE)
        e.machine.path("/run/mounted-as").unlink(missing_ok=True)


def seal(e: Element) -> str:
    """Make the hash tree of the target as it is; its root hash."""
    done = e.machine.run(["veritysetup", "format", e.target, "/root/hashes"], timeout=120)
    found = re.search(r"Root hash:\s+(\w+)", done.stdout)
    assert found, done.stdout
    return found[1]


def verity(root_hash: str) -> str:
    return f'verity = "{root_hash}"\nverity-hashes = "/root/hashes"\n'


def test_wrong_verity_hash_and_then_the_good_image(bench: Bench) -> None:
    e = bench.e
    root_hash = seal(e)
    wrong = f"{int(root_hash[:8], 16) ^ 1:08x}{root_hash[8:]}"
    configure(e, f"{REHEARSE}{verity(wrong)}")
    report = refused(e, e.target, f"{e.target} is not what [stage] verity says")
    assert findings(report, "block") == ["verity"]

    configure(e, f"{REHEARSE}{verity(root_hash)}")
    change(e.target, "echo evil >>etc/motd")
    refused(e, e.target, f"{e.target} is not what [stage] verity says")

    root_hash = seal(e)
    e.machine.path("/etc/sealed").touch()
    unlinked = TRUST.replace("[stage]\n", "")
    configure(e, f'{REHEARSE}{verity(root_hash)}{unlinked}[verify]\nunits = ["nginx.service"]\n')
    report = e.upgrade()
    assert report["result"] == "accepted", report
    assert "rehearsal" in findings(report, "info")
    told = next(f["text"] for f in report["findings"] if f["id"] == "rehearsal")
    assert "up after" in told
    assert e.machine.state() == "running"
    assert oldroot.is_free(e.source)
