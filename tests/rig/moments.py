"""What else there is to know of strategy live: how long PID 1 is silent, how long a way back takes.

Times in microseconds.
"""

import json
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

from tests.container.element import Element, element, write_settings, write_unit

from . import echoes, sh, traces
from .figures import since
from .probe import Probe
from .rivals import issu, other_root

SETTINGS = '[switch]\nstrategy = "live"\n'
# Asks PID 1 by the system bus for a property, again and again; tells the times between good answers
# that are longer than 20 ms. Nothing is left to import when the roots change.
CLIENT = """
import asyncio, json, sys, time
from dbus_next import BusType, Message
from dbus_next.aio import MessageBus
NAME = "org.freedesktop.systemd1"
ASK = dict(destination=NAME, path="/org/freedesktop/systemd1", member="Get", signature="ss",
           interface="org.freedesktop.DBus.Properties", body=[NAME + ".Manager", "Version"])
now = lambda: time.monotonic_ns() // 1000
async def ask(bus):
    if bus is None or not bus.connected:
        bus = await MessageBus(bus_type=BusType.SYSTEM).connect()
    reply = await bus.call(Message(**ASK))
    if reply.message_type.name != "METHOD_RETURN":
        raise OSError(reply.error_name)
    return bus
async def main():
    bus, gaps, last = None, [], 0
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    over = asyncio.ensure_future(reader.read())
    while not over.done():
        try:
            bus = await asyncio.wait_for(ask(bus), 5)
        except Exception:
            bus = None
        else:
            if last and now() - last > 20000:
                gaps.append([last, now()])
            if not last:
                print("ready", flush=True)
            last = now()
        await asyncio.sleep(0.002)
    print(json.dumps(gaps))
asyncio.run(main())
"""
FRAIL = "zz-frail.service"  # is restarted last, for it comes last by its name


class Silence(NamedTuple):
    """How long one client of the system bus had no answer from PID 1 in one upgrade."""

    services: int
    reexec: int  # while PID 1 executed the other systemd
    longest: int  # at any time; the bus is restarted too


class WayBack(NamedTuple):
    """One upgrade that went back because the last service to be restarted failed."""

    services: int
    usec: int  # from the decision until everything was back
    longest: int  # outage of a probed service, there and back
    whole: int  # from the command to the end


def silence(e: Element, count: int) -> Silence:
    """One live upgrade with a client that asks PID 1 every 2 ms."""
    client = e.machine.popen(["python3", "-u", "-c", CLIENT], stdin=subprocess.PIPE)
    assert client.stdin and client.stdout
    try:
        assert client.stdout.readline() == "ready\n"
        report = issu("live", e)
        client.stdin.close()
        gaps: list[list[int]] = json.loads(client.stdout.readline())
    finally:
        sh.kill(client)
    begin = next(p["start_usec"] for p in report["phases"] if p["name"] == "switch")
    end = next(p["end_usec"] for p in report["phases"] if p["name"] == "switch")
    during = [b - a for a, b in gaps if a < end and b > begin]
    return Silence(count, max(during, default=0), max((b - a for a, b in gaps), default=0))


def way_back(suite: str, count: int) -> WayBack:
    """A live upgrade to a root whose last service fails there."""

    def fit_out(root: Path) -> None:
        echoes.install(root, count)
        write_settings(root, SETTINGS)
        write_unit(root, FRAIL, "[Service]\nExecStart=/bin/sleep infinity\n")

    def fails(root: Path) -> None:
        fit_out(root)
        text = "[Service]\nType=exec\nExecStartPre=/bin/false\nExecStart=/bin/true\n"
        (root / "etc/systemd/system" / FRAIL).write_text(text)

    with traces.workspace() as work, element(
        work, suite, suite, in_source=fit_out, in_target=fails
    ) as e:  # fmt: skip
        network = e.machine.network
        services = echoes.probed(network.address, count)
        with Probe(network.outside, services, period=echoes.PERIOD) as probe:
            probe.wait_up(30)
            begin = time.monotonic_ns() // 1000
            report = e.upgrade(other_root(e))
            probe.wait_up(30)
            seen = probe.stop().values()
    assert report["result"] == "rolled-back", report["error"]
    back = report["phases"][-1]
    longest = max(gap.usec for service in seen for gap in since(service, begin))
    return WayBack(count, back["end_usec"] - back["start_usec"], longest, back["end_usec"] - begin)
