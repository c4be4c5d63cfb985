"""What the methods of org.issu1.Manager do, and Job.Cancel: thin, and nobody waits for another.

PID 1 is asked over the bus and not by pystemd, whose calls hold up everybody while it reloads.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from . import (
    __version__,
    authority,
    contract,
    devices,
    history,
    inhibit,
    jobs,
    observer,
    record,
    request,
    settings,
    verdict,
    wayback,
)
from .errors import (
    Busy,
    Inhibited,
    InvalidArgument,
    IssuError,
    NoSuchJob,
    PastPointOfNoReturn,
    Refused,
    SettingsError,
)  # fmt: skip
from .inquiry import Inquiries
from .interface import Answer, BusError, Call, Connection
from .observer import SILENT, Observer
from .request import Options, Request
from .systemd import bus_label, escape_path, unescape_path

PID1, PID1_PATH = "org.freedesktop.systemd1", "/org/freedesktop/systemd1"
PID1_SEC = 120.0  # it answers nobody while it reloads thousands of units
UNIT_MAX = 255  # characters of a unit's name, systemd.unit(5)
ENDED = ("inactive", "failed")


class Manager:
    """The methods; what they need of the machine is read when it is asked for."""

    def __init__(self, bus: Connection, observed: Observer) -> None:
        self.bus = bus
        self.observer = observed
        self.starting = False  # PID 1 is asked to start a unit
        self._inquiries = Inquiries()
        self._mechanisms = ""  # what PID 1 offers, as it introspects itself
        self._watching: asyncio.Task[None] | None = None

    async def check(self, call: Call) -> Answer:
        """Preflight, by a process of its own; to boot a device is for who may start."""
        path, options = self.wanted(call, ("strategy", "rehearse"))
        await authority.require(self.bus, call, "start" if options.rehearse else "check")
        found = await self._inquiries.check(path, options)
        return Answer((found["eligible"], jobs.told(found["findings"])))

    async def start(self, call: Call) -> Answer:
        """Leave a request, and have PID 1 start the unit whose agent takes it."""
        path, options = self.wanted(call, ("strategy", "force"))
        unit = unit_of(path)
        await authority.require(self.bus, call, "start-forced" if options.force else "start")
        uid, _ = await authority.caller_of(self.bus, call)
        self.require_free()  # nothing may be awaited from here until the request is ours
        asked = Request(record.new_id(), unit, path, uid, options.strategy, options.force)
        request.leave(asked)
        self.observer.asked, self.starting = asked, True
        try:
            await self.pid1("StartUnit", "ss", unit, "replace")
        except IssuError as error:
            self.observer.give_up(asked, str(error))
            raise
        finally:
            self.starting = False
        return Answer((asked.id, contract.job_path(asked.id)))

    def wanted(self, call: Call, allowed: tuple[str, ...]) -> tuple[str, Options]:
        """The device and the options of a call; raises InvalidArgument."""
        target, values = call.args
        options = request.options(values, allowed)
        return device_path(target), options

    def require_free(self) -> None:
        """Raise Busy or Inhibited unless an upgrade may begin."""
        self.observer.look()
        if job := self.observer.current():
            runs = f"another upgrade runs, {job.id} to {job.target}, in phase {job.phase}"
            raise Busy(runs, hint="`issu status` shows it")
        if record.RECORD.exists() or record.is_locked():
            raise Busy("another upgrade runs", hint="`issu status` shows it")
        if held := inhibit.held():
            by = "; ".join(one.sentence() for one in held)
            raise Inhibited(f"upgrades are inhibited by {by}", hint="wait for its end")

    async def cancel(self, call: Call, job: jobs.Job) -> Answer:
        """Have PID 1 stop the agent, which undoes what it has done."""
        self.require_cancellable(job)
        await authority.require(self.bus, call, "cancel")
        job = self.observer.find(job.id)  # it may have gone on meanwhile
        self.require_cancellable(job)
        await self.pid1("StopUnit", "ss", job.unit, "replace")
        return Answer()

    def require_cancellable(self, job: jobs.Job) -> None:
        """Raise NoSuchJob or PastPointOfNoReturn unless the job can be given up."""
        if job.result:
            raise NoSuchJob(f"upgrade {job.id} has ended: {job.result}")
        if not jobs.allow_cancel(job):
            raise PastPointOfNoReturn(
                f"upgrade {job.id} is in phase {job.phase}", hint="Rollback goes back"
            )

    async def accept(self, call: Call) -> Answer:
        """Keep the new root."""
        await authority.require(self.bus, call, "accept")
        await asyncio.to_thread(give, "accept")
        return Answer()

    async def rollback(self, call: Call) -> Answer:
        """Go back, at once or by another upgrade."""
        await authority.require(self.bus, call, "rollback")
        if waits():
            await asyncio.to_thread(give, "roll-back")
        else:
            self.require_free()
            await asyncio.to_thread(go_back)
        return Answer()

    async def get_report(self, call: Call) -> Answer:
        """A report, as it is on disk."""
        [id] = call.args
        if id and not re.fullmatch(r"[A-Za-z0-9_.-]{1,128}", id):
            raise InvalidArgument(f"{request.shown(id)} is no id of an upgrade")
        self.observer.look()
        if job := self.observer.running.get(id):
            raise NoSuchJob(f"upgrade {job.id} has not ended", hint=f"its phase is {job.phase}")
        document = await asyncio.to_thread(history.find, id) if id else history.last()
        return Answer((json.dumps(document),))

    async def list_jobs(self, call: Call) -> Answer:
        """The jobs that run."""
        self.observer.look()
        running = self.observer.running.values()
        return Answer(([(job.id, contract.job_path(job.id), job.phase) for job in running],))

    async def list_history(self, call: Call) -> Answer:
        """Past upgrades."""
        return Answer((await asyncio.to_thread(past, call.args[0]),))

    async def can_start(self, call: Call) -> Answer:
        """What polkit would say to Start."""
        return Answer((await authority.ask(self.bus, call, "start", interactive=False),))

    async def inhibit(self, call: Call) -> Answer:
        """Forbid upgrades until the descriptor is closed."""
        who, why = request.text("who", call.args[0]), request.text("why", call.args[1])
        await authority.require(self.bus, call, "inhibit")
        uid, pid = await authority.caller_of(self.bus, call)
        self.observer.look()
        if job := self.observer.current():
            raise Busy(f"upgrade {job.id} runs", hint="it is not stopped by an inhibitor")
        return Answer((0,), (inhibit.take(who, why, uid, pid),))

    async def list_inhibitors(self, call: Call) -> Answer:
        """Who forbids upgrades."""
        return Answer(([(one.who, one.why, one.uid, one.pid) for one in inhibit.held()],))

    async def values(self) -> dict[str, Any]:
        """Every property."""
        self.observer.look()
        return {
            "Version": __version__, "Mechanism": await self.mechanism(),
            "RunningRoot": observer.running_root(), **self.observer.values(),
        }  # fmt: skip

    async def mechanism(self) -> str:
        """How an upgrade would change roots; "" if the settings or PID 1 do not say."""
        with suppress(SettingsError):
            if settings.load().strategy == "live":
                return "pivot"
        if not self._mechanisms:
            with suppress(IssuError):
                [self._mechanisms] = await self.bus.call(
                    PID1, PID1_PATH, "org.freedesktop.DBus.Introspectable", "Introspect"
                )
        for method, name in (("SoftReboot", "soft-reboot"), ("SwitchRoot", "switch-root")):
            if f'<method name="{method}"' in self._mechanisms:
                return name
        return ""

    async def pid1(self, method: str, sign: str, *args: str) -> list[Any]:
        """Call PID 1; raises IssuError with its words."""
        interface = f"{PID1}.Manager"
        try:
            return await self.bus.call(
                PID1, PID1_PATH, interface, method, sign, *args, timeout=PID1_SEC
            )
        except BusError as error:
            raise IssuError(f"PID 1 refused {method} of {args[0]}: {error}") from error

    def watch(self) -> None:
        """Find out, without waiting, whether a unit has ended before its agent left any trace."""
        asked = self.observer.asked
        if asked and not self.starting and (self._watching is None or self._watching.done()):
            self._watching = asyncio.ensure_future(self._watch(asked))

    async def _watch(self, asked: Request) -> None:
        with suppress(IssuError):
            path = f"{PID1_PATH}/unit/{bus_label(asked.unit)}"
            [found] = await self.bus.call(
                PID1, path, contract.PROPERTIES, "GetAll", "s", f"{PID1}.Unit"
            )
            if found["ActiveState"] in ENDED and found["Job"][0] == 0:
                self.observer.give_up(asked, f"{SILENT}{asked.unit}")


METHODS: dict[str, Callable[[Manager, Call], Awaitable[Answer]]] = {
    "Check": Manager.check, "Start": Manager.start, "Accept": Manager.accept,
    "Rollback": Manager.rollback, "GetReport": Manager.get_report,
    "ListJobs": Manager.list_jobs, "ListHistory": Manager.list_history,
    "CanStart": Manager.can_start, "Inhibit": Manager.inhibit,
    "ListInhibitors": Manager.list_inhibitors,
}  # fmt: skip


def device_path(target: str) -> str:
    """The path of the block device that a caller means; raises InvalidArgument."""
    path = request.target(target)
    if not path.startswith("/"):
        try:
            path = request.target(unescape_path(path))
        except ValueError:
            raise InvalidArgument(f"{request.shown(target)} is no device", hint="/dev/…") from None
    if not path.startswith("/dev/"):  # elsewhere a look could take for ever
        raise InvalidArgument(f"{request.shown(target)} is not below /dev", hint="lsblk lists them")
    try:
        devices.find(path)
    except Refused as error:
        raise InvalidArgument(str(error), hint=error.hint) from error
    return path


def unit_of(path: str) -> str:
    """The unit whose agent upgrades to a device; raises InvalidArgument."""
    unit = f"issu@{escape_path(path)}.service"
    if len(unit) > UNIT_MAX:
        raise InvalidArgument(f"{request.shown(path)} is too long for a unit", hint="see lsblk")
    return unit


def past(most: int) -> list[dict[str, Any]]:
    """The newest upgrades as ListHistory tells them; a report that cannot be read is left out."""
    rows: list[dict[str, Any]] = []
    for id in reversed(history.ids()):
        if most and len(rows) >= most:
            break
        with suppress(IssuError):
            rows.append(jobs.row(history.find(id)))
    return rows


def waits() -> bool:
    """Whether an upgrade waits for acceptance."""
    return verdict.waiting() is not None


def give(word: str) -> None:
    """Say what becomes of an upgrade that waits: "accept" or "roll-back"; raises NoSuchJob."""
    verdict.give(word)


def go_back() -> None:
    """Start an upgrade to the root that was left last; raises NoSuchJob."""
    wayback.start()
