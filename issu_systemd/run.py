"""The only place that starts other programs."""

from __future__ import annotations

import logging
import os
import select
import shlex
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from .errors import IssuError

log = logging.getLogger(__name__)

ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
KEPT_BYTES = 4096
LINE_MAX = 300  # characters

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


def last_line(argv: Sequence[str], *, timeout: float) -> tuple[int, str]:
    """Run a program that is not ours; its exit status and the last line that it printed.

    However much it prints, little of it is kept. When it has ended, or `timeout` seconds are over,
    what it has started and left is killed. Raises IssuError when it is missing or takes too long.
    """
    deadline, tail = time.monotonic() + timeout, b""
    try:
        process = subprocess.Popen(
            argv, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise IssuError(f"{argv[0]} cannot be run: {error.strerror}") from error
    assert process.stdout
    output, ended = process.stdout.fileno(), os.pidfd_open(process.pid)
    try:
        while True:
            left = max(0.0, deadline - time.monotonic())
            ready, _, _ = select.select([output, ended], [], [], left)
            if output in ready:
                chunk = os.read(output, 1 << 16)
                tail = (tail + chunk)[-KEPT_BYTES:]
                if chunk and left:
                    continue
            if ended in ready:
                break
            if not left:
                raise IssuError(f"`{shlex.join(argv)}` took longer than {timeout:g} s")
            select.select([ended], [], [], left)  # it has closed its output, and goes on
    finally:
        os.close(ended)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()
        process.wait()
    return process.returncode, plain(tail)


def plain(text: bytes) -> str:
    """The last line of an output, fit to be shown: short, and without control characters."""
    lines = [line for line in text.decode(errors="replace").splitlines() if line.strip()]
    return "".join(c for c in (lines or [""])[-1] if c.isprintable()).strip()[-LINE_MAX:]


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
