"""The rig proves itself: machines, probe, exclusivity of the old root, and what is left behind."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.rig import loop, roots, sh, traces, wait
from tests.rig.holders import strangers, superblock
from tests.rig.machine import Machine
from tests.rig.probe import CHECKOUT, Probe
from tests.rig.services import Dns, Http, Service, Tcp

pytestmark = pytest.mark.container

EXCLUSIVE = "import os, sys; os.open(sys.argv[1], os.O_RDWR | os.O_EXCL)"
HALT_TARGET = "[Unit]\nDefaultDependencies=no\nAllowIsolate=yes\n"
PRETTY = {"bookworm": "Debian GNU/Linux 12 (bookworm)", "trixie": "Debian GNU/Linux 13 (trixie)"}


@pytest.fixture
def images() -> Iterator[Path]:
    with traces.workspace() as top:
        yield top
    assert traces.traces(os.getpid()) == []


@pytest.fixture(params=roots.SUITES)
def suite(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def make(images: Path, suite: str, name: str = "a", *, partition_table: bool = False) -> Path:
    """An image of a root of `suite` that calls itself `name`."""

    def rename(top: Path) -> None:
        (top / "etc/issu-root").write_text(f"{name}\n")

    dest = images / f"{name}.img"
    tree = roots.installed(suite)
    return roots.image(tree, dest, partition_table=partition_table, customize=rename)


def services(machine: Machine) -> dict[str, Service]:
    at = machine.network.address
    return {"nginx": Http(at), "dnsmasq": Dns(at, 53, "issu.test"), "echo": Tcp(at, 7777)}


def is_free(machine: Machine, device: Path) -> bool:
    """Can a process inside have the device for itself?"""
    return machine.run(["python3", "-c", EXCLUSIVE, device], check=False).returncode == 0


def switch(machine: Machine, suite: str, device: Path) -> None:
    """Go from the running root to the one on `device` by the means of the suite's systemd."""
    top = {"bookworm": "/sysroot", "trixie": "/run/nextroot"}[suite]
    old = machine.path("/etc/issu-root").read_text()
    machine.run(["mkdir", "-p", top])
    machine.run(["mount", device, top])
    if suite == "bookworm":
        machine.path("/run/systemd/system/test-halt.target").write_text(HALT_TARGET)
        machine.systemctl("daemon-reload")
        machine.systemctl("isolate", "test-halt.target")
        machine.systemctl("switch-root", top, "/usr/lib/systemd/systemd")
    else:
        machine.systemctl("--no-block", "soft-reboot")
    machine.wait_for(
        lambda: machine.path("/etc/issu-root").read_text() != old, 30, "PID 1 is in the new root"
    )


@contextmanager
def hold(device: Path, top: Path) -> Iterator[None]:
    """A stranger: a mount namespace of the host, outside the container, has `device` mounted."""
    script = 'mount "$1" "$2"; exec sleep 120'
    argv = ["unshare", "--mount", "--propagation", "slave", "sh", "-ec", script, "sh"]
    process = sh.popen([*argv, str(device), str(top)])
    comm = Path(f"/proc/{process.pid}/comm")
    try:
        wait.until(lambda: comm.read_text() == "sleep\n", 10, "the stranger has the device")
        yield
    finally:
        sh.kill(process)
        process.communicate()


# --- machine ------------------------------------------------------------------------------------


def test_boots_to_running(images: Path, suite: str) -> None:
    with Machine(make(images, suite)) as machine:
        assert machine.systemctl("--failed", "--no-legend") == ""
        assert machine.state() == "running"
        assert f'"{PRETTY[suite]}"' in machine.path("/etc/os-release").read_text()
        assert machine.run(["cat", "/etc/issu-root"]).stdout == "a\n"
        assert "Startup finished" in machine.journal()
        assert not machine.path("/run/nologin").exists()


def test_run_reports_status_output_and_timeout(images: Path) -> None:
    with Machine(make(images, "bookworm")) as machine:
        assert machine.run(["cat"], stdin="hello").stdout == "hello"
        assert machine.run(["sh", "-c", "exit 7"], check=False).returncode == 7
        with pytest.raises(sh.CommandError, match="exit status 1"):
            machine.run(["false"])
        with pytest.raises(sh.CommandError, match="not ended after"):
            machine.run(["sleep", "60"], timeout=0.2)
        machine.wait_for(
            lambda: machine.run(["pgrep", "sleep"], check=False).returncode == 1, 5, "no sleep"
        )


def test_boot_that_fails_says_so_and_leaves_nothing(
    images: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ISSU_LOGS", str(images))
    empty = images / "empty.img"
    sh.run([*roots.MKE2FS, empty, "64M"])
    with pytest.raises(wait.Timeout, match="before the boot"), Machine(empty):
        pytest.fail("booted from an empty disk")
    kept = Path(capsys.readouterr().err.split()[-1])
    assert "Refusing" in (kept / "console.log").read_text()


def test_failing_unit_is_degraded(images: Path) -> None:
    def spoil(top: Path) -> None:
        (top / "etc/dnsmasq.d/test.conf").write_text("no-such-option\n")

    image = roots.image(roots.installed("trixie"), images / "bad.img", customize=spoil)
    with Machine(image) as machine:
        assert machine.state() == "degraded"
        assert "dnsmasq.service" in machine.systemctl("--failed", "--no-legend", "--plain")


def test_boot_id_is_new_with_a_reboot(images: Path) -> None:
    image, other = make(images, "bookworm"), make(images, "trixie", "b")
    with Machine(image, disks=[other]) as machine:
        before = machine.boot_id()
        machine.reboot()
        assert machine.boot_id() != before
        assert machine.run(["cat", "/etc/issu-root"]).stdout == "a\n"
        machine.reboot(machine.devices[1])
        assert machine.run(["cat", "/etc/issu-root"]).stdout == "b\n"
        machine.poweroff()
        with pytest.raises(AssertionError, match="not running"):
            machine.run(["true"])


def test_partitions(images: Path) -> None:
    """Two roots on two partitions of one disk: boot from the second, mount the first."""
    one, two = make(images, "bookworm", "one"), make(images, "trixie", "two")
    disk = roots.disk(images / "disk.img", [one, two])
    with Machine(disk, partition=2) as machine:
        first, second = loop.partitions(machine.devices[0])
        assert machine.root == second
        assert machine.run(["cat", "/etc/issu-root"]).stdout == "two\n"
        machine.run(["mount", first, "/mnt"])
        assert machine.run(["cat", "/mnt/etc/issu-root"]).stdout == "one\n"
        assert not is_free(machine, first)
        machine.run(["umount", "/mnt"])
        assert is_free(machine, first)
        assert strangers(second, machine.pid) == []


def test_images_have_their_own_uuid(images: Path) -> None:
    uuids = {
        sh.output(["dumpe2fs", "-h", make(images, "bookworm", name)]).split("UUID:")[1].split()[0]
        for name in ("a", "b")
    }
    assert len(uuids) == 2


# --- the old root -------------------------------------------------------------------------------


def test_only_the_container_has_its_root(images: Path, suite: str) -> None:
    """Also while other machines start: their mount namespaces are copies of the host's."""
    with Machine(make(images, suite)) as one, Machine(make(images, suite, "b")) as two:
        one.reboot()
        for machine in (one, two):
            assert strangers(machine.devices[0], machine.pid) == []


def test_stranger_is_seen(images: Path, tmp_path: Path) -> None:
    with Machine(make(images, "bookworm")) as machine:
        device = machine.devices[0]
        with hold(device, tmp_path):
            assert len(strangers(device, machine.pid)) == 1
        assert strangers(device, machine.pid) == []


def test_old_root_is_free_after_a_switch(images: Path, suite: str) -> None:
    other = {"bookworm": "trixie", "trixie": "bookworm"}[suite]
    with Machine(make(images, suite), disks=[make(images, other, "b")]) as machine:
        old, new = machine.devices
        boot = machine.boot_id()
        assert not is_free(machine, old)
        switch(machine, suite, new)
        assert machine.wait_running(30) == "running"
        machine.wait_for(lambda: is_free(machine, old), 10, "the old root is free")
        assert not superblock(old)
        assert machine.boot_id() == boot
        assert machine.run(["cat", "/etc/issu-root"]).stdout == "b\n"
        assert strangers(new, machine.pid) == []


def test_old_root_is_not_free_while_a_stranger_has_it(images: Path, tmp_path: Path) -> None:
    """Negative control: the exclusive open does notice a mount that only the host has."""
    image, other = make(images, "trixie"), make(images, "trixie", "b")
    with Machine(image, disks=[other]) as machine:
        old, new = machine.devices
        with hold(old, tmp_path):
            switch(machine, "trixie", new)
            machine.wait_running(30)
            assert not is_free(machine, old)
            assert superblock(old)
        machine.wait_for(lambda: is_free(machine, old), 10, "the old root is free")


# --- probe --------------------------------------------------------------------------------------


def test_probe_sees_three_services_and_no_outage(images: Path, suite: str) -> None:
    with Machine(make(images, suite)) as machine:
        with Probe(machine.network.outside, services(machine)) as probe:
            probe.wait_up(10)
            since = time.monotonic()
            wait.until(lambda: time.monotonic() > since + 1, 2, "a second of probing")
            seen = probe.stop()
        for name, service in seen.items():
            assert service.outages == (), name
            assert len(service.answers) == 1, name
            assert service.answers[0].count > 100, name
            assert service.spacing_usec < 300_000, name
        assert seen["echo"].texts == [f"a {PRETTY[suite]}"]
        assert seen["dnsmasq"].texts == ["192.0.2.1"]
        assert seen["nginx"].texts[0].startswith("200 nginx")


def test_probe_sees_an_outage_of_one_service_only(images: Path, suite: str) -> None:
    with (
        Machine(make(images, suite)) as machine,
        Probe(machine.network.outside, services(machine)) as probe,
    ):
        probe.wait_up(10)
        before = time.monotonic_ns() // 1000
        machine.systemctl("stop", "nginx.service")
        stopped = time.monotonic_ns() // 1000
        wait.until(lambda: probe.observed()["nginx"].failures > 20, 10, "nginx is missed")
        started = time.monotonic_ns() // 1000
        machine.systemctl("start", "nginx.service")
        probe.wait_up(10)
        after = time.monotonic_ns() // 1000
        seen = probe.stop()
    (gap,) = seen["nginx"].outages
    assert before - 50_000 < gap.start_usec < stopped
    assert started < gap.end_usec < after
    assert seen["nginx"].longest_usec == gap.usec > 100_000
    assert seen["nginx"].last_error
    assert seen["dnsmasq"].outages == seen["echo"].outages == ()


@pytest.mark.parametrize("unit", ["dnsmasq", "version-echo"])
def test_probe_sees_a_restart(images: Path, unit: str) -> None:
    name = unit.removeprefix("version-")
    with (
        Machine(make(images, "bookworm")) as machine,
        Probe(machine.network.outside, services(machine)) as probe,
    ):
        probe.wait_up(10)
        machine.systemctl("restart", f"{unit}.service")
        probe.wait_up(10)
        seen = probe.stop()
    assert [key for key, service in seen.items() if service.outages] == [name]
    assert 0 < seen[name].longest_usec < 2_000_000


def test_probe_sees_one_root_follow_the_other(images: Path) -> None:
    with (
        Machine(make(images, "trixie"), disks=[make(images, "bookworm", "b")]) as machine,
        Probe(machine.network.outside, services(machine)) as probe,
    ):
        probe.wait_up(10)
        switch(machine, "trixie", machine.devices[1])
        machine.wait_running(30)
        probe.wait_up(10)
        seen = probe.stop()
    assert seen["echo"].texts == [f"a {PRETTY['trixie']}", f"b {PRETTY['bookworm']}"]
    assert all(service.longest_usec > 0 for service in seen.values())


# --- clean-up -----------------------------------------------------------------------------------


def test_two_machines_at_once_do_not_meet(images: Path) -> None:
    """Same addresses, same unit names, one host: cgroups and networks are kept apart."""
    first, second = make(images, "bookworm"), make(images, "trixie", "b")
    with ThreadPoolExecutor(2) as pool, Machine(first) as one, Machine(second) as two:
        list(pool.map(lambda m: m.reboot(), (one, two)))
        one.systemctl("stop", "nginx.service")
        assert two.systemctl("is-active", "nginx.service") == "active"
        one.poweroff()
        assert two.state() == "running"


def test_running_machine_leaves_traces_that_are_found(images: Path) -> None:
    """Negative control of the check that `images` makes after each test."""
    with Machine(make(images, "bookworm")) as machine:
        text = "\n".join(traces.traces(os.getpid()))
        for trace in (f"/run/netns/{machine.name}-out", "/dev/loop", "cgroup", "process", "mounts"):
            assert trace in text
    assert traces.traces(os.getpid()) == [str(images)]


def test_container_that_died_is_cleaned_up(images: Path) -> None:
    with Machine(make(images, "bookworm")) as machine:
        os.kill(machine.pid, signal.SIGKILL)
        machine.wait_exit(10)
    assert traces.traces(os.getpid()) == [str(images)]


ORPHAN = """
import sys, time
from pathlib import Path
from tests.rig.machine import Machine
with Machine(Path(sys.argv[1])):
    print("up", flush=True)
    time.sleep(600)
"""


def test_sweep_removes_what_a_killed_rig_left(images: Path) -> None:
    image = make(images, "bookworm")
    env = {"PYTHONPATH": str(CHECKOUT), "PYTHONDONTWRITEBYTECODE": "1"}
    process = sh.popen([sys.executable, "-c", ORPHAN, image], env=env)
    try:
        assert process.stdout
        assert process.stdout.readline() == "up\n"
    finally:
        sh.kill(process)
        process.communicate()
    assert traces.traces(process.pid) != []
    traces.sweep()
    wait.until(lambda: traces.traces(process.pid) == [], 10, "everything is gone")


# --- package ------------------------------------------------------------------------------------

CONTROL = """\
Package: rig-test
Version: 1
Architecture: all
Maintainer: nobody <nobody@example.org>
Description: test
"""
POSTINST = "#!/bin/sh\nset -e\ntest -e /proc/self\ntouch /etc/rig-test\n"


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that has only the bare roots: what is installed here pushes out nobody's trees."""
    bare = [roots.base(suite) for suite in roots.SUITES]
    own = tmp_path / "cache"
    own.mkdir()
    for tar in bare:
        (own / tar.name).symlink_to(tar)
    monkeypatch.setenv("ISSU_CACHE", str(own))


def package(top: Path) -> Path:
    """A package whose maintainer script wants /proc, as many do."""
    control = top / "package/DEBIAN"
    control.mkdir(parents=True)
    (control / "control").write_text(CONTROL)
    (control / "postinst").write_text(POSTINST)
    (control / "postinst").chmod(0o755)
    sh.run(["dpkg-deb", "--build", "--root-owner-group", control.parent, top / "test.deb"])
    return top / "test.deb"


@pytest.mark.usefixtures("own_cache")
def test_package_is_installed(tmp_path: Path, suite: str) -> None:
    deb = package(tmp_path)
    tree = roots.installed(suite, deb)
    assert (tree / "etc/rig-test").exists()
    assert list((tree / "proc").iterdir()) == []
    assert roots.installed(suite, deb) == tree
    assert not (roots.installed(suite) / "etc/rig-test").exists()


@pytest.mark.usefixtures("own_cache")
def test_package_that_does_not_install_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "bad.deb").write_text("not a package")
    with pytest.raises(sh.CommandError, match="dpkg"):
        roots.installed("bookworm", tmp_path / "bad.deb")


def test_mirror_is_the_machines_own() -> None:
    sites = sh.output(["apt-get", "indextargets", "--format", "$(SITE)"]).splitlines()
    assert roots.mirror() in sites
    assert "security" not in roots.mirror()
