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
# Where a systemd hangs its program into the hook of BPF's security module while the guest runs, the
# emulator's processors may loop at that instruction for ever.
NO_BPF = "lsm=landlock,lockdown,yama,apparmor"
# What a kernel does against attackers is of no concern to a guest of ours, and takes an emulated
# processor a fifth of its time.
QUICK = "mitigations=off init_on_alloc=0 randomize_kstack_offset=off hardened_usercopy=off"
UPGRADE_SEC = 600.0
CHANNEL = """\
[Unit]
Description=Runs what comes by the second serial line
[Service]
ExecStart=/usr/bin/python3 -I /usr/local/sbin/channel
Restart=on-failure
"""
# virtme hides the root's own modules and fstab while it boots: bring the guest to where an ordinary
# boot would be. Without autofs4, which PID 1 loads by itself, automount units would fail.
START = """
set -e
umount /usr/lib/modules /etc/fstab
udevadm trigger --type=all --action=add --settle
modprobe autofs4
systemctl reset-failed
systemctl restart nftables.service
systemctl start multi-user.target
"""
QUIET = """
until [ -z "$(systemctl list-jobs --no-legend)" ]; do sleep 0.2; done
systemctl is-system-running --wait || systemctl --failed
"""
READY = f"""{START}
for port in enp0s16 enp0s17; do
    until ip -4 address show dev $port | grep -q ' inet ' &&
        ip -6 address show dev $port -tentative | grep -q ' fd00'; do sleep 0.2; done
done
until [ -n "$(ip route show table 100)" ]; do sleep 0.2; done
{QUIET}"""
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
    """A guest; `disks` are its roots' devices, the first is the one it boots from, every time.

    `argv` starts it, `ready` is what a boot does once it can be talked to.
    """

    argv: Sequence[str | Path]
    work: Path
    disks: tuple[str, str]
    ready: str = READY
    root: str = ""
    process: "subprocess.Popen[str]" = field(init=False)
    channel: Channel = field(init=False)

    @property
    def console(self) -> Path:
        """What its console said, in every boot."""
        return self.work / "console"

    def boot(self) -> None:
        """Start it from its disks, and wait until it is in service."""
        line = self.work / "line"
        line.unlink(missing_ok=True)
        env = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        with self.console.open("a") as log:
            self.process = sh.popen([str(a) for a in self.argv], stdout=log, stderr=log, env=env)
        self.channel = Channel(line)
        try:
            self.root = self.channel.hello(BOOT_SEC)
        except Exception:
            raise AssertionError(self.tail()) from None
        self.run(self.ready, BOOT_SEC)

    def cut(self) -> None:
        """Cut its power."""
        sh.kill(self.process)
        self.channel.socket.close()

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
    ready: str = READY, cpus: int = 2,
) -> Iterator[Guest]:  # fmt: skip
    """A guest that runs the first of the two suites on the kernel of `kernel_of`."""
    top = kernel.tree(kernel_of)
    disks, devices = images(
        work, suites, top / "lib/modules", settings, customize, partitions=partitions
    )
    argv: list[str | Path] = [
        "vng", "--run", kernel.image(top), "--systemd", "--root-disk", disks[0],
        "--root-dev", devices[0], "--root-fstype", "ext4", "--rw",
        *(word for disk in disks[1:] for word in ("--disk", str(disk))),
        "--force-9p", "--memory", "1G", "--cpus", str(cpus), "--verbose",
        *([] if has_kvm() else ["--disable-kvm", "--append", f"{NO_BPF} {QUICK}"]),
        f"--qemu-opts=-serial unix:{work}/line,server=on,wait=off "
        f"{nic(work, 0)} {nic(work, 1)} {processor()} {options}",
    ]  # fmt: skip
    found = Guest(argv, work, devices, ready)
    try:
        found.boot()
        yield found
    finally:
        if hasattr(found, "process"):
            sh.kill(found.process)


def processor() -> str:
    """Emulated, without an instruction that QEMU 7.2 gets wrong once in some million times.

    After cmpxchg16b, which the allocator of kernel 6.12 uses, EFLAGS were another register's
    value, and the guest ended in a double fault. And without those that are slow when they are
    emulated: a string instruction moves a byte at a time.
    """
    return "" if has_kvm() else "-cpu max,-cx16,-erms,-fsrm,-la57,-smap"


def has_kvm() -> bool:
    """Whether the processor has what hardware virtualisation needs; else it is emulated."""
    return bool({"vmx", "svm"} & set(Path("/proc/cpuinfo").read_text().split()))
