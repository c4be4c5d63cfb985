"""The catalogue of preflight on a machine: all that is wrong is found at once, and then gone."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.rig import sh, traces

from .element import Element, element, write_settings, write_unit
from .look import look, of, put
from .test_refusal import change

PAIRS = [("bookworm", "trixie"), ("trixie", "bookworm")]
CARRY = """[carry]
files = ["/etc/machine-id", "/etc/mine", "/etc/ghosts"]
mounts = ["/srv/data"]
"""
GHOST = 4567  # a user's number
SLEEP = "ExecStart=/bin/sleep infinity\n"
# What is wrong in the target, all at once.
SPOIL = f"""
cp -a etc/passwd etc/.passwd
sed -i 's/^www-data:x:33:/www-data:x:{GHOST + 1}:/' etc/passwd
printf 'UUID=0bad-cafe /data ext4 defaults 0 2\\ntmpfs /srv tmpfs defaults 0 0\\n' >etc/fstab
ln -s /dev/null etc/systemd/system/nginx.service
cd etc/systemd/system
printf '[Service]\\nExecStart=/usr/bin/not-there\\n' >broken.service
printf '[Install]\\nWantedBy=multi-user.target\\n' >>broken.service
printf '[Service]\\nExecStart=/usr/sbin/nft flush ruleset\\n' >flush.service
ln -s ../broken.service ../flush.service multi-user.target.wants
cd ../../..
mkdir -p etc/kernel etc/selinux
echo 'root=/dev/sdb2 isolcpus=3' >etc/kernel/cmdline
mv etc/selinux/config etc/selinux/.config || true
echo SELINUX=enforcing >etc/selinux/config
free=$(($(stat -fc %a .) * $(stat -fc %S .)))
fallocate -l $((free - 8 * 1024 * 1024)) filler
"""
MEND = """
mv etc/.passwd etc/passwd
: >etc/fstab
rm filler etc/kernel/cmdline etc/selinux/config etc/systemd/system/nginx.service
rm etc/systemd/system/*/broken.service etc/systemd/system/*/flush.service
rm etc/systemd/system/broken.service etc/systemd/system/flush.service
mv etc/selinux/.config etc/selinux/config || true
"""
# id, severity, what the sentence must name
IN_TARGET = [
    ("ids", "block", "user www-data owns /etc/mine"),
    ("ids", "warn", f"user ghost ({GHOST}) owns /etc/ghosts"),
    ("fstab-device", "block", "UUID=0bad-cafe at /data"),
    ("fstab-hides", "block", "/srv, over /srv/data"),
    ("room", "block", "are needed for what is carried"),
    ("unit-lost", "warn", "nginx.service"),
    ("unit-lost", "warn", "here-only.service"),
    ("unit-broken", "warn", "Command /usr/bin/not-there is not executable"),
    ("start-action", "warn", "flush.service of the new root"),
    ("policy", "warn", "SELinux is enforcing in the new root"),
    ("command-line", "info", "+isolcpus=3"),
]
# One at a time: with each of these the look at the target ends early.
ALONE = {
    "default-target": (
        "ln -s nowhere.target etc/systemd/system/default.target",
        "rm etc/systemd/system/default.target",
        "default.target",
    ),
    "libc": (
        # the ABI tag, "GNU", Linux, 3.2.0: see elf.py
        r"cp -a usr/lib/*/libc.so.6 usr/lib/libc.good; perl -0777 -pi -e"
        r" 's/(GNU\0\0\0\0\0)\x03(\0\0\0\x02\0\0\0\0\0\0\0)/$1\x63$2/' usr/lib/*/libc.so.6",
        "mv usr/lib/libc.good $(echo usr/lib/*/libc.so.6)",
        "needs kernel 99.2.0",
    ),
}
LOCKED = """
import fcntl, time
file = open("/var/lib/dpkg/lock-frontend", "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print("locked", flush=True)
time.sleep(3600)
"""
OUTSIDE = "echo $$ >/sys/fs/cgroup/init.scope/cgroup.procs; exec sleep 1000001"
INHIBIT = "/usr/bin/systemd-inhibit --what=shutdown --mode=block --who=backup --why=update"


def in_source(root: Path) -> None:
    """What is carried, who owns it, and a unit that only this root has."""
    write_settings(root, CARRY)
    with (root / "etc/passwd").open("a") as file:
        file.write(f"ghost:x:{GHOST}:0::/:/bin/sh\n")
    sh.run(["chown", "33:0", put(root, "etc/mine", "x\n")])
    sh.run(["chown", f"{GHOST}:0", put(root, "etc/ghosts", "x\n")])
    (root / "srv/data").mkdir()
    put(root, "etc/fstab", "tmpfs /srv/data tmpfs defaults 0 0\n")
    install = "[Install]\nWantedBy=multi-user.target\n"
    write_unit(root, "here-only.service", f"[Service]\n{SLEEP}{install}")
    script = "#!/bin/sh\nexit 0\n# ip link set lo down\nip link set dev lo down\n"
    put(root, "usr/local/sbin/link-down", script)
    stop = "ExecStop=/bin/sh /usr/local/sbin/link-down\n"
    write_unit(root, "cuts.service", f"[Service]\n{SLEEP}{stop}", wanted_by="")
    write_unit(root, "stuck.service", f"[Service]\nType=oneshot\n{SLEEP}", wanted_by="")
    inhibit = f"[Service]\nExecStart={INHIBIT} /bin/sleep infinity\n"
    write_unit(root, "inhibit.service", inhibit, wanted_by="")


def in_target(root: Path) -> None:
    """The unit that only the source has, here too until the target is spoilt; the same user."""
    with (root / "etc/passwd").open("a") as file:
        file.write(f"ghost:x:{GHOST}:0::/:/bin/sh\n")
    install = "[Install]\nWantedBy=multi-user.target\n"
    write_unit(root, "here-only.service", f"[Service]\n{SLEEP}{install}")


@pytest.fixture(scope="module", params=PAIRS, ids="-".join)
def bench(request: pytest.FixtureRequest) -> Iterator[Element]:
    """One machine for all: it must be as good as new after each test."""
    source, target = request.param
    with (
        traces.workspace() as work,
        element(work, source, target, in_source=in_source, in_target=in_target) as e,
    ):
        yield e


@contextmanager
def spoilt(device: str, spoil: str, mend: str) -> Iterator[None]:
    """The target changed for a while."""
    change(device, spoil)
    try:
        yield
    finally:
        change(device, mend)


@pytest.mark.parametrize("strategy", ["halt", "live"])
def test_nothing_is_found_where_nothing_is_wrong(bench: Element, strategy: str) -> None:
    assert look(bench, strategy) == []


@pytest.mark.parametrize("strategy", ["halt", "live"])
def test_all_that_is_wrong_in_the_target_is_found_at_once(bench: Element, strategy: str) -> None:
    lost = "mv etc/systemd/system/here-only.service here-only; sed -i /^ghost/d etc/passwd;"
    found_again = "mv here-only etc/systemd/system/here-only.service;"
    with spoilt(bench.target, SPOIL + lost, MEND + found_again):
        found = look(bench, strategy)
        for id, severity, named in IN_TARGET:
            texts = [f.text for f in of(found, id) if f.severity == severity]
            assert any(named in text for text in texts), (id, severity, named, found)
        assert {f.id for f in found} == {id for id, _, _ in IN_TARGET}
        assert [f for f in found if f.severity != "info" and not f.way_out] == []
        if strategy == "halt":
            refused_with_all(bench)
    assert look(bench, strategy) == []


def refused_with_all(e: Element) -> None:
    """An upgrade is refused and tells every finding, not only the first."""
    status, _ = e.start()
    assert status != 0
    report = e.report()
    assert report["result"] == "refused"
    told = {finding["id"] for finding in report["findings"]}
    assert told >= {id for id, _, _ in IN_TARGET}
    for word in ("www-data", "0bad-cafe", "/srv/data", "what is carried"):
        assert word in report["error"]


@pytest.mark.parametrize("id", ALONE)
def test_what_ends_the_look_early(bench: Element, id: str) -> None:
    spoil, mend, named = ALONE[id]
    with spoilt(bench.target, spoil, mend):
        found = of(look(bench), id)
        assert [f.severity for f in found] == ["block"]
        assert named in found[0].text
    assert look(bench) == []


def test_a_file_system_with_errors_is_not_mounted(bench: Element) -> None:
    sh.run(["debugfs", "-w", "-R", "set_super_value state 2", bench.target])
    try:
        (found,) = look(bench)
        assert (found.id, found.severity) == ("file-system", "block")
        assert f"fsck -f {bench.target}" in found.way_out
    finally:
        sh.run(["debugfs", "-w", "-R", "set_super_value state 1", bench.target])
    assert look(bench) == []


def test_another_default_target_is_told(bench: Element) -> None:
    where = "etc/systemd/system/default.target"
    with spoilt(bench.target, f"ln -s /usr/lib/systemd/system/multi-user.target {where}",
                f"rm {where}"):  # fmt: skip
        (found,) = look(bench)
        assert (found.id, found.severity) == ("default-target", "info")
        assert "multi-user.target, not graphical.target" in found.text


@contextmanager
def busy(e: Element) -> Iterator[None]:
    """A machine on which much is under way that an upgrade would cut off."""
    run = e.machine.run
    with ExitStack() as stack:
        stack.enter_context(running(e, ["/usr/bin/python3", "-c", LOCKED]))
        stack.enter_context(running(e, ["sh", "-c", OUTSIDE]))
        scope = ["systemd-run", "--quiet", "--scope", "--unit=apart", "unshare", "--mount"]
        stack.enter_context(running(e, [*scope, "sleep", "1000002"]))
        for unit in ("inhibit.service", "cuts.service"):
            run(["systemctl", "start", unit])
            stack.callback(run, ["systemctl", "kill", "--signal=KILL", unit])
        run(["systemctl", "start", "--no-block", "stuck.service"])
        stack.callback(run, ["systemctl", "stop", "stuck.service"])
        run(["ip", "netns", "add", "customer"])
        stack.callback(run, ["ip", "netns", "delete", "customer"])
        asked = ["busctl", "call", "org.freedesktop.login1", "/org/freedesktop/login1",
                 "org.freedesktop.login1.Manager", "ListInhibitors"]  # fmt: skip
        e.machine.wait_for(lambda: "backup" in run(asked).stdout, 20, "the inhibitor is there")
        listing = ["cat", "/sys/fs/cgroup/init.scope/cgroup.procs"]
        e.machine.wait_for(
            lambda: len(run(listing).stdout.split()) > 1, 20, "a process is outside any unit"
        )
        yield


@contextmanager
def running(e: Element, argv: list[str]) -> Iterator[None]:
    """A program inside for a while."""
    process = e.machine.popen(argv)
    try:
        yield
    finally:
        sh.kill(process)


BUSY: list[tuple[str, str, str, Callable[[str, str], bool]]] = [
    ("package-manager", "block", "holds /var/lib/dpkg/lock-frontend", lambda *_: True),
    ("inhibitor", "block", "backup (update)", lambda *_: True),
    ("jobs", "warn", "start stuck.service", lambda *_: True),
    ("stray-process", "warn", "sleep[", lambda *_: True),
    ("stop-action", "warn", "ip link set dev lo down", lambda *_: True),
    ("network-namespace", "block", "customer", lambda s, how: (s, how) == ("trixie", "halt")),
    ("namespace-pin", "warn", "of apart.scope", lambda _, how: how == "live"),
]


@pytest.mark.parametrize("strategy", ["halt", "live"])
def test_all_that_is_under_way_is_found_at_once(bench: Element, strategy: str) -> None:
    suite = bench.machine.path("/etc/issu-root").read_text().strip()
    expected = [row[:3] for row in BUSY if row[3](suite, strategy)]
    with busy(bench):
        found = look(bench, strategy)
        for id, severity, named in expected:
            texts = [f.text for f in of(found, id) if f.severity == severity]
            assert any(named in text for text in texts), (id, severity, named, found)
        assert {f.id for f in found} == {id for id, _, _ in expected}, json.dumps(found)
    bench.machine.wait_for(lambda: look(bench, strategy) == [], 30, "nothing is found any more")
