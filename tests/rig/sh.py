"""The only caller of subprocess: list argv, empty standard input, errors that tell everything."""

import os
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

Argv = Sequence[str | Path]
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENV: Mapping[str, str] = {"PATH": PATH, "LANG": "C.UTF-8", "SYSTEMD_COLORS": "0"}


class CommandError(RuntimeError):
    """A command returned an unexpected status or did not end in time."""

    def __init__(self, argv: Argv, why: str, output: str) -> None:
        super().__init__(f"{quote(argv)}: {why}\n{output.strip()}".rstrip())
        self.argv = argv


def quote(argv: Argv) -> str:
    """One line that could be pasted into a shell."""
    return shlex.join(os.fspath(a) for a in argv)


def wake(*_: object) -> None:
    """Let a nsenter(1) of ours go on that has stopped; on SIGCHLD, installed below.

    PID 1 stops every process for an instant when it changes roots, with SIGSTOP. nsenter, seeing
    its child stopped, stops itself, outside of PID 1's reach, and nobody would continue it. What a
    test stops is another program.
    """
    with suppress(ChildProcessError):
        while found := os.waitid(os.P_ALL, 0, os.WSTOPPED | os.WNOHANG):
            with suppress(OSError):
                if Path(f"/proc/{found.si_pid}/comm").read_text() == "nsenter\n":
                    os.kill(found.si_pid, signal.SIGCONT)


signal.signal(signal.SIGCHLD, wake)


def popen(
    argv: Argv,
    *,
    stdin: int | IO[str] = subprocess.DEVNULL,
    stdout: int | IO[str] | None = subprocess.PIPE,
    stderr: int | IO[str] | None = subprocess.PIPE,
    env: Mapping[str, str] | None = None,
) -> subprocess.Popen[str]:
    """Start a command in a session of its own, so that `kill` reaches its children too.

    `env` is added to a minimal environment.
    """
    return subprocess.Popen(
        [os.fspath(a) for a in argv],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env={**ENV, **(env or {})},
        start_new_session=True,
        text=True,
        errors="replace",
    )


def kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL the process group of a `popen` that has not been waited for yet, and reap it."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def run(
    argv: Argv,
    *,
    check: bool = True,
    timeout: float = 120,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; `timeout` in seconds kills its whole process group.

    Raises CommandError on a status other than 0 (unless `check` is off) and on a timeout.
    """
    give = subprocess.DEVNULL if stdin is None else subprocess.PIPE
    process = popen(argv, stdin=give, env=env)
    try:
        out, err = process.communicate(stdin, timeout=timeout)
    except subprocess.TimeoutExpired:
        kill(process)
        out, err = process.communicate()
        raise CommandError(argv, f"not ended after {timeout:g} s", out + err) from None
    except BaseException:
        kill(process)
        raise
    if check and process.returncode != 0:
        raise CommandError(argv, f"exit status {process.returncode}", out + err)
    return subprocess.CompletedProcess(list(argv), process.returncode, out, err)


def output(argv: Argv, *, timeout: float = 120) -> str:
    """Standard output of a command that must succeed, without the last newline."""
    return run(argv, timeout=timeout).stdout.removesuffix("\n")
