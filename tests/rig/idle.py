"""What the package costs an element, upgrades apart: its generator at every boot, `issu status`."""

import time
from statistics import median
from typing import NamedTuple

from .machine import Machine

GENERATOR = "/usr/lib/systemd/system-generators/issu-generator"
EMPTY = "/usr/local/sbin/empty"
RUNS, BLOCKS = 200, 7
STATUS_RUNS = 20
STATUS = 'i=0; while [ $i -lt "$1" ]; do "$2" status >/dev/null; i=$((i+1)); done'
LOOP = 'i=0; while [ $i -lt "$1" ]; do "$2" /tmp /tmp /tmp; i=$((i+1)); done'


class Idle(NamedTuple):
    """Microseconds of one run: of the generator, and of a shell script that does nothing."""

    generator: list[float]
    empty: list[float]

    @property
    def cost(self) -> float:
        """What is left for the generator itself."""
        return median(self.generator) - median(self.empty)


def generator(machine: Machine) -> Idle:
    """Run both in turns, many times each, in a machine where no upgrade is in progress."""
    assert not machine.path("/run/issu/in-progress").exists()
    empty = machine.path(EMPTY)
    empty.write_text("#!/bin/sh\n")
    empty.chmod(0o755)
    found = Idle([], [])
    for _ in range(BLOCKS):
        found.generator.append(one_run(machine, GENERATOR))
        found.empty.append(one_run(machine, EMPTY))
    return found


def one_run(machine: Machine, program: str) -> float:
    """Microseconds that a program takes, from many runs in a row."""
    begin = time.monotonic_ns()
    machine.run(["sh", "-ec", LOOP, "sh", str(RUNS), program])
    return (time.monotonic_ns() - begin) / 1000 / RUNS


class Status(NamedTuple):
    """Microseconds of one run of `issu status` and of `systemctl status`."""

    services: int
    issu: list[float]
    systemctl: list[float]

    @property
    def ratio(self) -> float:
        """How many calls of systemctl one of issu is."""
        return median(self.issu) / median(self.systemctl)


def status(machine: Machine, services: int) -> Status:
    """Run both in turns, in a machine where an upgrade has ended."""
    found = Status(services, [], [])
    for _ in range(BLOCKS):
        for times, program in ((found.issu, "issu"), (found.systemctl, "systemctl")):
            begin = time.monotonic_ns()
            machine.run(["sh", "-ec", STATUS, "sh", str(STATUS_RUNS), program])
            times.append((time.monotonic_ns() - begin) / 1000 / STATUS_RUNS)
    return found
