"""Run-time files of one upgrade for programs that are not held by a unit's drop-in alone.

- modprobe.d(5): systemd loads some modules by itself when it starts, before any unit (its
  kmod-setup.c); it heeds the blacklist. What is loaded already stays.
- networkd.conf(5): systemd-networkd removes routes, rules and nexthops that it did not make itself,
  those of a routing daemon for instance, when it starts.
- systemd.network(5) KeepConfiguration=: when it starts, systemd-networkd 252 removes the addresses,
  and with them routes and neighbours, that its predecessor made, and makes them anew at once.
- It drops leases when it is told to stop, but not when it is told to restart (RestartKillSignal= of
  its unit): so it is told that.

They lie below /run: they cross the switch, and an ordinary boot knows nothing of them. The
networkd that has read them goes by them until it is restarted.
"""

from __future__ import annotations

from pathlib import Path

from . import gate, record

MODPROBE = Path("/run/modprobe.d/50-issu.conf")
NETWORKD = Path("/run/systemd/networkd.conf.d/50-issu.conf")
NETWORK = Path("/run/systemd/network")
NETWORK_PLACES = ("etc", "run", "usr/local/lib", "usr/lib")
NAME = "50-issu.conf"
NETWORKD_UNIT = "systemd-networkd.service"
# Those of every systemd from 252 on.
LOADED_BY_PID1 = (
    "autofs4", "ipv6", "unix", "ip_tables", "nfnetlink", "virtio_rng", "virtio_console",
    "qemu_fw_cfg", "dmi_sysfs", "tpm", "efivarfs", "vsock", "vsock_loopback",
    "vmw_vsock_virtio_transport", "vmw_vsock_vmci_transport", "hv_sock",
)  # fmt: skip
FOREIGN = """\
[Network]
ManageForeignRoutes=no
ManageForeignRoutingPolicyRules=no
ManageForeignNextHops=no
"""
KEEP = "[Network]\nKeepConfiguration=yes\n"
AS_RESTART = "[Service]\nKillSignal=SIGUSR2\n"


def close(stage: Path) -> None:
    """Write the files, before anything stops or starts; `stage` holds the new root.

    Raises OSError.
    """
    record.write_atomically(MODPROBE, "".join(f"blacklist {name}\n" for name in LOADED_BY_PID1))
    record.write_atomically(NETWORKD, FOREIGN)
    for name in sorted(networks(Path("/")) | networks(stage)):
        record.write_atomically(NETWORK / f"{name}.d" / NAME, KEEP)


def networks(root: Path) -> set[str]:
    """The names of the .network files of a root."""
    places = (root / place / "systemd/network" for place in NETWORK_PLACES)
    return {path.name for place in places for path in place.glob("*.network")}


def stop_as_restart() -> None:
    """Have networkd keep its leases when it stops, once PID 1 has reloaded; raises OSError."""
    gate.drop_in(NETWORKD_UNIT, AS_RESTART)


def open_again() -> None:
    """Remove the files; the unit's drop-in is removed with the others, by gate.open_again."""
    for path in (MODPROBE, NETWORKD, *NETWORK.glob(f"*.network.d/{NAME}")):
        path.unlink(missing_ok=True)
        if path.parent.is_dir() and not any(path.parent.iterdir()):
            path.parent.rmdir()
