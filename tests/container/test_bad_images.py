"""Bad images are refused before anything is stopped: by preflight, in rehearsal, for lack of trust.

One machine, and one target that is spoiled and mended: after each refusal all is as it was. What
only the real switch would show is in other files.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
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
REHEARSE = '[stage]\nrehearse = true\nrehearse-timeout = "15s"\n'
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
UNITS = "etc/systemd/system"
OWN = "etc/issu/conf.d/99-bad.toml"  # the target's own [verify] units


def only_first(test: Callable[..., None]) -> Callable[..., None]:
    """What takes long, and is no other between the second pair of suites."""
    return pytest.mark.parametrize("bench", PAIRS[:1], ids="-".join, indirect=True)(test)


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


def add_unit(device: str, name: str, text: str) -> None:
    """Give the root on `device` a unit that its multi-user.target wants."""
    add = f'printf %s "$2" >{UNITS}/{name}; ln -s ../{name} {UNITS}/multi-user.target.wants'
    change(device, add, text)


def take_unit(device: str, name: str) -> None:
    """The inverse of `add_unit`."""
    change(device, f"rm -f {UNITS}/{name} {UNITS}/multi-user.target.wants/{name}")


def digest(device: str) -> str:
    with Path(device).open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def refused(e: Element, device: str, *reason: str) -> dict[str, Any]:
    """The upgrade is refused with its reason; nothing was stopped, nothing is left of it."""
    before, ids = e.state(), set(e.ids())
    done = e.machine.run(
        ["systemctl", "start", f"issu@{device}"], check=False, timeout=REFUSAL_SEC
    )
    assert done.returncode != 0, done.stdout + done.stderr
    unchanged(e, before)
    [id] = set(e.ids()) - ids
    report = e.report(id)
    assert report["result"] == "refused", report
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
    "full": (
        "fallocate -l $((($(stat -fc %a .) - 512) * $(stat -fc %S .))) full",
        "rm full",
        ["are needed for what is carried"],
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


def refused_with_init(bench: Bench, program: Path, *words: str) -> None:
    """A rehearsal, and nothing else, refuses the target while this is its init."""
    change(bench.e.target, f"mv {INIT} {INIT}.good; install -m 755 {program} {INIT}")
    try:
        report = refused(bench.e, bench.e.target, "rehearsal of", *words)
        assert findings(report, "block") == ["rehearsal"]
    finally:
        change(bench.e.target, f"mv {INIT}.good {INIT}")


def test_init_that_exits(bench: Bench) -> None:
    refused_with_init(bench, bench.inits["exits"], "PID 1")


LOOP = "Restart=always\nRestartSec=1\n[Unit]\nStartLimitIntervalSec=0\n"
SAYS_SO = "ExecStart=/bin/sh -c 'echo no such table; exit 7'\n"
ONESHOT = "Type=oneshot\nRemainAfterExit=yes\n"
# Content only where there is neither a link nor a disk, nor what the running system has on /run.
CUT_OFF = """#!/bin/sh
ip -o link | grep -v ': lo:' && exit 1
ls /dev | grep loop && exit 1
ls /run/marker && exit 1
mknod /root/disk b 7 0 && exit 1
exit 0
"""
ILL = {  # each unit with what is said of it
    "loops.service": (f"{SAYS_SO}{LOOP}", ["loops.service is", "no such table"]),
    "fails.service": (SAYS_SO, ["fails.service failed (exit-code)", "no such table"]),
    "dies.service": ("ExecStart=/bin/sleep 3\n", ["dies.service is inactive"]),
    "nope.service": ("", ["nope.service is not-found"]),
}
# Asked for as well, and no reason to refuse.
WELL = {
    "cut-off.service": f"{ONESHOT}ExecStart=/usr/local/sbin/cut-off\n",
    "never.service": "ExecStart=/bin/false\n[Unit]\nConditionVirtualization=!container\n",
}
NEEDS_DISK = "needs.service"  # so has the running root
UNASKED = "unasked.service"


def test_units(bench: Bench) -> None:
    """All that is wrong is found at once, and nothing else; not a bit of the target is changed."""
    e, run = bench.e, bench.e.machine.run
    needs = f"[Service]\n{ONESHOT}ExecStart=/bin/test -b {e.source}\n"
    units = {name: f"[Service]\n{text}" for name, (text, _) in ILL.items() if text}
    units |= {name: f"[Service]\n{text}" for name, text in WELL.items()}
    units |= {NEEDS_DISK: needs, UNASKED: f"[Service]\n{SAYS_SO}"}
    asked = [*ILL, *WELL, NEEDS_DISK, "nginx.service"]
    for name, text in units.items():
        add_unit(e.target, name, text)
    own = f"[verify]\nunits = {json.dumps(asked)}\n"
    change(e.target, f'mkdir -p etc/issu/conf.d; printf %s "$2" >{OWN}', own)
    change(e.target, 'cd usr/local/sbin; printf %s "$2" >cut-off; chmod 755 cut-off', CUT_OFF)
    e.machine.path(f"/{UNITS}/{NEEDS_DISK}").write_text(needs)
    e.machine.path("/run/marker").touch()
    try:
        run(["systemctl", "daemon-reload"])
        run(["systemctl", "start", NEEDS_DISK])
        assert run(["sh", "-c", CUT_OFF], check=False).returncode == 1  # control
        before, bits = e.state(), digest(e.target)
        done = run(
            ["issu", "check", "--rehearse", "--json", e.target], check=False, timeout=REFUSAL_SEC
        )
        unchanged(e, before)
        assert digest(e.target) == bits
    finally:
        run(["systemctl", "stop", NEEDS_DISK], check=False)
        e.machine.path("/run/marker").unlink()
        e.machine.path(f"/{UNITS}/{NEEDS_DISK}").unlink()
        run(["systemctl", "daemon-reload"])
        for name in units:
            take_unit(e.target, name)
        change(e.target, f"rm {OWN} usr/local/sbin/cut-off")
    assert done.returncode == 3, done.stdout + done.stderr
    found = [f for f in json.loads(done.stdout)["findings"] if f["id"] == "rehearsal"]
    blocks, warns = ([f["text"] for f in found if f["severity"] == s] for s in ("block", "warn"))
    assert len(blocks) == len(ILL), blocks
    for unit, (_, words) in ILL.items():
        [text] = [text for text in blocks if unit in text]
        assert [word for word in words if word not in text] == []
    assert len(warns) == 2, warns
    assert f"{NEEDS_DISK} failed" in warns[0]
    assert "in the running root's rehearsal too" in warns[0]
    assert f"{UNASKED} failed there" in warns[1]


@only_first
def test_init_that_hangs(bench: Bench) -> None:
    refused_with_init(bench, bench.inits["hangs"], "its PID 1 does not answer")


# Each of them waits for somebody who opens the pipe, and nobody does. No program is loaded for it.
BOMB = "ExecStart=/bin/sh -c 'mkfifo /tmp/f; while :; do { read x </tmp/f; } & done'\n"
HANG = "Type=oneshot\nTimeoutStartSec=infinity\nExecStart=/bin/sleep infinity\n"


@only_first
@pytest.mark.parametrize(
    ("unit", "reason"),
    [
        (HANG, "graphical.target was not reached in time, it waits for bad.service"),
        (BOMB, "4096 tasks"),
    ],
    ids=["never-completes", "fork-bomb"],
)
def test_boot(bench: Bench, unit: str, reason: str) -> None:
    add_unit(bench.e.target, "bad.service", f"[Service]\n{unit}")
    try:
        bits = digest(bench.e.target)
        report = refused(bench.e, bench.e.target, "rehearsal of", reason)
        assert digest(bench.e.target) == bits
        assert findings(report, "block") == ["rehearsal"]
    finally:
        take_unit(bench.e.target, "bad.service")


def cut(e: Element, way: str) -> None:
    """Start an upgrade, and end it in the middle of its rehearsal."""
    started = e.machine.popen(["systemctl", "start", f"issu@{e.target}"])
    e.machine.wait_for(
        lambda: "systemd-nspawn" in e.machine.run(["ps", "ax"]).stdout, 60, "it boots"
    )
    e.machine.run(["sh", "-c", way])
    assert started.wait(60) != 0


def test_cancelled_in_the_middle(bench: Bench) -> None:
    """Nothing of the rehearsal outlives the agent, stopped or killed."""
    e = bench.e
    main = f"systemctl show --property=MainPID --value issu@-{e.target.replace('/', '-')[1:]}"
    add_unit(e.target, "bad.service", f"[Service]\n{HANG}")
    before = e.state()
    try:
        for way in ("systemctl stop 'issu@*'", f"kill -9 $({main})"):
            ids = set(e.ids())
            cut(e, way)
            e.machine.wait_for(lambda: set(e.ids()) - ids, 60, "it is in the history")  # noqa: B023
            unchanged(e, before)

        # PID 1 of systemd 257 kills ExecStopPost= as well; then the next start undoes.
        ids = set(e.ids())
        cut(e, "systemctl kill --signal=KILL 'issu@*'")
        assert e.start(str(bench.torn))[0] != 0
        e.machine.wait_for(lambda: len(set(e.ids()) - ids) == 2, 60, "both are in the history")
        unchanged(e, before)
    finally:
        take_unit(e.target, "bad.service")


def test_without_nspawn_it_is_said(bench: Bench) -> None:
    e, nspawn = bench.e, bench.e.machine.path("/usr/bin/systemd-nspawn")
    nspawn.rename(nspawn.with_suffix(".away"))
    try:
        done = e.machine.run(["issu", "check", "--rehearse", "--json", e.target])
    finally:
        nspawn.with_suffix(".away").rename(nspawn)
    [found] = [f for f in json.loads(done.stdout)["findings"] if f["id"] == "rehearsal"]
    assert (found["severity"], found["way_out"]) == ("info", "install systemd-container")


# -- trust -----------------------------------------------------------------------------------------

# A site's check: it is content with what has a seal, and tells how the device is mounted meanwhile.
CHECK = """#!/bin/sh
findmnt -no OPTIONS --source "$1" >/run/mounted-as
"$(findmnt -no TARGET --source "$1")/usr/bin/true" && echo executed >>/run/mounted-as
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
        reason = f"{e.target}, /usr/local/sbin/check-image: no seal on {e.target}"
        report = refused(e, e.target, reason)
        assert findings(report, "block") == ["verify-command"]
        [options] = e.machine.path("/run/mounted-as").read_text().splitlines()
        assert {"ro", "nosuid", "nodev", "noexec"} <= set(options.split(","))
        check = e.machine.run(["issu", "check", e.target], check=False)
        assert (check.returncode, "no seal" in check.stdout) == (3, True)
        execute = 'mount -o ro "$0" /mnt; /mnt/usr/bin/true; umount /mnt'
        e.machine.run(["sh", "-euc", execute, e.target])  # control
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
