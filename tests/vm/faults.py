"""What may go wrong with an upgrade, when, and where the machine must be after it.

A cell of the matrix is a fault, a place in the upgrade and a strategy. Both roots carry a package
that stands still at each of these places if a file in /run says so, tells the test, and does to
itself or to the machine what the file says.
"""

import tempfile
from pathlib import Path
from typing import NamedTuple

from tests.rig import cache, roots, sh

from . import kernel

DATA = Path(__file__).with_name("data")
PACKAGE = "usr/lib/python3/dist-packages/issu_systemd"
STRATEGIES = ("halt", "live")
FAULTS = ("kill", "power", "hang", "io-error", "unplug", "run-full", "root-full")
PHASES = ("preflight", "stage", "release", "before", "after", "arrive", "verify", "accept")
EARLY = PHASES[:4]  # / is the old root
TITLES = {"before": "just before the switch", "after": "just after it"}


class Point(NamedTuple):
    """Where a process stands: before or after a call of a function of a module."""

    module: str
    call: str
    after: bool = False


BOTH = {
    "preflight": Point("devices", "resolve", after=True),
    "stage": Point("warm", "warm"),
    "verify": Point("verify", "verify"),
    "accept": Point("verdict", "conclude"),
}
POINTS = {
    "halt": BOTH | {
        "release": Point("reap", "reap"),  # everything has stopped
        "before": Point("switch", "switch"),
        "after": Point("arrive", "carry_on"),  # the first thing that the new root does of ours
        "arrive": Point("arrive", "prove"),
    },
    "live": BOTH | {
        "release": Point("live", "stop", after=True),
        "before": Point("pivot", "swap"),
        "after": Point("pivot", "swap", after=True),  # PID 1 is of the old root yet
        "arrive": Point("restart", "restart"),
    },
}  # fmt: skip
MAIN = '\n\nif __name__ == "__main__":'
PACKAGES = ("dmsetup", "libdevmapper1.02.1")
FILL = """\
fallocate -l $(( $(stat -f -c '%f * %S' {place}) - 8000000 )) {place}/fill
dd if=/dev/zero of={place}/fill.rest bs=64k status=none
dd if=/dev/zero of={place}/fill.last bs=512 status=none
"""
# What the process that stands there does; {target} is the new root's device, {place} where it is.
SCRIPTS = {
    "kill": "kill -KILL $PPID",
    "power": "sleep 1000",  # the test cuts it
    "hang": "kill -STOP $PPID",
    "io-error": "dmsetup wipe_table --noflush {mapped}",
    "unplug": "echo 1 >$(readlink -f /sys/block/{disk}/device/..)/remove",
    "run-full": FILL,
    "root-full": FILL,
}
# Shorter than the package has them, so that a hang that PID 1 may end does not last as long. The
# second is until what does not heed SIGTERM is killed; what then undoes the upgrade has it too.
TIMES = {"issu@.service": (120, 40), "issu-arrive.service": (40, 3)}
DROP_IN = """\
mkdir -p /run/systemd/system/{unit}.d
printf '[Service]\\nTimeoutStartSec={start}\\nTimeoutStopSec={stop}\\n' \\
    >/run/systemd/system/{unit}.d/times.conf
"""


class Cell(NamedTuple):
    """One fault, at one place, with one strategy."""

    strategy: str
    fault: str
    phase: str

    def __str__(self) -> str:
        return "-".join(self)


class End(NamedTuple):
    """Where the machine must be: "old" or "new", with which result in the history, and why.

    `stuck`: nobody of ours can go on, and only a reset helps.
    """

    root: str
    result: str
    why: str = ""
    stuck: bool = False


CUT = End("old", "failed", "power was lost, or the kernel restarted")
STUCK = CUT._replace(stuck=True)
ACCEPTED = End("new", "accepted")
NAMES = {"before": "switch"}  # the phase that the record is in


def expected(cell: Cell) -> tuple[End, ...]:
    """The ends that are right for a cell."""
    strategy, fault, phase = cell
    early, name = phase in EARLY, NAMES.get(phase, phase)
    match fault:
        case "power":
            return (CUT,)
        case "kill" if early:
            return (End("old", "failed", f"the agent died in phase {name} (signal KILL)"),)
        case "kill":
            return (ACCEPTED,)
        case "hang" if phase in ("preflight", "stage"):
            return (End("old", "failed", f"took too long in phase {name} and was stopped"),)
        case "hang" if strategy == "halt" and phase in ("after", "arrive"):
            return (ACCEPTED,)  # its start takes too long, and it is started again
        case "hang":
            return (STUCK,)
        case "run-full" if phase == "preflight":
            return (End("old", "refused", "/run"),)
        case "root-full" if phase == "preflight":
            return (End("old", "refused", "free"),)
        case "run-full" | "root-full":
            return (ACCEPTED,)
        case _ if phase == "preflight":
            return (End("old", "refused"), End("old", "failed"))
        case _ if phase in ("stage", "release"):
            return (End("old", "failed"),)
    # The disk of the new root is gone: back, if what is in memory carries us so far. After verify
    # nobody looks at it any more.
    late = (End("old", "accepted", stuck=True), ACCEPTED) if phase == "accept" else ()
    return (STUCK, End("old", "rolled-back"), End("old", "failed"), *late)


def matrix() -> list[Cell]:
    """Every cell, in the order of the table."""
    return [Cell(s, f, p) for s in STRATEGIES for f in FAULTS for p in PHASES]


def shorten() -> str:
    """A script that has PID 1 end a hang soon, on either root."""
    drop_ins = [
        DROP_IN.format(unit=unit, start=start, stop=stop) for unit, (start, stop) in TIMES.items()
    ]
    return "".join(drop_ins) + "systemctl daemon-reload\n"


def dmsetup(suite: str) -> Path:
    """A tree with dmsetup(8) and its rules for udev, to be laid over a root."""

    def build(part: Path) -> None:
        part.mkdir()
        with tempfile.TemporaryDirectory() as work:
            archive = kernel.Archive(suite, Path(work))
            fetch = ["apt-get", *archive.options, "download", *PACKAGES]
            sh.run(["sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", work, *fetch], timeout=300)
            for deb in Path(work).glob("*.deb"):
                sh.run(["dpkg", "-x", deb, part])

    return cache.entry(f"dmsetup-{suite}-{cache.digest(*PACKAGES, roots.mirror())}", build)


def customize(top: Path) -> None:
    """Let the installed package stand still where it is told to."""
    text = (DATA / "stand").read_text()
    for strategy, points in POINTS.items():
        for phase, (module, call, after) in points.items():
            place = top / PACKAGE / f"{module}.py"
            code, main, rest = place.read_text().partition(MAIN)
            assert f"\ndef {call}(" in code, (module, call)
            code += text if "\ndef stand(" not in code else ""
            line = f'{call} = stand("{strategy}-{phase}", {call}, {after})\n'
            code = code if line in code else code + line
            place.write_text(code + main + rest)
    over = dmsetup((top / "etc/issu-root").read_text().strip())
    lay = 'tar -C "$0" -c . | tar -C "$1" -x --keep-directory-symlink'
    sh.run(["sh", "-c", lay, over, top])
    for name in ("nginx.service", "dnsmasq.service"):  # version-echo is enough of a service
        (top / "etc/systemd/system/multi-user.target.wants" / name).unlink()
