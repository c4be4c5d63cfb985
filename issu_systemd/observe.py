"""What becomes of a root that is booted in a container.

None of the root's own programs is needed for that: its PID 1 is asked by its private socket, and
its journal is read.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

from . import facts, reap
from .errors import IssuError
from .preflight_machine import MEMORY_MIN_BYTES
from .run import plain, run
from .systemd import Manager
from .tree import resolve

T = TypeVar("T")
TASKS_MAX = 4096  # as TasksMax= of the unit, for where the kernel does not count them
SETTLE_SEC = 5.0  # a unit must stay up so long
POLL_SEC = 0.2
MARGIN_SEC = 30.0  # on top of the deadline: to settle, and to read the journal
BUS_TIMEOUT = "5s"  # for one answer of a PID 1 that has nothing else to do
NAMED = 10  # units in one sentence
LINES = 3  # of a unit's journal
UNDER_WAY = (b"activating", b"deactivating", b"reloading")  # auto-restart is "activating"
INIT, TARGET, LIMIT = "init", "default target", "limit"  # what there is trouble with, but units


class Over(IssuError):
    """The rehearsal has ended by itself, or had to be ended."""

    def __init__(self, key: str, text: str) -> None:
        super().__init__(text)
        self.key = key


@dataclass(frozen=True)
class Outcome:
    """How one rehearsal went: a sentence for each unit in trouble, or for INIT, TARGET, LIMIT."""

    troubles: dict[str, str] = field(default_factory=dict)
    failed: tuple[str, ...] = ()  # units besides, that nobody asked for
    seconds: float = 0.0  # until the default target was reached
    impossible: str = ""  # why there was none


class Scene(NamedTuple):
    """A rehearsal that runs: its unit, nspawn's process, its cgroup; monotonic seconds."""

    unit: str
    main: int
    group: str  # "" where it is not found
    begun: float
    deadline: float


def attend(scene: Scene, wanted: tuple[str, ...]) -> Outcome:
    """Watch the root come up; raises Over.

    PID 1 answers only processes that it can see, so another of ours asks it, from among its own.
    """
    leader = until(scene, lambda: leader_of(scene.main))
    if not leader:
        raise Over(INIT, "its PID 1 does not start")
    told = json.dumps([scene, leader, wanted])
    argv = ["nsenter", f"--target={leader}", "--pid", "--", "/usr/bin/python3", "-I", "-m"]
    limit = max(0.0, scene.deadline - time.monotonic()) + MARGIN_SEC
    try:
        done = run([*argv, "issu_systemd.observe", told], check=False, timeout=limit)
    except IssuError as error:
        raise Over(INIT, "its PID 1 does not answer") from error
    check(scene)
    if done.returncode != 0 and done.stderr:  # a fault of ours is none of the target's
        return Outcome(impossible=plain(done.stderr))
    if done.returncode != 0:  # killed, as everything is whose PID 1 ends
        raise Over(INIT, "its PID 1 has ended")
    heard = json.loads(done.stdout)
    return Outcome(heard["troubles"], tuple(heard["failed"]), heard["seconds"])


def main() -> int:
    """The part of `attend` that runs in the container's PID namespace; prints the outcome."""
    told, leader, wanted = json.loads(sys.argv[1])
    scene = Scene(*told)
    os.environ["SYSTEMD_BUS_TIMEOUT"] = BUS_TIMEOUT
    try:
        inner = until(scene, lambda: reach(leader))
        if not inner:
            raise Over(INIT, "its PID 1 does not answer")
        with inner:
            outcome = watch(scene, inner, Path(f"/proc/{leader}/root"), tuple(wanted))
    except Over as over:
        outcome = Outcome({over.key: str(over)})
    except IssuError as error:
        outcome = Outcome({INIT: f"its PID 1 does not answer any longer: {error}"})
    print(json.dumps(asdict(outcome)))
    return 0


def watch(scene: Scene, inner: Manager, root: Path, wanted: tuple[str, ...]) -> Outcome:
    """What comes up and what does not; raises Over, or IssuError when its PID 1 falls silent."""
    begun, target = time.monotonic(), inner.default_target()
    reached = until(scene, lambda: is_active(inner, target))
    seconds, troubles = time.monotonic() - begun, dict[str, str]()
    if not reached:
        text = f"{target} was not reached in time"
        late = [job.unit for job in inner.jobs() if job.state == "running"]
        waits = {unit: f"{text}, it waits for {unit}" for unit in late[:NAMED]}
        troubles |= waits or {TARGET: text}
    names = sorted({*wanted, *required(inner, target)})
    if reached:
        until(scene, lambda: not any(is_under_way(inner, name) for name in names))
    before = {name: inner.properties(name)["InvocationID"] for name in names}
    until(scene._replace(deadline=time.monotonic() + SETTLE_SEC), lambda: False)
    for name in names:
        why = trouble_with(inner, name)
        if not why and inner.properties(name)["InvocationID"] != before[name]:
            why = "ends and is started again, over and over"
        if why and (reached or why.startswith("failed")):
            said = "; ".join(lines_of(root, name, scene.begun))
            troubles[name] = f"{name} {why}" + (f": {said}" if said else "")
    failed = (u.name for u in inner.units() if u.active == "failed" and u.name not in troubles)
    return Outcome(troubles, tuple(sorted(failed)), seconds)


def trouble_with(inner: Manager, unit: str) -> str:
    """What keeps a unit from being up, "" if nothing does, or if a condition spares it."""
    found = inner.properties(unit)
    state, load = found["ActiveState"].decode(), found["LoadState"].decode()
    if load != "loaded":
        return f"is {load}"
    skipped = found["ConditionTimestampMonotonic"] and not found["ConditionResult"]
    if state == "active" or (state == "inactive" and skipped):
        return ""
    if state != "failed":
        return f"is {state} ({found['SubState'].decode()})"
    with suppress(IssuError):  # only services tell more
        return f"failed ({inner.properties(unit, 'Service')['Result'].decode()})"
    return "failed"


def is_under_way(inner: Manager, unit: str) -> bool:
    """Whether the unit may still come up by itself."""
    found = inner.properties(unit)
    return bool(found["Job"][0]) or found["ActiveState"] in UNDER_WAY


def required(inner: Manager, target: str) -> set[str]:
    """The services without which the target, or a target that it requires, is not complete."""
    found, left = set[str](), [target]
    while left:
        names = {name.decode() for name in inner.properties(left.pop())["Requires"]} - found
        found |= names
        left += [name for name in names if name.endswith(".target")]
    return {name for name in found if name.endswith(".service")}


def is_active(inner: Manager, unit: str) -> bool:
    return bool(inner.properties(unit)["ActiveState"] == b"active")


def until(scene: Scene, condition: Callable[[], T]) -> T | None:
    """The first true value of `condition`, None at the deadline; raises Over."""
    while True:
        check(scene)
        if (value := condition()) or time.monotonic() > scene.deadline:
            return value or None
        time.sleep(POLL_SEC)


def check(scene: Scene) -> None:
    """Whether the container still runs, and within its limits; raises Over."""
    if reap.unit_of(scene.main) != scene.unit:
        raise Over(INIT, "its PID 1 has ended")
    if facts.available_memory() < MEMORY_MIN_BYTES:
        raise Over(LIMIT, "it took the machine's memory")
    if scene.group and tasks(Path(scene.group)) >= TASKS_MAX:
        raise Over(LIMIT, f"it had {TASKS_MAX} tasks or more")
    if scene.group and events(Path(scene.group, "memory.events"), "oom_kill"):
        raise Over(LIMIT, "it needed more memory than a rehearsal may take")


def tasks(group: Path) -> int:
    """The tasks in a cgroup and below it; processes where the kernel does not count tasks."""
    with suppress(OSError, ValueError):
        if events(group / "pids.events", "max"):
            return TASKS_MAX
        return int((group / "pids.current").read_text())
    count = 0
    for place, _, _ in os.walk(group):  # which stands it when one goes meanwhile
        with suppress(OSError):
            count += Path(place, "cgroup.procs").read_bytes().count(b"\n")
    return count


def events(path: Path, name: str) -> int:
    """A counter of a file such as memory.events, 0 without it; see cgroup-v2 of the kernel."""
    with suppress(OSError):
        pairs = dict(line.split() for line in path.read_text().splitlines())
        return int(pairs.get(name, 0))
    return 0


def leader_of(main: int) -> int | None:
    """The container's PID 1 once it is the root's own program, and no longer nspawn."""
    with suppress(OSError):
        for word in Path(f"/proc/{main}/task/{main}/children").read_text().split():
            status = Path(f"/proc/{word}/status").read_text()
            numbers = next(x for x in status.splitlines() if x.startswith("NSpid:")).split()
            if numbers[2:] == ["1"] and reap.name_of(int(word)) != "systemd-nspawn":
                return int(word)
    return None


def reach(leader: int) -> Manager | None:
    """A connection to the container's PID 1, None while it does not listen."""
    manager = Manager(f"unix:path=/proc/{leader}/root/run/systemd/private")
    try:
        return manager.__enter__()
    except IssuError:
        manager.close()
        return None


def lines_of(root: Path, unit: str, since: float) -> list[str]:
    """The last lines that the journal in the tree at `root` holds of a unit, since a time.

    Those of its processes, or if there are none, what PID 1 has to say of it.
    """
    argv = ["journalctl", "--quiet", "--no-pager", "--output=cat", f"--lines={LINES}",
            f"--since=@{int(since)}"]  # fmt: skip
    with suppress(IssuError, OSError):
        for name in ("run/log/journal", "var/log/journal") if root != Path("/") else ():
            found = resolve(root, name).glob("*/*.journal")
            argv += [f"--file={path}" for path in found]
        for match in (f"_SYSTEMD_UNIT={unit}", f"--unit={unit}"):
            said = run([*argv, match], check=False).stdout.splitlines()
            if lines := [line for line in map(plain, said) if line]:
                return lines
    return []


if __name__ == "__main__":
    sys.exit(main())
