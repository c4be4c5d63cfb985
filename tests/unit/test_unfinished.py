"""What a power cut leaves: word in both roots' histories, told plainly, and tidied up."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from issu_systemd import carry, devices, history, mounts, outcome, record, unfinished
from issu_systemd.errors import IssuError, NoSuchJob
from issu_systemd.phase import ORDER, Phase
from issu_systemd.record import Record
from issu_systemd.run import aside

ID = "20261125T200000_000000"
OLD, NEW, OTHER = 71, 72, 73  # device numbers
NODES = {OLD: "/dev/vda", NEW: "/dev/vdb", OTHER: "/dev/vdc"}
UUIDS = {OLD: "aa", NEW: "bb", OTHER: "cc"}


class Machine:
    """Which boot it is, and which root is /."""

    def __init__(self, top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.boots, self.root, self.uuids = 1, OLD, dict(UUIDS)
        self.place, self.stage = top / "old", top / "stage"
        self.new = self.stage / str(self.place).lstrip("/")
        for directory in (self.place, self.new):
            directory.mkdir(parents=True)
        monkeypatch.setattr(record, "HISTORY", self.place)
        monkeypatch.setattr(record, "DIRECTORY", top / "run")
        monkeypatch.setattr(carry, "HISTORY", self.place)
        monkeypatch.setattr(history, "PLACE", self.place)
        monkeypatch.setattr(unfinished, "boot_id", lambda: f"boot {self.boots}")
        numbers = {node: number for number, node in NODES.items()}
        monkeypatch.setattr(mounts, "block_number", numbers.get)
        monkeypatch.setattr(mounts, "device_number", lambda point: self.root)
        monkeypatch.setattr(devices, "node_of", NODES.get)
        monkeypatch.setattr(devices, "uuid_of", lambda number: self.uuids[number])

    def story(self, last: Phase, **more: Any) -> Record:
        """An upgrade that got as far as a phase, and left word of each on its way."""
        story = Record(id=ID, started="y", stage=str(self.stage), old_dev=OLD, new_dev=NEW)
        story.source, story.target = {"device": NODES[OLD]}, {"device": NODES[NEW]}
        for key, value in more.items():
            setattr(story, key, value)
        for phase in ORDER[: ORDER.index(last) + 1]:
            story.enter(phase)
            unfinished.leave(story)
        return story

    def power_cut(self, root: int = OLD) -> None:
        """A boot that starts a root."""
        self.boots, self.root = self.boots + 1, root


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_while_it_runs_there_is_no_report(machine: Machine) -> None:
    machine.story(Phase.RELEASE)
    assert history.ids() == []
    with pytest.raises(NoSuchJob):
        history.find(ID)
    machine.power_cut()  # control
    assert history.ids() == [ID]


@pytest.mark.parametrize(
    ("last", "far"),
    [
        (Phase.PREFLIGHT, "before a service was stopped"),
        (Phase.STAGE, "before a service was stopped"),
        (Phase.RELEASE, "when services had begun to stop"),
    ],
)
def test_a_power_cut_is_told(machine: Machine, last: Phase, far: str) -> None:
    machine.story(last)
    machine.power_cut()
    document = history.last()
    assert (document["id"], document["result"]) == (ID, "failed")
    assert document["error"] == (
        f"power was lost, or the kernel restarted, before the upgrade had ended, {far}; "
        "the machine came up on /dev/vda, the old root"
    )
    assert [phase["name"] for phase in document["phases"]][-1] == last
    assert history.one_line(document).startswith(f"{ID}: failed, /dev/vdb\n  power was lost")
    assert history.rows(0)[0]["result"] == "failed"


@pytest.mark.parametrize(
    ("root", "uuids", "told"),
    [
        (NEW, UUIDS, "/dev/vdb, the new root"),
        (OTHER, UUIDS, "/dev/vdc, neither of the two roots"),
        # Devices have changed their names: only the file system tells.
        (OLD, UUIDS | {OLD: "bb", NEW: "aa"}, "/dev/vda, the new root"),
        # A copy of a disk has its UUID too: only the name tells.
        (NEW, dict.fromkeys(UUIDS, "aa"), "/dev/vdb, the new root"),
    ],
    ids=["new", "neither", "renamed", "copied"],
)
def test_which_root_came_up(
    machine: Machine, root: int, uuids: dict[int, str], told: str
) -> None:
    if len({*uuids.values()}) == 1:
        machine.uuids = uuids
    machine.story(Phase.RELEASE)
    machine.power_cut(root)
    machine.uuids = uuids
    assert history.last()["error"].endswith(f"; the machine came up on {told}")


def test_from_release_on_the_new_root_has_word_too(machine: Machine) -> None:
    machine.story(Phase.STAGE)
    assert [*machine.new.iterdir()] == []
    machine.story(Phase.RELEASE)
    assert unfinished.find(machine.new, ID) is None
    machine.power_cut(NEW)
    assert (unfinished.find(machine.new, ID) or {})["result"] == "failed"


def test_the_report_takes_its_place(machine: Machine) -> None:
    machine.story(Phase.RELEASE)
    outcome.write_history({"id": ID, "result": "accepted"})
    assert [path.name for path in machine.place.iterdir()] == [f"{ID}.json"]
    machine.power_cut()
    assert history.last()["result"] == "accepted"


def test_both_there_the_report_counts(machine: Machine) -> None:
    """Power was lost between the two."""
    machine.story(Phase.RELEASE)
    (machine.place / f"{ID}.json").write_text('{"id": "x", "result": "accepted"}')
    machine.power_cut()
    assert history.ids() == [ID]
    assert history.last()["result"] == "accepted"
    unfinished.settle()
    assert history.last()["result"] == "accepted"
    assert [path.name for path in machine.place.iterdir()] == [f"{ID}.json"]


def test_the_next_upgrade_makes_a_report_of_it_and_tidies_up(machine: Machine) -> None:
    made = machine.stage.parent / "made"
    made.mkdir()
    machine.story(Phase.STAGE, stage=str(made), stage_made=True)
    draft = machine.place / f".{ID}.json.new"
    draft.write_text("{")
    unfinished.settle()  # control: of this boot
    assert made.exists() and draft.exists()
    machine.power_cut()
    told = history.last()
    unfinished.settle()
    assert not made.exists() and not draft.exists()
    assert [path.name for path in machine.place.iterdir()] == [f"{ID}.json"]
    assert json.loads((machine.place / f"{ID}.json").read_text()) == told
    machine.power_cut(NEW)
    assert history.last()["error"].endswith("/dev/vda, the old root")  # it came up there then


@pytest.mark.parametrize("spoil", ["full", "foreign"])
def test_a_directory_that_is_not_ours_or_not_empty_stays(machine: Machine, spoil: str) -> None:
    made = machine.stage.parent / "made"
    made.mkdir()
    if spoil == "full":
        (made / "file").touch()
    machine.story(Phase.STAGE, stage=str(made), stage_made=spoil == "full")
    machine.power_cut()
    unfinished.settle()
    assert made.exists()


@pytest.mark.parametrize(("strategy", "swept"), [("live", True), ("halt", False)])
def test_the_staged_root_is_swept(machine: Machine, strategy: str, swept: bool) -> None:
    """Live makes a directory there, for the old root; with halt it is somebody else's."""
    machine.story(Phase.RELEASE, strategy=strategy)
    hold = machine.stage / str(machine.stage).lstrip("/")
    hold.mkdir(parents=True)
    unfinished.sweep(machine.stage)  # control: of this boot
    assert hold.exists() and [*machine.new.iterdir()] != []
    machine.power_cut()
    unfinished.sweep(machine.stage)
    assert hold.exists() != swept
    assert [*machine.new.iterdir()] == []


def test_a_root_that_learns_of_the_end_needs_no_word(machine: Machine) -> None:
    machine.story(Phase.RELEASE)
    (machine.place / f"{ID}.json").write_text("{}")
    carry.history(machine.stage)
    assert [path.name for path in machine.new.iterdir()] == [f"{ID}.json"]


def test_a_disk_that_takes_no_word_does_not_keep_the_upgrade(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(record, "write_atomically", fails)
    machine.story(Phase.RELEASE)
    assert "leave no word" in caplog.text


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"boot": {"kernel": "other"}}'])
def test_what_cannot_be_read_is_no_report(machine: Machine, text: str) -> None:
    (machine.place / f"{ID}.unfinished").write_text(text)
    assert history.ids() == []


def test_a_boot_is_told_from_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    here = unfinished.boot()
    assert len(here["kernel"]) == 36 and here["began"].isdigit()
    assert not unfinished.is_over(here)
    assert unfinished.is_over(here | {"kernel": "other"})
    assert unfinished.is_over(here | {"began": "7"})  # a container that was started again
    monkeypatch.setattr(unfinished, "PID1", Path("/none"))  # hidden from who asks
    assert not unfinished.is_over(here | {"began": "7"})
    assert unfinished.is_over(here | {"kernel": "other"})


# --- the old root is told of the end ------------------------------------------------------------


@pytest.fixture
def there(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The history on the old root's device, seen from the new root; mounted where /run/issu is."""
    place = record.DIRECTORY / str(machine.place).lstrip("/")
    place.mkdir(parents=True)
    monkeypatch.setattr(mounts, "apart", lambda: None)
    monkeypatch.setattr(mounts, "mount", lambda node, place, *, fstype: None)
    monkeypatch.setattr(unfinished, "run", lambda argv: None)
    return place


def ended(machine: Machine, there: Path, **more: Any) -> Record:
    """An upgrade that is about to end on the new root, and another one in the history there."""
    story = machine.story(Phase.RELEASE, **{"old_dev": 1, **more})
    (machine.place / f"{ID}.unfinished").rename(there / f"{ID}.unfinished")
    (machine.place / "before.json").write_text("{}")
    return story


def test_the_old_root_is_told(machine: Machine, there: Path) -> None:
    story = ended(machine, there, stage_made=True)
    made = record.DIRECTORY / story.stage.lstrip("/")
    made.mkdir(parents=True)
    unfinished.tell(story, {"id": ID, "result": "accepted"})
    assert not made.exists()
    assert {path.name for path in there.iterdir()} == {f"{ID}.json", "before.json"}
    assert json.loads((there / f"{ID}.json").read_text())["result"] == "accepted"


@pytest.mark.parametrize(
    "more",
    [{"old_dev": Path("/").stat().st_dev}, {"source": {}}, {"source": {"device": "/dev/gone"}}],
    ids=["here", "no-device", "gone"],
)
def test_where_there_is_nobody_to_tell(
    machine: Machine, there: Path, more: dict[str, Any]
) -> None:
    story = ended(machine, there)
    for key, value in more.items():
        setattr(story, key, value)
    unfinished.tell(story, {"id": ID})
    assert [path.name for path in there.iterdir()] == [f"{ID}.unfinished"]


def test_a_disk_that_holds_another_system_now_is_left_alone(machine: Machine, there: Path) -> None:
    story = ended(machine, there)
    (there / f"{ID}.unfinished").unlink()
    unfinished.tell(story, {"id": ID})
    assert [*there.iterdir()] == []


def test_a_disk_that_does_not_answer_is_told_of(
    machine: Machine, there: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise IssuError("no such file system")

    monkeypatch.setattr(mounts, "mount", fails)
    unfinished.tell(ended(machine, there), {"id": ID})
    assert "/dev/vda could not be told" in caplog.text


# --- in a process of its own --------------------------------------------------------------------


def raises() -> None:
    raise IssuError("no")


@pytest.mark.parametrize(
    ("work", "done"), [(lambda: None, True), (raises, False), (lambda: time.sleep(60), False)],
    ids=["done", "raised", "hung"],
)  # fmt: skip
def test_work_is_done_aside(work: Callable[[], None], done: bool) -> None:
    assert aside(work, 0.5) == done
