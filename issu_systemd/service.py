"""org.issu1 on the system bus: it starts the agent that issu@.service runs, and tells what it does.

D-Bus starts it when somebody calls, and it ends 30 s after the last call if no upgrade runs. All
state is on disk: killed and started again it goes on where it was.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from . import contract, herald, history, jobs, log, observer
from .contract import JOB, JOBS, MANAGER, NAME, TOP
from .errors import IssuError
from .interface import Answer, Call, Connection
from .methods import METHODS, Manager
from .systemd import notify

logger = logging.getLogger(__name__)

IDLE_SEC = 30.0
LOOK_SEC = 0.1
UNIT_SEC = 1.0  # between two questions to PID 1 about a unit
LAST_SEC = 1.0  # for calls in flight once we are told to end
SYSTEM_BUS = "unix:path=/run/dbus/system_bus_socket"


class Service:
    """The objects below /org/issu1, and what is told of them."""

    def __init__(self, address: str, interfaces: Mapping[str, contract.Interface]) -> None:
        self.interfaces = interfaces
        self.bus = Connection(address, self)
        self.observer = observer.Observer()
        self.manager = Manager(self.bus, self.observer)
        self.ending = asyncio.Event()
        self._root = root_dev()
        self._called = time.monotonic()
        self._served = 0
        self._watched = 0.0
        self._told = dict(self.observer.running)  # whoever calls first reads what runs
        self._seen = self.observer.values()

    # what the objects are: interface.Objects

    async def interface_at(self, path: str) -> str:
        """The interface of the object at a path, "" for a node in between; raises NoSuchJob."""
        if path == TOP:
            return MANAGER
        if id := contract.job_id(path):
            self.observer.find(id)
            return JOB
        return ""

    async def children(self, path: str) -> list[str] | None:
        """The names of the nodes below a path, None if there is nothing."""
        if path == JOBS:
            return sorted({*self.observer.running, *filter(jobs.is_id, history.ids())})
        above = path.rstrip("/") + "/"
        if JOBS.startswith(above):
            return [JOBS[len(above) :].split("/")[0]]
        return [] if contract.job_id(path) else None

    async def call(self, call: Call) -> Answer:
        """Carry out a method."""
        if id := contract.job_id(call.path):
            return await self.manager.cancel(call, self.observer.find(id))
        return await METHODS[call.member](self.manager, call)

    async def values(self, path: str) -> dict[str, Any]:
        """Every property of the object at a path."""
        if id := contract.job_id(path):
            return jobs.values(self.observer.find(id))
        return await self.manager.values()

    # what is told

    async def run(self) -> int:
        """Serve until nobody needs it; an exit status."""
        await self.bus.open()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.ending.set)
        closed = asyncio.ensure_future(self.bus.closed())
        closed.add_done_callback(lambda _: self.ending.set())
        with herald.listen():
            if not await self.bus.own(NAME):
                raise IssuError(f"{NAME} has another owner", hint=f"busctl status {NAME}")
            self._tell_status()
            while not (self.ending.is_set() or self._is_idle() or root_has_changed(self._root)):
                await self._look()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.ending.wait(), LOOK_SEC)
        if closed.done():
            logger.error("the connection to the bus is lost")
            return 1
        await self._end()
        return 0

    async def _end(self) -> None:
        """Give the name back, so that D-Bus starts another for the next call; answer the last."""
        notify(stopping=True)
        with suppress(IssuError):
            await self.bus.disown(NAME)
        patience = LAST_SEC if self.ending.is_set() else IDLE_SEC
        deadline = time.monotonic() + patience
        while self.bus.busy and time.monotonic() < deadline:
            await asyncio.sleep(LOOK_SEC / 10)
        await self.bus.flush()

    def _is_idle(self) -> bool:
        """Whether nobody has called for a while, nobody waits and nothing runs."""
        if self.bus.served != self._served or self.bus.busy or self.observer.running:
            self._served, self._called = self.bus.served, time.monotonic()
        return time.monotonic() - self._called > IDLE_SEC

    async def _look(self) -> None:
        """Look at the jobs, and tell the bus what is new."""
        try:
            if herald.is_announced():
                await self.bus.emit(TOP, MANAGER, "PrepareForUpgrade", True)
                await self.bus.flush()
                herald.told()
            if time.monotonic() - self._watched > UNIT_SEC:
                self._watched = time.monotonic()
                self.manager.watch()
            await self._tell_jobs()
        except OSError as error:  # /run is full, or a report cannot be read
            logger.error("%s", error)

    async def _tell_jobs(self) -> None:
        """Tell what has become of the jobs since the last time: properties first, then signals."""
        self.observer.look()
        before, after, ended = self._told, dict(self.observer.running), self.observer.ended
        self._told, self.observer.ended = after, []
        for job in (*after.values(), *ended):
            if job.id in before:
                old, new = jobs.values(before[job.id]), jobs.values(job)
                await self._tell_changed(contract.job_path(job.id), JOB, old, new)
        seen, self._seen = self._seen, self.observer.values()
        await self._tell_changed(TOP, MANAGER, seen, self._seen)
        for member, args in observer.signals(before, after, ended):
            await self.bus.emit(TOP, MANAGER, member, *args)
        if seen != self._seen:
            self._tell_status()

    async def _tell_changed(
        self, path: str, interface: str, old: Mapping[str, Any], new: Mapping[str, Any]
    ) -> None:
        changed = {
            name: value for name, value in new.items()
            if old.get(name) != value and name not in self.interfaces[interface].constant
        }  # fmt: skip
        if changed:
            await self.bus.tell_changed(path, interface, changed)

    def _tell_status(self) -> None:
        """Show in `systemctl status` what runs."""
        job = self.observer.current()
        notify(status=f"{job.id}: {job.phase}, to {job.target}" if job else "no upgrade runs")


def root_dev() -> int:
    """st_dev of /."""
    return os.stat("/").st_dev  # noqa: PTH116


def root_has_changed(dev: int) -> bool:
    """Whether / and PID 1 are another root's: its own service is to serve from now on."""
    return root_dev() != dev and pid1_dev() == root_dev()


def pid1_dev() -> int:
    """st_dev of the file system that PID 1's program is on."""
    return os.stat("/proc/1/exe").st_dev  # noqa: PTH116


def main() -> int:
    """Serve org.issu1 on the system bus."""
    log.setup("issu-bus")
    address = os.environ.get("DBUS_SYSTEM_BUS_ADDRESS", SYSTEM_BUS)
    try:
        interfaces = contract.read(Path(contract.INSTALLED))
        return asyncio.run(serve(address, interfaces))
    except (IssuError, OSError) as error:
        logger.error("%s", error.sentence() if isinstance(error, IssuError) else error)
        return 1


async def serve(address: str, interfaces: Mapping[str, contract.Interface]) -> int:
    """Serve until idle; an exit status."""
    return await Service(address, interfaces).run()


if __name__ == "__main__":
    sys.exit(main())
