"""What of a system may not grow with its upgrades, as JSON: KiB of memory, else how many.

The least of some looks, for processes and connections come and go.
"""

import json
import os
import subprocess
from contextlib import suppress
from pathlib import Path

LOOKS = 5
KERNEL = 0x200000  # PF_KTHREAD, among the flags of proc_pid_stat(5)
SERVICES = {"the bus": "dbus.service", "journald": "systemd-journald.service"}


def lines(*argv: str) -> int:
    """How many lines a program prints."""
    return len(subprocess.run(argv, stdout=subprocess.PIPE, check=True).stdout.splitlines())


def descriptors(pid: str) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def main_pid(unit: str) -> str:
    argv = ["systemctl", "show", "--property=MainPID", "--value", unit]
    return subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def entries(*places: str) -> int:
    """All but what PID 1 makes for the first transient unit, and keeps."""
    return lines("find", *places, "-xdev", "!", "-path", "/run/systemd/transient")


def processes() -> int:
    """How many there are, without the kernel's own."""
    count = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            count += not int(path.read_text().rpartition(")")[2].split()[6]) & KERNEL
    return count


def look() -> dict[str, int]:
    status = dict(line.split(":", 1) for line in Path("/proc/1/status").read_text().splitlines())
    return {
        "memory": int(status["RssAnon"].split()[0]),
        "descriptors of PID 1": descriptors("1"),
        **{f"descriptors of {who}": descriptors(main_pid(SERVICES[who])) for who in SERVICES},
        "mounts": len(Path("/proc/1/mountinfo").read_text().splitlines()),
        "loop devices": len(list(Path("/sys/block").glob("loop*/loop"))),
        "cgroups": sum(len(below) for _, below, _ in os.walk("/sys/fs/cgroup")),
        "units": lines("systemctl", "list-units", "--all", "--no-legend"),
        "processes": processes(),
        "entries of /run": entries("/run"),
        "drop-ins": len(list(Path("/run/systemd/system").iterdir())),
        "entries of /etc/systemd": entries("/etc/systemd"),
        "entries of /tmp": entries("/tmp", "/var/tmp"),
    }


looks = [look() for _ in range(LOOKS)]
print(json.dumps({key: min(one[key] for one in looks) for key in looks[0]}))
