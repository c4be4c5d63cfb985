"""What the rig has on the host while it runs, found by name, and removed when its owner died.

Everything is called issu-rig-PID-..., after the process that made it.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from . import box, sh

PREFIX = "issu-rig"
KEPT = "-failed-"
OWNER = re.compile(rf"{PREFIX}-(\d+)-")
NETNS = Path("/run/netns")
PROPAGATE = Path("/run/systemd/nspawn/propagate")
FAST = Path("/dev/shm")
ROOM = 6 << 30  # bytes free from which on images are made in memory, of two tests at a time


def places() -> list[Path]:
    """Directories where images may be made, the preferred one first."""
    chosen = os.environ.get("ISSU_WORK")
    fast = [FAST] if FAST.is_dir() and shutil.disk_usage(FAST).free >= ROOM else []
    return [*([Path(chosen)] if chosen else fast), Path(tempfile.gettempdir())]


@contextmanager
def workspace() -> Iterator[Path]:
    """A directory for images: in $ISSU_WORK, else in memory if there is room, else in $TMPDIR.

    In memory an image of a root is there in 0.2 s, on a slow disk in 1 to 5 s.
    """
    sweep()
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}-{os.getpid()}-", dir=places()[0]) as top:
        yield Path(top)


def traces(owner: int) -> list[str]:
    """Everything on this host that belongs to a rig run by process `owner`, as text.

    The logs of a machine that failed are kept, and no trace.
    """
    mark = f"{PREFIX}-{owner}-"
    paths = [path for path in _paths() if KEPT not in path.name]
    found = [str(path) for path in paths if path.name.startswith(mark)]
    found += [f"{device} over {image}" for device, image in _loops() if mark in image]
    for proc in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            mounts = (proc / "mountinfo").read_text()
            group, line = (proc / "cgroup").read_text(), (proc / "cmdline").read_text()
            if int(proc.name) != owner and mark in group + line:
                found.append(f"process {proc.name}: {line.replace(chr(0), ' ')}")
            if mark in mounts:
                found.append(f"mounts seen by process {proc.name}")
    return found


def sweep() -> None:
    """Remove what rigs left behind whose process has been killed."""
    dead = {name for name in {p.name for p in _paths()} if _is_dead(name)}
    for path in _paths():
        if path.name in dead and path.parent in box.hierarchies():
            box.empty([path])
            box.remove(path)
    for path in _paths():
        if path.name in dead and path.parent == NETNS:
            sh.run(["ip", "netns", "delete", path.name])
        elif path.name in dead:
            shutil.rmtree(path, ignore_errors=True)


def _is_dead(name: str) -> bool:
    owner = OWNER.match(name)
    if owner is None or KEPT in name:
        return False
    return not Path("/proc", owner[1]).exists()


def _paths() -> list[Path]:
    tops = [NETNS, PROPAGATE, *box.hierarchies(), *places()]
    return [path for top in tops for path in top.glob(f"{PREFIX}-*")]


def _loops() -> list[tuple[str, str]]:
    lines = sh.output(["losetup", "--noheadings", "--output=NAME,BACK-FILE"]).splitlines()
    pairs = (line.split(None, 1) for line in lines)
    return [(pair[0], pair[1]) for pair in pairs if len(pair) == 2]
