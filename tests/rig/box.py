"""One systemd-nspawn process: cgroups of its own, and no mount of the root but the container's."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from . import sh, wait

REBOOT = 133  # exit status of systemd-nspawn --keep-unit when the container reboots
BOOT_TIMEOUT = 30  # seconds until the container's PID 1 runs
EMPTY_TIMEOUT = 20  # seconds until every process of a killed container is gone
NSPAWN = (
    *("systemd-nspawn", "--boot", "--register=no", "--keep-unit", "--settings=no"),
    *("--link-journal=no", "--resolv-conf=off", "--timezone=off"),
    "--capability=CAP_NET_ADMIN",  # an own network namespace, but nspawn takes it for the host's
)
# A host with mixed hierarchies offers version 1, which newer guests refuse. The system call
# filter of an old nspawn does not know the mount calls of a newer systemd.
NSPAWN_ENV = {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1", "SYSTEMD_SECCOMP": "0"}
# The root is mounted in a mount namespace that only nspawn lives in: the host never has the
# mount, so nothing that is started on the host meanwhile can inherit a copy of it.
APART = ("unshare", "--mount", "--propagation", "slave")
LAUNCH = """
for dir in $CGROUPS; do echo 0 > "$dir/cgroup.procs"; done
mount "$1" "$2"
shift 2
exec "$@"
"""


@dataclass(frozen=True)
class Box:
    """A running container: the nspawn process, and the host's id of the container's PID 1."""

    supervisor: subprocess.Popen[str]
    leader: int


def start(
    device: Path,
    top: Path,
    *,
    name: str,
    namespace: str,
    devices: Sequence[Path],
    groups: Sequence[Path],
    console: IO[str],
) -> Box:
    """Boot the root file system on `device`; returns when its PID 1 has been started.

    `top` is an empty directory, `namespace` a name for ip-netns(8), `devices` the block
    device nodes that exist inside, `groups` the cgroups to run in.
    """
    argv: list[str | Path] = [*APART, "sh", "-ec", LAUNCH, "sh", device, top]
    argv += [*NSPAWN, f"--machine={name}", f"--directory={top}"]
    argv += [f"--network-namespace-path=/run/netns/{namespace}"]
    argv += [f"--bind={node}" for node in devices]
    env = {**NSPAWN_ENV, "CGROUPS": " ".join(map(os.fspath, groups))}
    supervisor = sh.popen(argv, stdout=console, stderr=subprocess.STDOUT, env=env)
    try:
        leader = wait.until(lambda: _leader(supervisor), BOOT_TIMEOUT, f"{name} has a PID 1")
        sh.run(["nsenter", f"--target={supervisor.pid}", "--mount", "umount", top])
    except BaseException:
        sh.kill(supervisor)
        empty(groups)
        raise
    return Box(supervisor, leader)


def _leader(supervisor: subprocess.Popen[str]) -> int | None:
    """Host PID of the container's PID 1 once it runs systemd, i.e. nspawn's set-up is over."""
    if supervisor.poll() is not None:
        raise wait.Timeout(f"systemd-nspawn ended with {supervisor.returncode} before the boot")
    for status in Path("/proc").glob("[0-9]*/status"):
        with suppress(OSError):
            text = status.read_text()
            mine = re.search(rf"^PPid:\s{supervisor.pid}$", text, re.MULTILINE)
            first = re.search(r"^NSpid:\s\d+\s1$", text, re.MULTILINE)
            if mine and first and Path(status.parent / "exe").readlink().name == "systemd":
                return int(status.parent.name)
    return None


def hierarchies() -> list[Path]:
    """Mount points of the cgroup hierarchies that systemd uses: version 2 and name=systemd."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, tail = line.partition(" - ")
        kind, _, options = tail.split(" ", 2)
        if kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in options.split(",")):
            found.append(Path(fields.split()[4]))
    return found


@contextmanager
def cgroups(name: str) -> Iterator[list[Path]]:
    """A cgroup NAME in each of `hierarchies`; leaving kills everything in it and removes it."""
    groups = [top / name for top in hierarchies()]
    try:
        for group in groups:
            group.mkdir()
        yield groups
    finally:
        made = [group for group in groups if group.exists()]
        empty(made)
        for group in made:
            remove(group)


def stop(box: Box) -> None:
    """End a container at once. Killing the supervisor alone would leave the container behind."""
    if box.supervisor.poll() is None:  # or else the leader's number may be somebody else's
        os.kill(box.leader, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        box.supervisor.wait(EMPTY_TIMEOUT)
    sh.kill(box.supervisor)


def empty(groups: Sequence[Path]) -> None:
    """SIGKILL every process in these cgroups and below, and wait until they are gone."""

    def over() -> bool:
        rest = {pid for group in groups for pid in members(group)}
        for pid in rest:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not rest

    wait.until(over, EMPTY_TIMEOUT, f"no process in {groups}")


def members(group: Path) -> set[int]:
    """Processes in a cgroup and below it."""
    found: set[int] = set()
    for procs in [group / "cgroup.procs", *group.rglob("cgroup.procs")]:
        with suppress(OSError):
            found.update(int(pid) for pid in procs.read_text().split())
    return found


def remove(group: Path) -> None:
    """Remove an empty cgroup with those below it."""
    for top, _, _ in os.walk(group, topdown=False):
        Path(top).rmdir()
