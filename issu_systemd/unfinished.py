"""Word of an upgrade that has not ended: what a power cut leaves of it.

The record is on /run and goes with the kernel. So the history of the old root, and from release on
that of the new root too, holds a provisional report, ID.unfinished, until the report takes its
place. Whoever finds one of another boot knows that the kernel did not live to the upgrade's end.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from . import carry, mounts, record, report
from .errors import IssuError
from .glance import boot_id
from .phase import Phase
from .record import Record
from .run import aside, run

log = logging.getLogger(__name__)

OURS = {"boot", "made", "roots", "phases"}  # what is read here of a provisional report
ROOM = 256 * 1024  # bytes: room for the report, should the disk be full by then
TELL_SEC = 15.0  # for the old root's disk
CUT = "power was lost, or the kernel restarted, before the upgrade had ended"
PID1 = Path("/proc/1/stat")


def boot() -> dict[str, str]:
    """What identifies this boot of this system: the kernel's id, and when its PID 1 began.

    The kernel of a container goes on when the container restarts. Raises OSError, as where
    /proc is mounted with hidepid= (proc(5)).
    """
    began = PID1.read_text().rpartition(")")[2].split()[19]  # starttime, proc_pid_stat(5)
    return {"kernel": boot_id(), "began": began}


def is_over(known: Mapping[str, str]) -> bool:
    """Whether a boot has ended, as far as whoever asks can see."""
    if known["kernel"] != boot_id():
        return True
    try:
        return known != boot()
    except OSError:
        return False


def leave(story: Record) -> None:
    """Keep how far an upgrade got, on disk, in each root that may come up after a power cut.

    Written when a phase begins in the old root, so before the first unit stops. An upgrade goes on
    without it.
    """
    places = {"old": record.HISTORY}
    try:
        if story.phase is Phase.RELEASE:
            places["new"] = carry.inside(Path(story.stage), str(record.HISTORY))
        for side, place in places.items():
            text = json.dumps(describe(story, side), indent=1)
            word = place / f"{story.id}{record.UNFINISHED}"
            record.write_atomically(word, f"{text.ljust(ROOM)}\n")
            flush(place)
    except (IssuError, OSError) as error:
        log.warning("a power cut would leave no word of this upgrade: %s", error)


def flush(directory: Path) -> None:
    """Have the names in a directory on disk; raises OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def describe(story: Record, side: str) -> dict[str, Any]:
    """The provisional report for the root on one side, "old" or "new"."""
    document = report.build(
        id=story.id, result="failed", mechanism=story.mechanism, strategy=story.strategy,
        source=story.source, target=story.target, started=story.started,
        phases=[
            report.Phase(p["name"], p["start_usec"], p["end_usec"] or 0) for p in story.phases
        ],
        before=(), after={}, gated=(), kept=(), release_usec=0, default_target="",
        continuity={}, findings=story.findings, error=CUT,
    )  # fmt: skip
    hold = Path(story.stage, story.stage.lstrip("/"))
    is_ours = not hold.exists() and story.strategy == "live"
    made = story.stage_made if side == "old" else is_ours
    return document | {
        "uid": story.uid, "way_back": story.way_back or None, "steps": {}, "uevents": None,
        "plan": {"sha256": None, "differences": []}, "accept_deadline_usec": None,
        "boot": boot(), "made": story.stage if made else "",
        "roots": {"old": root_of(story.source), "new": root_of(story.target)},
    }  # fmt: skip


def root_of(known: dict[str, Any]) -> dict[str, str]:
    """How one of the two roots can be told after a restart, when devices may have other names."""
    from . import devices

    node = str(known.get("device") or "")
    number = mounts.block_number(node)
    return {"device": node, "uuid": devices.uuid_of(number) if number else ""}


def of_other_boots(place: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The provisional reports in a history whose kernel is gone, oldest first."""
    for path in sorted(place.glob(f"*{record.UNFINISHED}")):
        try:
            document: dict[str, Any] = json.loads(path.read_text())
            if is_over(document["boot"]) and {*document} >= OURS:
                yield path, document
        except (OSError, ValueError, TypeError, KeyError) as error:
            log.warning("%s: %s", path, error)


def ids(place: Path) -> set[str]:
    """The upgrades in a history that the kernel did not live to end."""
    return {path.stem for path, _ in of_other_boots(place)}


def find(place: Path, id: str) -> dict[str, Any] | None:
    """The report of an upgrade that the kernel did not live to end, None if it is none such."""
    found = (known for path, known in of_other_boots(place) if path.stem == id)
    return next(map(concluded, found), None)


def concluded(document: dict[str, Any]) -> dict[str, Any]:
    """The report that a provisional one becomes: how far it got, and which root came up."""
    stopped = Phase.RELEASE in [phase["name"] for phase in document["phases"]]
    far = "when services had begun to stop" if stopped else "before a service was stopped"
    error = f"{CUT}, {far}; the machine came up on {came_up(document['roots'])}"
    inner = OURS - {"phases"}
    return {key: value for key, value in document.items() if key not in inner} | {"error": error}


def came_up(roots: dict[str, dict[str, str]]) -> str:
    """The running root: its device, and which of the two it is."""
    from . import devices

    number = mounts.device_number("/")
    key, here = "uuid", devices.uuid_of(number)
    if not here or roots["old"]["uuid"] == roots["new"]["uuid"]:
        key, here = "device", devices.node_of(number) or ""
    side = next((name for name, root in roots.items() if here and root[key] == here), "")
    which = f"the {side} root" if side else "neither of the two roots"
    return f"{devices.node_of(number) or 'no device'}, {which}"


def settle() -> None:
    """Before an upgrade: report those that the kernel did not live to end, and tidy up."""
    from . import outcome

    for path, document in of_other_boots(record.HISTORY):
        report_of = concluded(document)
        log.warning("upgrade %s: %s", path.stem, report_of["error"])
        tidy(Path("/"), path, document)
        try:
            if not path.with_suffix(".json").exists():
                outcome.write_history(report_of)
            path.unlink(missing_ok=True)
        except (IssuError, OSError) as error:
            log.warning("this could not be kept in the history: %s", error)


def sweep(root: Path) -> None:
    """Remove what upgrades of other boots left in a root that does not run; raises OSError."""
    for path, document in of_other_boots(carry.inside(root, str(record.HISTORY))):
        tidy(root, path, document)
        path.unlink()


def tidy(root: Path, path: Path, document: Mapping[str, Any]) -> None:
    """Remove the directory that an upgrade made in a root, if it is empty, and half a report."""
    left = root / str(document.get("made") or "").lstrip("/")
    if left != root and left.is_dir() and not left.is_mount() and not any(left.iterdir()):
        left.rmdir()
    for draft in path.parent.glob(f".{path.stem}.*"):
        draft.unlink(missing_ok=True)


def tell(story: Record, document: dict[str, Any]) -> None:
    """At the end on the new root: let the old root know it too, should it come up again.

    In a process of its own, for what that disk may do now; only where our word is, for what that
    disk may be now.
    """
    node = str(story.source.get("device") or "")
    here = os.stat("/").st_dev  # noqa: PTH116
    if story.old_dev == here or mounts.block_number(node) is None:
        return

    def write() -> None:
        there = record.DIRECTORY  # hidden from nobody else
        mounts.apart()
        mounts.mount(node, there, fstype=str(story.source.get("fstype") or "auto"))
        place = carry.inside(there, str(record.HISTORY))
        word = place / f"{story.id}{record.UNFINISHED}"
        if word.exists():
            carry.history(there)
            record.write_atomically(word.with_suffix(".json"), json.dumps(document, indent=1))
            tidy(there, word, {"made": story.stage if story.stage_made else ""})
            word.unlink()
            flush(place)
        run(["umount", there])

    if not aside(write, TELL_SEC):
        log.warning("%s could not be told how the upgrade ended", node)
