"""The record: a wire format between two versions of this package."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import fields, replace
from pathlib import Path

import pytest

from issu_systemd import record
from issu_systemd.errors import Busy, IssuError, RecordError
from issu_systemd.phase import Phase
from issu_systemd.record import SCHEMA, Record, dumps, load, loads, save, write_atomically

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "data/record-v1.json"
HOLD_LOCK = """
import sys, pathlib
from issu_systemd import record
record.DIRECTORY = pathlib.Path(sys.argv[1])
with record.lock():
    print("held", flush=True)
    sys.stdin.read()
"""


def full() -> Record:
    """An upgrade in its phase arrive, with every field set to what is not its default."""
    return Record(
        id="20260801T101500Z-7f3a",
        started="2026-08-01T10:15:00+00:00",
        unit="issu@-dev-sdb2.service",
        uid=1000,
        force=["battery"],
        phase=Phase.ARRIVE,
        phases=[
            {"name": "preflight", "start_usec": 80_000_000, "end_usec": 81_000_000},
            {"name": "stage", "start_usec": 81_000_000, "end_usec": 100_000_000},
            {"name": "release", "start_usec": 100_000_000, "end_usec": 103_000_000},
            {"name": "switch", "start_usec": 103_000_000, "end_usec": 104_000_000},
            {"name": "arrive", "start_usec": 104_000_000, "end_usec": None},
        ],
        source={
            "device": "/dev/sda2",
            "fstype": "ext4",
            "package": "0.1.0",
            "systemd": "252.39-1~deb12u1",
            "os": "Debian GNU/Linux 12 (bookworm)",
            "version": "12",
        },
        target={"device": "/dev/sdb2", "fstype": "ext4", "os": "Debian für alle", "version": "13"},
        old_dev=2050,
        new_dev=2066,
        stage="/sysroot",
        stage_made=True, rehearses=True,
        strategy="halt",
        mechanism="switch-root",
        default_target="multi-user.target",
        before=["dev-disk-by\\x2duuid-1.device", "frr.service"],
        mounts={"/": 2050, "/proc": 21, "/var/lib/element": 2051},
        carried=["/proc", "/var/lib/element"],
        kept=["vendor-asic.service"],
        skip=["vendor-hw-reset.service"],
        lifted=["systemd-sysctl.service"],
        verify_units=["frr.service"],
        verify_timeout_usec=90_000_000,
        verify_settle_usec=8_000_000,
        verify_program_timeout_usec=20_000_000,
        verify_continuity="strict",
        failed_before=["broken.service"],
        accept_mode="manual",
        accept_timeout_usec=600_000_000,
        deadline_usec=700_000_000,
        settings={"keep": ["vendor-asic.service"], "strategy": "halt"},
        way_back={"of": "20260801T091500Z-11aa", "reason": "it is ill", "reboot": True},
        plan=[["frr.service", "restarted", "its program is replaced"]],
        moved=["/tmp"],
        hold_made=True,
        parallel=4,
        sessions="terminate",
        restart_timeout_usec=60_000_000,
        settle_usec=3_000_000,
        steps={"pivot_usec": 90, "reexec_usec": 280_000},
        watchdog={"device": "/dev/watchdog0", "seconds": 60, "before": 30, "armed": True},
        boot_loader="grub",
        hook_timeout_usec=10_000_000,
        continuity={"boot_id": "2f1c", "modules": ["ext4", "veth"]},
        compared={"boot_id": {"before": "2f1c", "after": "2f1c"}, "read": [], "differences": []},
        findings=[
            {"id": "killed", "severity": "warn", "text": "sh[812] ignored SIGTERM", "way_out": ""}
        ],
        error="nothing yet",
        result="failed",
    )


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory in place of /run/issu for the lock."""
    monkeypatch.setattr(record, "DIRECTORY", tmp_path / "issu")
    return tmp_path / "issu"


# --- the format ---------------------------------------------------------------------------------


def test_what_is_written_is_the_golden_file(tmp_path: Path) -> None:
    """A difference means that older versions will read something else: see SCHEMA in record.py."""
    save(full(), tmp_path / "record.json")
    assert (tmp_path / "record.json").read_bytes() == GOLDEN.read_bytes()


def test_the_golden_file_is_read() -> None:
    assert load(GOLDEN) == full()
    assert load(GOLDEN).phase is Phase.ARRIVE


def test_the_golden_file_of_an_older_version_is_read() -> None:
    """What version 0.1 wrote: the root that is left may be that old."""
    file = GOLDEN.with_name("record-v1-of-0.1.json")
    empty, known = Record(id="", started=""), json.loads(file.read_text())
    later = {f.name: getattr(empty, f.name) for f in fields(Record) if f.name not in known}
    assert {"lifted", "plan", "steps", "way_back"} <= set(later)
    assert load(file) == replace(full(), **later)


def test_the_golden_file_shows_every_field() -> None:
    data = json.loads(GOLDEN.read_text())
    assert data.pop("schema") == SCHEMA
    assert list(data) == [f.name for f in fields(Record)]
    empty = Record(id="", started="")
    same = [f.name for f in fields(Record) if getattr(empty, f.name) == getattr(full(), f.name)]
    assert same == ["strategy"]  # halt is the only one there is


@pytest.mark.parametrize("story", [full(), Record(id="x", started="y")], ids=["full", "new"])
def test_round_trip(story: Record) -> None:
    assert loads(dumps(story)) == story


def test_unknown_keys_are_ignored() -> None:
    data = json.loads(dumps(full())) | {"colour": "blue", "__class__": "x"}
    assert loads(json.dumps(data)) == full()


def test_missing_keys_take_their_default() -> None:
    found = loads('{"schema": 1, "id": "x", "started": "y"}')
    assert found == Record(id="x", started="y")
    assert (found.phase, found.strategy, found.verify_timeout_usec) == (None, "halt", 120_000_000)


def test_every_record_has_lists_of_its_own() -> None:
    loads('{"schema": 1, "id": "x", "started": "y"}').before.append("a.service")
    assert Record(id="x", started="y").before == []


def test_a_newer_schema_is_refused() -> None:
    data = json.loads(dumps(full())) | {"schema": SCHEMA + 1}
    with pytest.raises(RecordError, match=f"x.json has schema {SCHEMA + 1}, newer than {SCHEMA}"):
        loads(json.dumps(data), "x.json")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        dumps(full())[:-40],
        dumps(full())[: len(dumps(full())) // 2],
        "[]",
        "7",
        "null",
        '{"id": "x", "started": "y"}',
        '{"schema": "1", "id": "x", "started": "y"}',
        '{"schema": 1, "started": "y"}',
        '{"schema": 1, "id": "x", "started": "y", "phase": "lunch"}',
    ],
    ids=[
        "empty",
        "brace",
        "cut-late",
        "cut-half",
        "list",
        "number",
        "null",
        "no-schema",
        "schema-of-another-type",
        "no-id",
        "unknown-phase",
    ],
)
def test_what_cannot_be_read_names_the_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "record.json"
    path.write_text(text)
    with pytest.raises(RecordError, match=str(path)):
        load(path)


def test_a_record_that_is_no_text_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_bytes(b'{"schema": 1, "id": "\xff"}')
    with pytest.raises(RecordError, match=str(path)):
        load(path)


def test_no_record(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="No such file") as caught:
        load(tmp_path / "record.json")
    assert caught.value.hint


# --- phases and findings ------------------------------------------------------------------------


def test_entering_a_phase_ends_the_one_before() -> None:
    story = Record(id="x", started="y")
    for phase in (Phase.PREFLIGHT, Phase.STAGE, Phase.STAGE, Phase.RELEASE):
        story.enter(phase)
    assert [p["name"] for p in story.phases] == ["preflight", "stage", "stage", "release"]
    ends = [p["end_usec"] for p in story.phases]
    assert ends[:-1] == [p["start_usec"] for p in story.phases[1:]]
    assert ends[-1] is None
    assert story.start_of(Phase.STAGE) == story.phases[1]["start_usec"]
    assert story.start_of(Phase.SWITCH) is None


def test_a_wrong_edge_changes_nothing() -> None:
    story = Record(id="x", started="y")
    story.enter(Phase.PREFLIGHT)
    before = dumps(story)
    with pytest.raises(IssuError):
        story.enter(Phase.SWITCH)
    assert dumps(story) == before


def test_a_phase_ends_once() -> None:
    story = Record(id="x", started="y")
    story.end_phase()
    story.enter(Phase.PREFLIGHT)
    story.end_phase(7)
    story.end_phase(8)
    assert story.phases[0]["end_usec"] == 7


def test_a_finding_is_told_once() -> None:
    story = Record(id="x", started="y")
    for text in ("a", "b", "a"):
        story.find("killed", "warn", text)
    assert [f["text"] for f in story.findings] == ["a", "b"]
    assert story.findings[0] == {"id": "killed", "severity": "warn", "text": "a", "way_out": ""}


# --- writing ------------------------------------------------------------------------------------


def test_writing_leaves_no_draft_and_makes_the_directory(tmp_path: Path) -> None:
    path = tmp_path / "a/b/file"
    for text in ("first\n", "second\n"):
        write_atomically(path, text)
        assert path.read_text() == text
    assert list(path.parent.iterdir()) == [path]


def test_a_reader_keeps_the_old_file(tmp_path: Path) -> None:
    """A new file takes the name; the one that was open is never written to."""
    path = tmp_path / "file"
    write_atomically(path, "old")
    with path.open() as reader:
        write_atomically(path, "new, and longer")
        assert reader.read() == "old"


def test_a_write_that_fails_leaves_the_old_file_and_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "file"
    (path / "in-the-way").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        write_atomically(path, "new")
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_file_system_leaves_the_old_file_and_no_draft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")

    def no_space(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


# --- the lock -----------------------------------------------------------------------------------


def test_the_lock_is_busy_while_it_is_held(place: Path) -> None:
    with record.lock():
        with pytest.raises(Busy, match="another upgrade runs") as caught, record.lock():
            pass
        assert caught.value.hint
    with record.lock():  # and free afterwards
        pass
    assert list(place.iterdir()) == []  # it leaves no trace


def test_nobody_but_root_can_hold_the_lock(place: Path) -> None:
    """To lock a file that one may read is enough, see flock(2)."""
    if os.geteuid() != 0:
        pytest.skip("needs root: somebody else is to try")
    with record.lock():
        pass
    place.parent.chmod(0o755)
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "flock", "--nonblock"]
    done = subprocess.run([*nobody, record.lock_directory(), "true"], capture_output=True)
    assert done.returncode != 0 and b"Permission denied" in done.stderr
    assert record.lock_directory().stat().st_mode & 0o777 == 0o700


def test_the_lock_is_free_after_an_error(place: Path) -> None:
    with pytest.raises(ZeroDivisionError), record.lock():
        raise ZeroDivisionError
    with record.lock(wait=True):
        assert place.is_dir()


def test_who_waits_for_the_lock_is_called_before(place: Path) -> None:
    """As a started unit, that is: PID 1 must not take it for one that still starts."""
    with ExitStack() as holder:
        holder.enter_context(record.lock())
        with record.lock(wait=True, meanwhile=holder.close):  # else it would wait for ever
            pass
    called: list[str] = []
    with record.lock(wait=True, meanwhile=lambda: called.append("x")):
        pass
    assert called == []


@pytest.mark.usefixtures("place")
def test_an_error_under_the_lock_is_not_taken_for_a_busy_lock() -> None:
    with pytest.raises(BlockingIOError), record.lock():
        raise BlockingIOError(11, "Resource temporarily unavailable")


def test_the_lock_ends_with_its_holder(place: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD_LOCK, str(place)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(Busy), record.lock():
            pass
        holder.kill()
    with record.lock():
        pass


def test_whether_the_lock_is_held_is_found_out_without_taking_it(place: Path) -> None:
    assert not record.is_locked()  # there is not even a directory
    place.mkdir(exist_ok=True)
    assert not record.is_locked()
    with record.lock():
        assert record.is_locked()
    assert not record.is_locked()


def test_ids_sort_by_time_and_may_stand_in_an_object_path() -> None:
    ids = [record.new_id() for _ in range(100)]
    assert ids == sorted(ids)
    assert [id for id in ids if not re.fullmatch("[A-Za-z0-9_]+", id)] == []
