"""Machines boot, run commands, reboot, stay apart from each other and leave nothing behind."""

import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.rig import loop, roots, sh, traces, wait
from tests.rig.holders import strangers
from tests.rig.machine import Machine
from tests.rig.probe import CHECKOUT
from tests.rig.scenario import PRETTY, is_free, make

pytestmark = pytest.mark.container


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


def test_a_command_that_is_stopped_goes_on(images: Path) -> None:
    """As PID 1 does when it changes roots: all of them are stopped, then all inside continued."""
    with Machine(make(images, "bookworm")) as machine:
        assert machine.run(["sh", "-c", "kill -STOP $$; echo on"], timeout=10).stdout == "on\n"
        process = machine.popen(["sleep", "infinity"])
        machine.run(["pkill", "--signal=STOP", "sleep"])
        machine.run(["pkill", "--signal=CONT", "sleep"])
        machine.run(["pkill", "sleep"])
        assert process.wait(10) != 0


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
