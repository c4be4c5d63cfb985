"""A Debian machine under test: a root image booted in systemd-nspawn."""

import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Self, TypeVar

from . import box, inroot, loop, net, sh, wait
from .traces import KEPT, PREFIX

T = TypeVar("T")
POWEROFF = signal.SIGRTMIN + 4  # systemd(1): starts poweroff.target
REBOOT = signal.SIGRTMIN + 5  # systemd(1): starts reboot.target
_serial = itertools.count(1)


class Machine:
    """Boots `root` on entering; leaving kills what still runs and removes every trace.

    `disks` are further images; each image becomes a loop device of the same name inside and
    outside. If `root` has a partition table, `partition` (from 1) says where the root is.
    All times are seconds.
    """

    def __init__(
        self,
        root: Path,
        *,
        disks: Sequence[Path] = (),
        partition: int | None = None,
        boot_timeout: float = 60,
    ) -> None:
        self.name = f"{PREFIX}-{os.getpid()}-{next(_serial)}"
        self.failed = False  # set it to keep the logs although no exception passes through
        self._images = (root, *disks)
        self._partition = partition
        self._boot_timeout = boot_timeout
        self._stack = ExitStack()
        self._box: box.Box | None = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._work = Path(tempfile.mkdtemp(prefix=f"{self.name}-"))
            stack.callback(shutil.rmtree, self._work, ignore_errors=True)
            self.network = stack.enter_context(net.network(self.name))
            self.devices = tuple(stack.enter_context(loop.attach(i)) for i in self._images)
            self._groups = stack.enter_context(box.cgroups(self.name))
            self._console = stack.enter_context((self._work / "console.log").open("w"))
            first = self.devices[0]
            stack.callback(self._stop)
            try:
                part = self._partition
                self.boot(loop.partitions(first)[part - 1] if part else first)
            except BaseException:
                self.keep_logs()
                raise
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is not None or self.failed:
                self.keep_logs()
        finally:
            self._stack.close()

    # -- life ---------------------------------------------------------------------------------

    def boot(self, device: Path) -> None:
        """Boot from `device` (any node of this machine) and wait until the boot has finished."""
        self.root = device
        nodes = [n for d in self.devices for n in (d, *loop.partitions(d))]
        top = self._work / "root"
        top.mkdir(exist_ok=True)
        self._box = box.start(
            device,
            top,
            name=self.name,
            namespace=self.network.element,
            devices=nodes,
            groups=self._groups,
            console=self._console,
        )
        self.wait_running(self._boot_timeout)

    def wait_exit(self, timeout: float) -> int:
        """Wait until the container has ended by itself: 0 powered off, box.REBOOT rebooting."""
        process = self._running(ended=True).supervisor
        wait.until(lambda: process.poll() is not None, timeout, f"{self.name} ends")
        self._box = None
        box.empty(self._groups)
        return process.returncode

    def poweroff(self, timeout: float = 60) -> None:
        """Shut down in an orderly way; the machine can be booted again."""
        os.kill(self.pid, POWEROFF)
        status = self.wait_exit(timeout)
        if status != 0:
            raise AssertionError(f"{self.name} ended with {status} instead of powering off")

    def reboot(self, device: Path | None = None, timeout: float = 60) -> None:
        """Ordinary reboot, from the same or another device of this machine."""
        os.kill(self.pid, REBOOT)
        status = self.wait_exit(timeout)
        if status != box.REBOOT:
            raise AssertionError(f"{self.name} ended with {status} instead of rebooting")
        self.boot(device or self.root)

    def cut(self) -> None:
        """Cut the power: everything is killed at once; the machine can be booted again."""
        self._stop()
        box.empty(self._groups)

    def _stop(self) -> None:
        if self._box is not None:
            box.stop(self._box)
            self._box = None

    def _running(self, *, ended: bool = False) -> box.Box:
        if self._box is None:
            raise AssertionError(f"{self.name} is not running")
        status = self._box.supervisor.poll()
        if status is not None and not ended:
            raise AssertionError(f"{self.name} has ended with {status}")
        return self._box

    # -- inside -------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """The container's PID 1 as the host numbers it."""
        return self._running().leader

    def _enter(self, argv: sh.Argv) -> list[str | Path]:
        into = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd")
        return ["nsenter", f"--target={self.pid}", *into, "--", *argv]

    def run(
        self,
        argv: sh.Argv,
        *,
        check: bool = True,
        timeout: float = 60,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside, in whatever root PID 1 is in at this moment."""
        return sh.run(self._enter(argv), check=check, timeout=timeout, stdin=stdin, env=env)

    def popen(
        self, argv: sh.Argv, *, stdin: int | IO[str] = subprocess.DEVNULL
    ) -> subprocess.Popen[str]:
        """Start a command inside; end it with `sh.kill`, or let the container's end do it."""
        return sh.popen(self._enter(argv), stdin=stdin)

    def systemctl(self, *args: str, check: bool = True, timeout: float = 60) -> str:
        """Output of systemctl inside, without the last newline."""
        result = self.run(["systemctl", *args], check=check, timeout=timeout)
        return result.stdout.removesuffix("\n")

    def path(self, path: str | Path, *, follow: bool = True) -> Path:
        """Where the host finds a path of the root that PID 1 is in now; see inroot.resolve."""
        return inroot.resolve(Path(f"/proc/{self.pid}/root"), path, follow=follow)

    def state(self) -> str:
        """`systemctl is-system-running`, or "" while PID 1 does not answer."""
        return self._ask("is-system-running")

    def _ask(self, *args: str) -> str:
        try:
            return self.systemctl(*args, check=False, timeout=5)
        except sh.CommandError:  # no PID 1 listens, e.g. in the middle of a switch
            return ""

    def wait_for(self, predicate: Callable[[], T | None], timeout: float, what: str) -> T:
        """First true value of `predicate`; wait.Timeout names `what` and the failed units."""
        return wait.until(
            predicate, timeout, f"{self.name}: {what}", interval=0.1, detail=self._trouble
        )

    def wait_running(self, timeout: float) -> str:
        """Wait until the boot has finished: "running", or "degraded" if a unit failed."""

        def over() -> str | None:
            state = self.state()
            return state if state in ("running", "degraded") else None

        return self.wait_for(over, timeout, "is running or degraded")

    def boot_id(self) -> str:
        """Kernel boot id as seen inside: new with each boot, the same across a switch."""
        return self.path("/proc/sys/kernel/random/boot_id").read_text().strip()

    def journal(self, *args: str) -> str:
        """The journal of this boot, monotonic time stamps, or what the arguments select."""
        select = args or ("--boot",)
        argv = ["journalctl", "--no-pager", "--output=short-monotonic", *select]
        return self.run(argv, check=False).stdout

    def _trouble(self) -> str:
        jobs = self._ask("list-jobs", "--no-legend")
        failed = self._ask("--failed", "--no-legend", "--plain")
        return f"state {self.state()!r}\njobs: {jobs}\nfailed: {failed}"

    def keep_logs(self) -> Path:
        """Copy console output and journal to a directory that stays ($ISSU_LOGS); print it."""
        logs = os.environ.get("ISSU_LOGS")
        kept = Path(tempfile.mkdtemp(prefix=f"{self.name}{KEPT}", dir=logs))
        shutil.copy(self._work / "console.log", kept)
        try:
            (kept / "journal.log").write_text(self.journal())
        except (sh.CommandError, AssertionError, OSError) as error:
            (kept / "journal.log").write_text(f"{error}\n")
        print(f"{self.name}: console output and journal kept in {kept}", file=sys.stderr)
        return kept
