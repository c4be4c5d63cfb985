"""Any number of tiny services, each on a port of its own, for measuring."""

from pathlib import Path

from . import sh
from .figures import sample
from .services import Service, Tcp

FIRST_PORT = 8001
MOST = 5  # services probed: five every 2 ms take an eighth of two processors
PERIOD = 0.002  # seconds between two questions to one of them
UNITS = "echo@*.service"
UNIT = """\
[Unit]
Description=Answer on port %i

[Service]
Type=notify
ExecStart=/usr/local/sbin/version-echo %i
"""
OTHERS = ("nginx.service", "dnsmasq.service", "version-echo.service")
MACHINE_ID = "1550a0e04e1a4a1d9d3fbe5a1c9d2b61\n"  # so that no root is on its first boot


def install(top: Path, count: int) -> None:
    """Make the root at `top` start `count` services, and none of those that the rig gave it."""
    sh.run(["systemctl", f"--root={top}", "--quiet", "disable", *OTHERS])
    unit = top / "etc/systemd/system/echo@.service"
    unit.write_text(UNIT)
    wants = unit.parent / "multi-user.target.wants"
    for port in range(FIRST_PORT, FIRST_PORT + count):
        (wants / f"echo@{port}.service").symlink_to(f"../{unit.name}")
    (top / "etc/machine-id").write_text(MACHINE_ID)


def probed(address: str, count: int) -> dict[str, Service]:
    """The services to probe: all, or a sample with the first and the last of them."""
    ports = [FIRST_PORT - 1 + i for i in sample(count, MOST)]
    return {f"echo@{port}": Tcp(address, port) for port in ports}
