"""The only place that starts other programs."""

from __future__ import annotations

import logging
import os
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from signal import SIG_IGN, SIGHUP, SIGINT, SIGQUIT, SIGTERM, getsignal
from typing import NamedTuple

from .errors import IssuError

log = logging.getLogger(__name__)

POLKIT_AGENT = "/usr/bin/pkttyagent"
AGENT_SEC = 5.0
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
LINE_MAX = 300  # characters

DEAD_SEC = 5.0  # for a process that was sent SIGKILL
PIPE_BYTES = 64 * 1024  # all that a pipe holds, see pipe(7)
KILLED_SEC = 1.0  # for what was killed to end; what the kernel holds fast stays behind

# What a program in the new root finds there: kernel file systems read from, an empty /run, and
# nothing that lets it change the running system. The namespace and all of it end with the program.
_INSIDE = """
mount -t proc -o ro proc /proc
mount -t sysfs -o ro sysfs /sys
mount -t cgroup2 -o ro cgroup2 /sys/fs/cgroup
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -m 777 /run/user /run/lock /run/systemd
export XDG_RUNTIME_DIR=/run/user
"$@"
exit $?
"""


def run(
    argv: Sequence[str | os.PathLike[str]], *, check: bool = True, timeout: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end with no input; `timeout` is in seconds.

    Raises IssuError, with the program's last line, when it is missing, fails or takes too long.
    """
    words = [os.fspath(word) for word in argv]
    try:
        done = subprocess.run(
            words, env=ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, errors="replace", timeout=timeout, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        raise IssuError(f"{words[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise IssuError(f"`{shlex.join(words)}` took longer than {timeout:g} s") from None
    if check and done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines() or [f"exit {done.returncode}"]
        raise IssuError(f"`{shlex.join(words)}` failed: {lines[-1]}")
    return done


async def ask(argv: Sequence[str | os.PathLike[str]], timeout: float) -> str:
    """What a program prints, for who must not wait for it; `timeout` is in seconds.

    Raises IssuError when it fails or takes too long; it is killed then, with all it has started.
    """
    import asyncio

    words = [os.fspath(word) for word in argv]
    process = await asyncio.create_subprocess_exec(
        *words, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    try:
        said, _ = await asyncio.wait_for(process.communicate(), timeout)
    except TimeoutError:
        raise IssuError(f"`{shlex.join(words[:-1])}` took longer than {timeout:g} s") from None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError, TimeoutError):
                os.killpg(process.pid, signal.SIGKILL)
                await asyncio.wait_for(process.wait(), KILLED_SEC)
    if process.returncode != 0:
        raise IssuError(f"`{shlex.join(words[:-1])}` ended with {process.returncode}")
    return said.decode(errors="replace")


class Done(NamedTuple):
    """How a program ended: its status as subprocess has it, None if it had to be killed."""

    status: int | None
    output: str


def run_bounded(
    argv: Sequence[str | os.PathLike[str]],
    *,
    timeout: float,
    keep: int,
    more: Mapping[str, str] | None = None,
) -> Done:
    """Run a program of somebody else's, with what it starts, for `timeout` seconds at most.

    `more` is added to its environment. Of what it prints, on either stream, the last `keep` bytes
    are kept. Whatever of its process group is left in the end is killed. Raises IssuError if it
    cannot be executed.
    """
    try:
        process = subprocess.Popen(
            [os.fspath(word) for word in argv], env={**ENVIRONMENT, **(more or {})},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True, bufsize=0,
        )  # fmt: skip
    except OSError as error:
        raise IssuError(f"{os.fspath(argv[0])} cannot be run: {error.strerror}") from error
    with process.stdout as pipe:  # type: ignore[union-attr]
        os.set_blocking(pipe.fileno(), False)
        output, ended = listen(process.pid, pipe.fileno(), time.monotonic() + timeout, keep)
        with suppress(ProcessLookupError):  # not waited for yet, so the number is still its own
            os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):  # the kernel may hold it: then it is left behind
        process.wait(DEAD_SEC)
    return Done(process.returncode if ended else None, output.decode(errors="replace"))


def listen(pid: int, pipe: int, deadline: float, keep: int) -> tuple[bytes, bool]:
    """The end of what a process prints until it ends or until `deadline`; whether it has ended.

    What it started may hold the pipe for longer, and is not waited for.
    """
    output, watched = b"", os.pidfd_open(pid)
    heard = [watched, pipe]
    try:
        while (left := deadline - time.monotonic()) > 0:
            ready, _, _ = select.select(heard, [], [], left)
            chunk = b""
            with suppress(BlockingIOError):
                chunk = os.read(pipe, PIPE_BYTES)
            output = (output + chunk)[-keep:]
            if watched in ready:
                return output, True
            heard = [watched, pipe] if chunk else [watched]
    finally:
        os.close(watched)
    return output, False


def plain(text: str) -> str:
    """The last line of an output, fit to be shown: short, and without control characters."""
    lines = [line for line in text.splitlines() if line.strip()]
    return "".join(c for c in (lines or [""])[-1] if c.isprintable()).strip()[-LINE_MAX:]


def aside(work: Callable[[], None], timeout: float) -> bool:
    """Run a function in a child process, for `timeout` seconds at most; whether it succeeded."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        except (IssuError, OSError) as error:
            log.warning("%s", error)
        finally:
            os._exit(status)
    watched = os.pidfd_open(pid)
    try:
        if not select.select([watched], [], [], timeout)[0]:
            os.kill(pid, signal.SIGKILL)
            select.select([watched], [], [], DEAD_SEC)  # the kernel may hold it
        ended, status = os.waitpid(pid, os.WNOHANG)
    finally:
        os.close(watched)
    return ended == pid and status == 0


def run_inside(
    root: Path,
    argv: Sequence[str | os.PathLike[str]],
    *,
    check: bool = True,
    timeout: float = 60.0,
    unprivileged: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run a program of the tree at `root` there, in mount, cgroup and PID namespaces of its own.

    The tree must hold sh and mount. Raises IssuError as `run` does.
    """
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
    drop = nobody if unprivileged else []
    return run(
        ["unshare", "--mount", "--cgroup", "--pid", "--fork", "--kill-child", f"--root={root}",
         "--wd=/", "sh", "-c", _INSIDE, "sh", *drop, *argv],
        check=check, timeout=timeout,
    )  # fmt: skip


def attend(argv: Sequence[str]) -> int:
    """Run somebody else's program on our terminal; its exit status as a shell has it.

    Ctrl-C is the program's affair, and what tells us to end tells it. It inherits no descriptor of
    ours. 127 if there is no such program, 126 if it cannot be executed; the message is printed.
    """
    program, told = None, []

    def pass_on(number: int, _: object) -> None:
        told.append(number)
        if program is not None:
            program.send_signal(number)

    # Functions all of them, for the program would inherit SIG_IGN.
    handlers = {SIGINT: nothing, SIGQUIT: nothing, SIGTERM: pass_on, SIGHUP: pass_on}
    before = {n: signal.signal(n, h) for n, h in handlers.items() if getsignal(n) is not SIG_IGN}
    try:
        program = subprocess.Popen(list(argv))
        for number in told:  # it came before there was anybody to tell
            program.send_signal(number)
        status = program.wait()
    except OSError as error:
        print(f"issu: {argv[0]}: {error.strerror}", file=sys.stderr)
        return 127 if isinstance(error, FileNotFoundError) else 126
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return status if status >= 0 else 128 - status


def nothing(number: int, _: object) -> None:
    """A signal that others heed."""


def page(text: str, argv: Sequence[str], more: Mapping[str, str]) -> bool:
    """Show text with a pager that has `more` in its environment; False if there is none."""
    try:
        pager = subprocess.Popen(
            list(argv), stdin=subprocess.PIPE, text=True, env={**os.environ, **more}
        )
    except OSError:
        return False
    pager.communicate(text)  # it may be left before the end: that is no error
    return True


@contextmanager
def asking(agent: str = POLKIT_AGENT) -> Iterator[None]:
    """polkit's agent on our terminal while the block lasts, as systemctl(1) has it.

    It asks for a password where no other agent does. Without it, polkit says no.
    """
    reader, writer = os.pipe()
    argv = [agent, f"--notify-fd={writer}", "--fallback"]
    try:
        process = subprocess.Popen(argv, pass_fds=(writer,), stderr=subprocess.DEVNULL)
    except OSError:
        process = None
    finally:
        os.close(writer)
    select.select([reader], [], [], AGENT_SEC)  # it closes its end when it is ready, or dies
    os.close(reader)
    try:
        yield
    finally:
        if process is not None:
            process.terminate()
            process.wait()
