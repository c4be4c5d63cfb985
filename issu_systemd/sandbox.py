"""issu-rehearsal@.service: a throw-away copy of a root, and systemd-nspawn(1) that boots it.

What is written goes to memory, in a mount namespace that ends with the program. The root is made
what it would be after `stage`, as far as services can tell: files are carried to it, and over each
carried mount lies a copy as well. What an upgrade does not start is not started here either.
"""

from __future__ import annotations

import os
import platform
import signal
import sys
from contextlib import suppress
from pathlib import Path

from . import carry, mounts, settings
from .errors import IssuError, SettingsError
from .settings import Settings
from .systemd import notify

RUN = Path("/run")  # all that we need to see of it is what we mount there
RUNNING = Path("/")
NSPAWN = "/usr/bin/systemd-nspawn"
COMMAND = (
    *("--quiet", "--boot", "--register=no", "--keep-unit", "--settings=no", "--console=pipe"),
    *("--link-journal=no", "--resolv-conf=off", "--timezone=off", "--suppress-sync=yes"),
    # Of our own unit, which nspawn takes for the machine's, and so would not let it be configured.
    *("--network-namespace-path=/proc/self/ns/net", "--capability=CAP_NET_ADMIN"),
    *("--drop-capability=CAP_MKNOD", "--machine=issu-rehearsal"),
)
# The filter of system calls of an old nspawn does not know those of a newer systemd.
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "SYSTEMD_SECCOMP": "0"}
SIZE = "25%"  # of the memory, for all that is written; MemoryMax= of the unit counts it too
GRACE_SEC = 30  # after the deadline we end ourselves, should nobody be left to do it
# They configure or await links, devices, the time of a server, and here are none: they would fail,
# or wait for ever.
HARDWARE = (
    *("networking.service", "ifup@.service", "ifupdown-wait-online.service"),
    *("systemd-networkd-wait-online.service", "systemd-networkd-wait-online@.service"),
    *("NetworkManager-wait-online.service", "systemd-udev-settle.service"),
    *("chrony-wait.service", "ntp-wait.service"),
)
SKIP = "[Unit]\nConditionVirtualization=!container\n"
# A daemon may bind to an address that no link has: here no link has any.
BIND_ANY = ("ipv4/ip_nonlocal_bind", "ipv6/ip_nonlocal_bind")


def build(source: Path, chosen: Settings) -> Path:
    """The copy of the root on a device, or of the running one; raises IssuError, OSError."""
    if network("self") == network("1"):
        raise IssuError("it has no network namespace of its own")
    carried = [point for point in chosen.carry_mounts if mounts.mount_at(point)]
    mounts.apart()
    mounts.mount("tmpfs", RUN, options=f"size={SIZE},mode=755", fstype="tmpfs")
    if source != RUNNING:
        (RUN / "lower").mkdir()
        mounts.mount(str(source), RUN / "lower", options="ro")
        source = RUN / "lower"
    root = RUN / "root"
    layer(source, root)
    if source != RUNNING:
        carry.files(chosen.carry_files, root)
    for point in carried:
        layer(Path(point), carry.inside(root, point))
    for unit in unwanted(chosen, source):
        place = root / "etc/systemd/system" / f"{unit}.d"
        place.mkdir(parents=True, exist_ok=True)
        (place / "50-issu-rehearsal.conf").write_text(SKIP)
    for name in BIND_ANY:
        with suppress(OSError):  # a kernel without IPv6
            (Path("/proc/sys/net") / name).write_text("1")
    return root


def network(process: str) -> str:
    """The network namespace of a process, as namespaces(7) names it."""
    return os.readlink(f"/proc/{process}/ns/net")  # noqa: PTH115


def layer(lower: Path, place: Path) -> None:
    """Mount a copy of `lower` at `place`; what is written there stays in memory."""
    store = RUN / f"layer-{len(list(RUN.glob('layer-*')))}"
    for part in (place, store / "upper", store / "scratch"):
        part.mkdir(parents=True, exist_ok=True)
    options = f"nodev,lowerdir={lower},upperdir={store}/upper,workdir={store}/scratch"
    mounts.mount("overlay", place, options=options, fstype="overlay")


def unwanted(chosen: Settings, source: Path) -> list[str]:
    """The units that are not started in the rehearsal of the root at `source`."""
    own: tuple[str, ...] = ()
    with suppress(SettingsError):  # preflight tells it
        own = settings.load(source).skip
    return sorted({*HARDWARE, *chosen.keep, *chosen.skip, *chosen.rehearse_skip, *own})


def keep_line() -> None:
    """Let PID 1's socket for sd_notify(3) be found although our own /run hides it."""
    seen = os.open(RUN, os.O_PATH | os.O_CLOEXEC)
    name = os.environ.get("NOTIFY_SOCKET", "")
    if name.startswith("/run/"):
        os.environ["NOTIFY_SOCKET"] = f"/proc/self/fd/{seen}/{name.removeprefix('/run/')}"


def main() -> int:
    """Become systemd-nspawn with the root that the first argument names: a device, or "/"."""
    chosen = settings.load()
    keep_line()
    try:
        root = build(Path(sys.argv[1]), chosen)
    except (IssuError, OSError) as error:
        print(f"<3>{error}", file=sys.stderr)
        return 1
    signal.alarm(chosen.rehearse_timeout_usec // 1_000_000 + GRACE_SEC)  # execve(2) keeps it
    name = f"--hostname={platform.node()}"
    notify(ready=True)
    os.execve(NSPAWN, [NSPAWN, *COMMAND, f"--directory={root}", name], ENVIRONMENT)


if __name__ == "__main__":
    sys.exit(main())
