"""System V objects of stopped services are released, those of keep-ipc keep their content."""

import shutil
from pathlib import Path

from .element import Element, element, write_settings, write_unit

PROGRAM = Path(__file__).with_name("data") / "sysv.py"
KINDS = ("shm", "sem", "msg")
INSIDE = "/usr/local/lib/sysv.py"
KEPT, OTHER = 0x46494201, 0x46494202
NEGATIVE = 0xFEED0003  # has the highest bit set: a negative number for the kernel
SETTINGS = f"""
[release]
keep-ipc = [
    "shm:{KEPT:#x}", "sem:{KEPT}", "msg:0x{KEPT:X}",
    "shm:{NEGATIVE:#x}",
]
"""
UNIT = f"""
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/python3 {INSIDE} make {KEPT} fib
ExecStart=/usr/bin/python3 {INSIDE} make {OTHER} fib
ExecStart=/usr/bin/python3 {INSIDE} make {NEGATIVE} fib
"""


def prepare(root: Path) -> None:
    shutil.copy(PROGRAM, root / INSIDE.lstrip("/"))
    write_settings(root, SETTINGS)


def with_service(root: Path) -> None:
    prepare(root)
    write_unit(root, "fib.service", UNIT)


def keys(e: Element) -> dict[str, list[int]]:
    """The objects of the element by kind."""
    tables = {kind: e.machine.run(["cat", f"/proc/sysvipc/{kind}"]).stdout for kind in KINDS}
    return {
        kind: sorted(int(line.split()[0]) & 0xFFFFFFFF for line in text.splitlines()[1:])
        for kind, text in tables.items()
    }


def test_ipc(tmp_path: Path) -> None:
    """Each key has the same three objects; nothing but the setting makes the difference."""

    def show(key: int) -> str:
        return e.machine.run(["python3", INSIDE, "show", str(key)]).stdout.strip()

    with element(tmp_path, "bookworm", "trixie", in_source=with_service, in_target=prepare) as e:
        assert keys(e) == {kind: [KEPT, OTHER, NEGATIVE] for kind in KINDS}
        report = e.upgrade()
        assert report["result"] == "accepted", report
        assert keys(e) == {"shm": [KEPT, NEGATIVE], "sem": [KEPT], "msg": [KEPT]}

        assert show(KEPT) == "fib 3 fib"
        assert show(OTHER) == "- - -"
        assert show(NEGATIVE) == "fib - -"

        # Back without the setting: had one been left, the service could not make it anew.
        (e.machine.path("/etc/issu/conf.d") / "50-test.toml").unlink()
        report = e.upgrade(e.source)
        assert report["result"] == "accepted", report
        assert e.machine.systemctl("is-active", "fib.service") == "active"
        assert keys(e) == {kind: [KEPT, OTHER, NEGATIVE] for kind in KINDS}
