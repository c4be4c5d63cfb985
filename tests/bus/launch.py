"""The service as a process of its own, with directories of a test in place of /run, /var and /dev.

`launch.py DIRECTORY IDLE_SEC` is the service; `launch.py check DIRECTORY TARGET OPTIONS` is what it
runs in place of check.py: it notes that it ran and answers what DIRECTORY/check.json says.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from issu_systemd import contract, devices, history, inquiry, observer, record, service  # noqa: E402
from issu_systemd.errors import Refused  # noqa: E402

DEV = "/dev/issu-test/"


def find(place: Path, name: str) -> tuple[str, int]:
    """What devices.find does; every file in DIRECTORY/dev counts as a block device."""
    there = place / "dev" / name.removeprefix(DEV)
    if not name.startswith(DEV) or not os.path.exists(there):  # noqa: PTH110  # however long
        raise Refused(f"{name}: no such device", hint="lsblk lists them")
    return name, 1


def check(place: Path) -> int:
    said = json.loads((place / "check.json").read_text())
    with (place / "checked").open("a") as log:
        log.write(f"{sys.argv[3]} {sys.argv[4]}\n")
    while (place / "hold").exists():
        time.sleep(0.01)
    print(said if isinstance(said, str) else json.dumps(said))
    return 0


def main(place: Path, idle_sec: float) -> int:
    record.DIRECTORY = place / "issu"
    record.RECORD = record.DIRECTORY / "record.json"
    record.HISTORY = history.PLACE = place / "history"
    contract.INSTALLED = ROOT / "data/dbus/org.issu1.xml"
    devices.find = lambda name: find(place, name)
    observer.running_root = lambda: f"{DEV}a"
    inquiry.PROGRAM = (sys.executable, __file__, "check", str(place))
    service.IDLE_SEC = idle_sec
    service.root_dev = lambda: int((place / "root").read_text())
    service.pid1_dev = lambda: int((place / "pid1").read_text())
    return service.main()


if __name__ == "__main__":
    if sys.argv[1] == "check":
        sys.exit(check(Path(sys.argv[2])))
    sys.exit(main(Path(sys.argv[1]), float(sys.argv[2])))
