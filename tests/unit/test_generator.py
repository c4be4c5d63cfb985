"""data/issu-generator and data/restore as black boxes, with a /run of their own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from issu_systemd import record
from issu_systemd.record import Record

ROOT = Path(__file__).parents[2]
GENERATOR = ROOT / "data/issu-generator"
RESTORE = ROOT / "data/restore"
ID = "20260101T000000Z\n"
GATE = "[Unit]\nConditionPathExists=!/run/issu/in-progress\n"

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="needs root: a mount namespace with another /run in it"
)

# With $1 as /run and, if it is not "", $2 as the program /usr/bin/python3.
INSIDE = """
mount --bind "$1" /run
[ -z "$2" ] || mount --bind "$2" /usr/bin/python3
shift 2
exec "$@"
"""


class Machine:
    """A /run to be filled, and what a script does on it."""

    def __init__(self, top: Path) -> None:
        self.run = top / "run"
        self.issu = self.run / "issu"
        self.out = [top / name for name in ("normal", "early", "late")]
        self.python = top / "python3"
        for place in (self.run, *self.out):
            place.mkdir()
        self.python.write_text("#!/bin/sh\necho started \"$@\"\n")
        self.python.chmod(0o755)

    def write(self, name: str, text: str = "") -> None:
        self.issu.mkdir(exist_ok=True)
        (self.issu / name).write_text(text)

    def call(
        self, argv: Sequence[str | Path], *, path: str = os.defpath
    ) -> subprocess.CompletedProcess[str]:
        unshare = ["unshare", "--mount", "--propagation", "private", "sh", "-c", INSIDE, "sh"]
        set_path = ["/usr/bin/env", f"PATH={path}"]
        return subprocess.run(
            [*unshare, self.run, self.python, *set_path, *argv],
            capture_output=True,
            text=True,
            timeout=60,
        )

    def generate(self) -> dict[str, str]:
        """The files that the generator makes, by their path: content or where a link leads."""
        done = self.call([GENERATOR, *self.out])
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert [list(place.iterdir()) for place in self.out[1:]] == [[], []]
        files = [path for path in self.out[0].rglob("*") if not path.is_dir()]
        return {
            str(path.relative_to(self.out[0])): str(path.readlink())
            if path.is_symlink()
            else path.read_text()
            for path in files
        }


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


# --- the generator ------------------------------------------------------------------------------

LINKS = {
    "sysinit.target.wants/issu-arrive.service": "/usr/lib/systemd/system/issu-arrive.service",
    "default.target.wants/issu-reached.service": "/usr/lib/systemd/system/issu-reached.service",
}


@pytest.mark.parametrize("files", [[], ["record.json", "skip", "lock"]], ids=["none", "others"])
def test_on_an_ordinary_boot_it_writes_nothing(machine: Machine, files: list[str]) -> None:
    for name in files:
        machine.write(name, "vendor-hw-reset.service\n")
    assert machine.generate() == {}


def test_on_an_ordinary_boot_it_starts_no_program(machine: Machine) -> None:
    argv: list[str | Path] = ["/bin/sh", GENERATOR, *machine.out]
    idle = machine.call(argv, path="/nonexistent")
    machine.write("in-progress", ID)
    control = machine.call(argv, path="/nonexistent")
    assert (idle.returncode, idle.stderr) == (0, "")
    assert control.returncode != 0  # without programs nothing else is possible


def test_in_an_upgrade_it_starts_our_units(machine: Machine) -> None:
    machine.write("in-progress", ID)
    assert machine.generate() == LINKS


def test_while_the_old_root_comes_back_it_does_nothing(machine: Machine) -> None:
    machine.write("in-progress")
    machine.write("skip", "vendor-hw-reset.service\n")
    assert machine.generate() == {}


def test_what_it_starts_is_there() -> None:
    assert [p for p in LINKS.values() if not (ROOT / "units" / Path(p).name).is_file()] == []


def test_in_an_upgrade_it_skips_units(machine: Machine) -> None:
    machine.write("in-progress", ID)
    machine.write("skip", "vendor-hw-reset.service\nifup@.service\ndev-a\\x2db.mount\n")
    assert machine.generate() == LINKS | {
        f"{unit}.d/50-issu-skip.conf": GATE
        for unit in ("vendor-hw-reset.service", "ifup@.service", r"dev-a\x2db.mount")
    }


def test_an_empty_list_skips_nothing(machine: Machine) -> None:
    machine.write("in-progress", ID)
    machine.write("skip")
    assert machine.generate() == LINKS


def test_it_may_run_again(machine: Machine) -> None:
    """`systemctl daemon-reload` runs it on directories that PID 1 has emptied, or has not."""
    machine.write("in-progress", ID)
    machine.write("skip", "a.service\n")
    assert machine.generate() == machine.generate()


# --- restore ------------------------------------------------------------------------------------

UNIT = "issu@-dev-sdb2.service"
HERE = Path("/").stat().st_dev


def restore(machine: Machine) -> tuple[int, str]:
    done = machine.call([RESTORE, UNIT])
    assert done.stderr == ""
    return done.returncode, done.stdout


def leave_record(machine: Machine, dev: int) -> None:
    story = Record(id="x", started="y", unit=UNIT, old_dev=dev, new_dev=HERE)
    record.save(story, machine.issu / "record.json")


def test_where_nothing_is_left_nothing_is_started(machine: Machine) -> None:
    assert restore(machine) == (0, "")
    machine.write("in-progress", ID)
    assert restore(machine) == (0, "")


@pytest.mark.parametrize("dev", [HERE + 1, 0, HERE * 10, HERE // 10, 10 * HERE + HERE])
def test_on_another_root_nothing_is_started(machine: Machine, dev: int) -> None:
    """After the switch this runs on the new root, whose number the record holds as well."""
    leave_record(machine, dev)
    assert restore(machine) == (0, "")


def test_on_the_old_root_the_undo_is_started(machine: Machine) -> None:
    leave_record(machine, HERE)
    assert restore(machine) == (0, f"started -I -m issu_systemd.settle {UNIT}\n")


def test_half_a_record_starts_nothing(machine: Machine) -> None:
    machine.write("record.json", "{")
    assert restore(machine) == (0, "")
