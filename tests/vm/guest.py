"""A virtual machine with a Debian kernel, two roots, two ports and a line for commands."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.container.element import package, write_settings, write_unit
from tests.rig import roots, sh

from . import kernel, network
from .channel import Channel

DATA = Path(__file__).with_name("data")
BOOT_SEC = 180.0
UPGRADE_SEC = 300.0
CHANNEL = """\
[Unit]
Description=Runs what comes by the second serial line
[Service]
ExecStart=/usr/bin/python3 -I /usr/local/sbin/channel
Restart=on-failure
"""
# virtme hides the root's own modules and fstab while it boots: bring the guest to where an ordinary
# boot would be. Without autofs4, which PID 1 loads by itself, automount units would fail.
READY = """
set -e
umount /usr/lib/modules /etc/fstab
udevadm trigger --type=all --action=add --settle
modprobe autofs4
systemctl reset-failed
systemctl restart nftables.service
systemctl start multi-user.target
for port in enp0s16 enp0s17; do
    until ip -4 address show dev $port | grep -q ' inet ' &&
        ip -6 address show dev $port -tentative | grep -q ' fd00'; do sleep 0.2; done
done
until [ -n "$(ip route show table 100)" ]; do sleep 0.2; done
until [ -z "$(systemctl list-jobs --no-legend)" ]; do sleep 0.2; done
systemctl is-system-running --wait || systemctl --failed
"""
ENDED = "while [ -e /run/issu/record.json ]; do sleep 0.2; done"
# Work as much as an upgrade does, and change nothing.
BUSY = "for i in 1 2; do (timeout 10 sh -c 'while :; do :; done' &) ; done; sleep 10"
Customize = Callable[[Path], None]


def fit_out(top: Path, modules: Path, settings: str, customize: Sequence[Customize]) -> None:
    """Put the line, the firewall and the running kernel's modules into a root."""
    write_settings(top, settings)
    write_unit(top, "channel.service", CHANNEL)
    shutil.copy(DATA / "channel", top / "usr/local/sbin/channel")
    shutil.copytree(modules, top / "usr/lib/modules", dirs_exist_ok=True, symlinks=True)
    network.common(top)
    for change in customize:
        change(top)


@dataclass
class Guest:
    """A guest that runs; `disks` are its roots' devices, the first is the one it booted from."""

    process: "subprocess.Popen[str]"
    channel: Channel
    work: Path
    console: Path
    disks: tuple[str, str]
    root: str
    settings: str = ""
    testers: list["subprocess.Popen[str]"] = field(default_factory=list)

    def run(self, script: str, timeout: float = 120, *, check: bool = True) -> str:
        """What a shell script prints in the guest."""
        return self.channel.run(script, timeout, check=check)

    def here(self) -> str:
        """The device of the root that runs."""
        return self.run("findmnt --noheadings --output SOURCE /").strip()

    def other(self) -> str:
        """The device of the root that does not."""
        here = self.here()
        return next(disk for disk in self.disks if disk != here)

    def modules(self) -> list[str]:
        """The loaded modules."""
        return sorted(self.run("cut -d' ' -f1 /proc/modules").split())

    def configure(self, settings: str) -> None:
        """Other settings, in the root that runs."""
        self.run(f"cat >/etc/issu/conf.d/50-test.toml <<'EOF'\n{settings}\nEOF")

    def upgrade(self, target: str | None = None) -> dict[str, Any]:
        """Go to the other root; the report."""
        unit = f"issu@{target or self.other()}"
        out = self.run(f"systemctl start --no-block {unit}; true")
        try:
            self.root = self.channel.hello(UPGRADE_SEC)
        except Exception:
            raise AssertionError(f"{out}\n{self.tail()}") from None
        self.run(ENDED, UPGRADE_SEC)
        report: dict[str, Any] = json.loads(self.run("issu report --json"))
        return report

    def tail(self) -> str:
        """The last of its console."""
        return self.console.read_text(errors="replace")[-5000:]

    @contextmanager
    def traffic(self, rate: float, tcp_port: int = 0) -> Iterator[dict[str, Any]]:
        """Frames through the guest while the body runs; then the dictionary has the figures."""
        argv = [sys.executable, "-m", "tests.vm.traffic", self.work, rate, tcp_port]
        tester = sh.popen([str(word) for word in argv], stdin=subprocess.PIPE)
        found: dict[str, Any] = {}
        try:
            assert tester.stdout and tester.stdin
            assert tester.stdout.readline() == "ready\n", tester.communicate()[1]
            yield found
            tester.stdin.close()
            tester.stdin = None
            out, error = tester.communicate(timeout=60)
            assert tester.returncode == 0, error
            found.update(json.loads(out))
        finally:
            sh.kill(tester)
            for index in (0, 1):
                (self.work / f"tester{index}").unlink(missing_ok=True)


def nic(work: Path, index: int) -> str:
    """A virtio port of the guest, on sockets of the tester."""
    return (
        f"-netdev dgram,id=wire{index},local.type=unix,local.path={work}/element{index},"
        f"remote.type=unix,remote.path={work}/tester{index} "
        f"-device virtio-net-pci,netdev=wire{index},mac={network.MACS[index]},addr={16 + index:#x},"
        f"rx_queue_size=1024"
    )


def images(
    work: Path, suites: tuple[str, str], modules: Path, settings: str,
    customize: Sequence[Customize], *, partitions: bool,
) -> tuple[list[Path], tuple[str, str]]:  # fmt: skip
    """The disks with the two roots, and the devices they will be."""
    made = [
        roots.image(
            roots.installed(suite, package()), work / f"{name}.img",
            customize=lambda top: fit_out(top, modules, settings, customize),
        )
        for suite, name in zip(suites, "ab", strict=True)
    ]  # fmt: skip
    if not partitions:
        return made, ("/dev/vda", "/dev/vdb")
    return [roots.disk(work / "disk.img", made)], ("/dev/vda1", "/dev/vda2")


@contextmanager
def guest(
    work: Path, suites: tuple[str, str], *, kernel_of: str = "bookworm", settings: str = "",
    customize: Sequence[Customize] = (), partitions: bool = False, options: str = "",
) -> Iterator[Guest]:  # fmt: skip
    """A guest that runs the first of the two suites on the kernel of `kernel_of`."""
    top = kernel.tree(kernel_of)
    disks, devices = images(
        work, suites, top / "lib/modules", settings, customize, partitions=partitions
    )
    line = work / "line"
    argv = [
        "vng", "--run", kernel.image(top), "--systemd", "--root-disk", disks[0],
        "--root-dev", devices[0], "--root-fstype", "ext4", "--rw",
        *(word for disk in disks[1:] for word in ("--disk", str(disk))),
        "--force-9p", "--memory", "1G", "--cpus", "2", "--verbose",
        *([] if has_kvm() else ["--disable-kvm"]),
        f"--qemu-opts=-serial unix:{line},server=on,wait=off "
        f"{nic(work, 0)} {nic(work, 1)} {processor()} {options}",
    ]  # fmt: skip
    console = work / "console"
    env = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with console.open("w") as log:
        process = sh.popen([str(a) for a in argv], stdout=log, stderr=log, env=env)
    try:
        channel = Channel(line)
        found = Guest(process, channel, work, console, devices, "")
        try:
            found.root = channel.hello(BOOT_SEC)
        except Exception:
            raise AssertionError(found.tail()) from None
        channel.run(READY, BOOT_SEC)
        yield found
    finally:
        sh.kill(process)


def processor() -> str:
    """Emulated, without an instruction that QEMU 7.2 gets wrong once in some million times.

    After cmpxchg16b, which the allocator of kernel 6.12 uses, EFLAGS were another register's
    value, and the guest ended in a double fault.
    """
    return "" if has_kvm() else "-cpu max,-cx16"


def has_kvm() -> bool:
    """Whether the processor has what hardware virtualisation needs; else it is emulated."""
    return bool({"vmx", "svm"} & set(Path("/proc/cpuinfo").read_text().split()))
