"""What the rig's own tests do with machines."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import roots, sh, wait
from .machine import Machine
from .services import Dns, Http, Service, Tcp

EXCLUSIVE = "import os, sys; os.open(sys.argv[1], os.O_RDWR | os.O_EXCL)"
HALT_TARGET = "[Unit]\nDefaultDependencies=no\nAllowIsolate=yes\n"
PRETTY = {"bookworm": "Debian GNU/Linux 12 (bookworm)", "trixie": "Debian GNU/Linux 13 (trixie)"}


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
