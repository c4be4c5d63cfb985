"""Watch services from outside the element.

As a program, in the network namespace it is started in:

    python3 -m tests.rig.probe echo=tcp,192.0.2.2,7777 nginx=http,192.0.2.2,80

Each line of standard input has what was observed so far written as one line of JSON; the end
of it ends the program.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from . import sh, wait
from .outage import Observed
from .prober import Prober
from .services import Service, parse

PERIOD = 0.005  # seconds between two attempts
TIMEOUT = 0.5  # seconds after which an attempt has failed
CHECKOUT = Path(__file__).parents[2]
MODULE = "tests.rig.probe"


class Probe:
    """A process that probes `services` from the network namespace `netns` (ip-netns(8))."""

    def __init__(
        self,
        netns: str,
        services: Mapping[str, Service],
        *,
        period: float = PERIOD,
        timeout: float = TIMEOUT,
    ) -> None:
        self._services = dict(services)
        specs = [f"{name}={service.spec()}" for name, service in services.items()]
        self._argv: list[str | Path] = ["nsenter", f"--net=/run/netns/{netns}", sys.executable]
        self._argv += ["-m", MODULE, f"--period={period}", f"--timeout={timeout}", *specs]

    def __enter__(self) -> Self:
        env = {"PYTHONPATH": str(CHECKOUT), "PYTHONDONTWRITEBYTECODE": "1"}
        self._process = sh.popen(self._argv, stdin=subprocess.PIPE, env=env)
        self.observed()  # it runs
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        sh.kill(self._process)
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream:
                stream.close()

    def observed(self) -> dict[str, Observed]:
        """What was seen so far, by name of the service. Probing goes on."""
        assert self._process.stdin and self._process.stdout and self._process.stderr
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass
        line = self._process.stdout.readline()
        if not line:
            raise sh.CommandError(self._argv, "ended", self._process.stderr.read())
        return {name: Observed.from_json(data) for name, data in json.loads(line).items()}

    def wait_up(self, timeout: float, *names: str) -> None:
        """Wait until each service (or each of `names`) has answered well after this call."""
        since = time.monotonic_ns() // 1000
        names = names or tuple(self._services)

        def up() -> bool:
            now = self.observed()
            return all(
                now[name].answers and now[name].answers[-1].last_usec > since for name in names
            )

        what = f"{', '.join(names)} answer"
        wait.until(up, timeout, what, interval=0.05, detail=lambda: repr(self._errors()))

    def stop(self) -> dict[str, Observed]:
        """End the probing: everything that was seen, by name of the service."""
        result = self.observed()
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(10)
        return result

    def _errors(self) -> dict[str, str]:
        return {name: seen.last_error for name, seen in self.observed().items()}


def main() -> None:
    """Probe, and answer lines with JSON, until standard input ends."""
    parser = argparse.ArgumentParser(description="Watch services.")
    parser.add_argument("--period", type=float, default=PERIOD, help="seconds")
    parser.add_argument("--timeout", type=float, default=TIMEOUT, help="seconds")
    parser.add_argument("service", nargs="+", help="NAME=KIND,ADDRESS,PORT[,QUESTION]")
    args = parser.parse_args()
    pairs = (spec.partition("=") for spec in args.service)
    prober = Prober({name: parse(spec) for name, _, spec in pairs}, args.period, args.timeout)

    def report(_: str) -> None:
        seen = {name: dataclasses.asdict(o) for name, o in prober.observed().items()}
        print(json.dumps(seen), flush=True)

    prober.run(report)


if __name__ == "__main__":
    main()
