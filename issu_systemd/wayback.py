"""The way back when the old root was let go: one more upgrade, to the old root.

`begin` and `go` run on the new root, in issu-arrive.service: the upgrade ends as rolled-back, then
the agent is asked for the other one. /run/issu/way-back.json is that request, from the decision
until the agent has it in its record; whoever is killed in between goes on from it. There is one way
back and none after it: if it does not come off, the machine reboots, for the boot loader still
starts the old root. One that an operator asks for, between two healthy roots, is an upgrade like
any other.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import time
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from . import mounts, oldroot, record, settings, systemd, watchdog
from .errors import IssuError, NoSuchJob, SettingsError
from .phase import Phase
from .record import Record
from .settings import Settings
from .systemd import Manager

log = logging.getLogger(__name__)

ANSWER_SEC = 60.0  # for PID 1
READY_SEC = 2000.0  # for the agent to be ready to leave: more than its TimeoutStartSec=
GRACE_SEC = 2.0  # from SIGTERM to SIGKILL, and from there to the end, for who holds the old root
POLL_SEC = 0.02
# Findings of preflight that must not keep anybody on a root that is no good.
BEARABLE = ("busy", "inhibited", "memory", "modules", "package-manager")
# The old root has run here, and has changed since it was an image.
KNOWN: dict[str, Any] = {"rehearse": False, "verity": "", "verify_command": ()}
# Lists of settings that count from both roots: nothing is stopped or started that either forbids.
JOINED = ("keep", "keep_ipc", "skip", "carry_mounts")


def asked() -> dict[str, Any] | None:
    """The way back that is asked for and that no agent has taken on, if there is one."""
    try:
        found: dict[str, Any] = json.loads(record.WAY_BACK.read_text())
    except (OSError, ValueError):
        return None
    return found


def ask(way: dict[str, Any]) -> None:
    """Ask for a way back: an object with of, reason, reboot, target, strategy and more."""
    record.write_atomically(record.WAY_BACK, json.dumps(way) + "\n")


def is_begun(story: Record) -> bool:
    """Whether the way back of this upgrade was decided, and not yet ended the upgrade."""
    way = asked()
    return way is not None and way["of"] == story.id


def begin(manager: Manager, story: Record, reason: str) -> None:
    """On the new root: ask for the way back, then end the upgrade as rolled-back.

    `go` is to follow when the lock is free. May be called again by who was killed in between.
    """
    from . import settle

    if not is_begun(story):
        ask({
            "of": story.id, "reason": reason, "reboot": True, "strategy": story.strategy,
            "target": story.source.get("device") or "", "settings": story.settings,
            "failed_before": story.failed_before, "verdict_usec": record.now_usec(),
            "watchdog": story.watchdog if story.watchdog.get("armed") else {},
        })  # fmt: skip
    story.result, story.error = "rolled-back", (asked() or {}).get("reason", reason)
    log.error("going back to %s: %s", story.source.get("device"), story.error)
    story.enter(Phase.BACK)
    try:
        settle.conclude(manager, story)
    except IssuError as error:  # the agent tells what keeps it; nothing else may
        log.error("not all of the upgrade was tidied up: %s", error)
        settle.finish(manager, story)


def go() -> int:
    """Have the agent take the way back that is asked for; an exit status.

    If it does not come off before the agent is ready to leave, the machine reboots.
    """
    way = asked()
    if way is None or is_here(way["target"]):
        record.WAY_BACK.unlink(missing_ok=True)
        return 0
    systemd.notify(ready=True, status=f"going back to {way['target']}")
    # Until the agent is ready to leave, it is ours: PID 1 itself may be what is wrong.
    watchdog.take_over(Record(way["of"], "", watchdog=way.get("watchdog", {})))
    with systemd.connect(time.monotonic() + ANSWER_SEC) as manager:
        unit = unit_of(way["target"])
        try:
            if way["reboot"]:
                free(way["target"])
            job = manager.start(unit)
        except (IssuError, OSError) as error:
            result: str | None = str(error)
        else:
            result = manager.wait_job(job, time.monotonic() + READY_SEC)
        if result == "done":
            return 0
        log.error("%s: %s", unit, result or "it took too long")
        if way["reboot"]:
            reboot(manager, way["target"])
    return 1


def is_here(device: str) -> bool:
    """Whether a device holds the running root."""
    return mounts.block_number(device) == mounts.device_number("/")


def unit_of(device: str) -> str:
    """The unit that upgrades to a device."""
    return f"issu@{systemd.escape_path(device)}.service"


def free(node: str) -> None:
    """End whatever stands on the old root, and unmount it: a reboot would do no less."""
    number = mounts.block_number(node)
    if number is None:
        raise IssuError(f"{node} is gone")
    for mount in reversed(mounts.on_device(number)):
        log.warning("%s is mounted at %s, which ends here", node, mount.point)
        mounts.detach(mount.point)
    for sign in (signal.SIGTERM, signal.SIGKILL):
        for pid in (pids := oldroot.standing_on(number)):
            log.warning("%s[%d] holds %s and gets %s", oldroot.name_of(pid), pid, node, sign.name)
            with suppress(ProcessLookupError):
                os.kill(pid, sign)
        deadline = time.monotonic() + GRACE_SEC
        while pids and oldroot.standing_on(number) and time.monotonic() < deadline:
            time.sleep(POLL_SEC)
    oldroot.wait_free(node)


def take(story: Record) -> None:
    """In the agent: make this upgrade the way back that is asked for, if it is to that device."""
    way = asked()
    if way is None or not is_same(way["target"], story.target["device"]):
        return
    story.way_back = {key: way[key] for key in ("of", "reason", "reboot")}
    story.strategy, story.settings = way["strategy"], way["settings"]
    story.failed_before = way["failed_before"]
    story.steps["verdict_usec"] = way["verdict_usec"]
    story.watchdog = way.get("watchdog", {})


def taken(story: Record) -> None:
    """Drop the request that the record of its upgrade has taken the place of."""
    if story.way_back:
        record.WAY_BACK.unlink()


def is_same(node: str, target: str) -> bool:
    """Whether an instance name of issu@.service means a device."""
    from . import devices  # with pyudev, which issu-arrive.service has no need of

    names = devices.candidates(target)
    return os.path.realpath(node) in {os.path.realpath(name) for name in names}


def drop(target: str) -> None:
    """Forget a way back that an operator asked for and that was refused before it was taken on."""
    way = asked()
    if way and not way["reboot"] and is_same(way["target"], target):
        record.WAY_BACK.unlink()


def settings_of(story: Record) -> Settings:
    """What an upgrade goes by: the running root's settings, on a way back those that led here too.

    Raises SettingsError; but what is wrong on a root that is no good keeps nobody there.
    """
    if not story.way_back:
        return replace(settings.load(), strategy=story.strategy)
    if not story.way_back.get("reboot"):
        return replace(settings.load(), strategy=story.strategy, **KNOWN)
    known = {f.name for f in fields(Settings)}
    led: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in story.settings.items() if key in known
    }  # fmt: skip
    try:
        own = settings.load()
    except SettingsError as error:
        log.warning("on the way back these settings do not count: %s", error)
        own = Settings()
    chosen = Settings(**led) if led else own
    both: dict[str, Any] = {
        name: tuple(sorted({*getattr(chosen, name), *getattr(own, name)})) for name in JOINED
    }
    both["carry_mounts"] = tuple(p for p in both["carry_mounts"] if mounts.mount_at(p))
    # The old root has its own files; those here may be what is wrong. A watchdog is armed already.
    return replace(chosen, **both, strategy=story.strategy, carry_files=(), accept_mode="auto",
                   watchdog_usec=0, **KNOWN)  # fmt: skip


def borne(story: Record) -> set[str]:
    """The ids of findings that do not block an upgrade because it is the way back."""
    from . import preflight

    return {*BEARABLE, *preflight.FORCEABLE} if story.way_back.get("reboot") else set()


def by_halt(story: Record) -> None:
    """Begin preflight anew for halt, after live was refused; raises IssuError.

    What stood in the way of live is told of as no more than that.
    """
    from . import facts

    if story.stage:
        facts.unstage(Path(story.stage), made=story.stage_made)
    story.strategy, story.stage, story.stage_made = "halt", "", False
    for found in story.findings:
        if found["severity"] == "block":
            found |= {"severity": "warn", "note": "not with live"}


def give_up(manager: Manager, story: Record, error: str) -> None:
    """The way back has failed before its switch: keep that in both histories, and reboot."""
    from . import events, facts, outcome

    log.error("there is no way back: %s", error)
    story.result, story.error = "failed", f"{error}; the machine reboots"
    story.end_phase()
    events.tell_end(story)
    with suppress(IssuError):
        outcome.write_history(outcome.describe(manager, story))
    if story.stage:
        with suppress(IssuError, OSError):
            facts.unstage(Path(story.stage), made=story.stage_made)
    reboot(manager, str(story.target.get("device") or ""))


def reboot(manager: Manager, old: str) -> None:
    """Carry the history to the old root as well as can be, then let PID 1 reboot.

    Reboot of org.freedesktop.systemd1(5) waits for no unit: any of them may be what is wrong.
    """
    with suppress(IssuError, OSError):
        tell(old)
    log.error("rebooting: the boot loader starts the old root")
    manager.call("Reboot")


def tell(old: str) -> None:
    """Copy the reports of this root to that on the device `old`; raises IssuError, OSError."""
    from . import carry, facts

    number = mounts.block_number(old)
    there = next((Path(m.point) for m in mounts.on_device(number)), None) if number else None
    is_mounted, made = there is not None, False
    if there is None:
        there, made = facts.stage_directory()
        mounts.mount(old, there)
    else:
        mounts.remount(there, "rw")
    try:
        carry.history(there)
        mounts.sync(there)
    finally:
        if not is_mounted:
            facts.unstage(there, made=made)


def start(reason: str = "asked for by the operator") -> str:
    """Leave the root of the last accepted upgrade for the one before; the unit that does it.

    Raises NoSuchJob if there is none, Busy if an upgrade runs.
    """
    from . import history, looping

    reports = (history.find(id) for id in reversed(history.ids()))
    last = next((one for one in reports if one.get("result") == "accepted"), None)
    node = (last or {}).get("source", {}).get("device")
    if last is None or not node:
        raise NoSuchJob("no accepted upgrade can be taken back", hint="issu report")
    with record.lock(), Manager() as manager:
        ask({
            "of": last["id"], "reason": reason, "reboot": False, "strategy": last["strategy"],
            "target": node, "settings": {}, "failed_before": looping.ill(manager),
            "verdict_usec": record.now_usec(),
        })  # fmt: skip
    with Manager() as manager:
        manager.start(unit_of(node))
    return unit_of(node)
