"""Completion as the shells do it: verbs, options, block devices, ids."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from select import select
from signal import SIGKILL

import pytest

ROOT = Path(__file__).parents[2]
IDS = ["20260101T000000_aaaa", "20260102T000000_bbbb"]
VERBS = {
    "accept", "cancel", "check", "continuity", "history", "inhibit", "monitor", "plan", "report",
    "rollback", "start", "status",
}  # fmt: skip
BASH = """
source "$1"; shift
[[ $(complete -p issu) =~ -F\\ ([^ ]+) ]]
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
"${BASH_REMATCH[1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the package installs: issu for bash, _issu for zsh."""
    place = tmp_path_factory.mktemp("completion")
    for shell, name in (("bash", "issu"), ("zsh", "_issu")):
        argv = [sys.executable, ROOT / "data/completion", shell]
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        (place / name).write_text(done.stdout)
    (place / "history").mkdir()
    for id in IDS:
        (place / f"history/{id}.json").touch()
    (place / "dev").mkdir()
    device = next((path for path in Path("/dev").iterdir() if path.is_block_device()), None)
    assert device, "this machine has no block device in /dev to complete"
    (place / "dev/sdx1").symlink_to(device)
    (place / "dev/sdx-no-device").touch()
    return place


Complete = Callable[..., list[str]]


@pytest.fixture
def bash(generated: Path) -> Complete:
    def complete(*words: str, dev: str = "") -> list[str]:
        env = os.environ | {
            "_issu_history": f"{generated}/history", "_issu_dev": dev or f"{generated}/dev"
        }  # fmt: skip
        argv = ["bash", "--norc", "-c", BASH, "bash", generated / "issu", "issu", *words]
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return sorted(done.stdout.split())

    return complete


def test_verbs(bash: Complete) -> None:
    assert set(bash("")) == VERBS
    assert bash("st") == ["start", "status"]
    assert bash("nosuch") == []
    assert bash("continuity", "") == ["diff", "snapshot"]


def test_options(bash: Complete) -> None:
    assert bash("start", "--") == [
        "--force", "--help", "--no-block", "--quiet", "--strategy", "--wait"
    ]  # fmt: skip
    assert "--rehearse" in bash("check", "--")
    assert bash("status", "--") == ["--help", "--json"]
    assert bash("start", "--strategy", "") == ["halt", "live"]
    assert bash("start", "--wait", "--no") == ["--no-block"]


def test_block_devices_and_nothing_else(bash: Complete, generated: Path) -> None:
    device = f"{generated}/dev/sdx1"
    for words in (["start"], ["check"], ["plan"], ["start", "--strategy", "live", "--wait"]):
        assert bash(*words, "") == [device]
    assert bash("start", f"{generated}/dev/sdx-") == []
    assert bash("status", "") == []
    every = {str(path) for path in Path("/dev").iterdir() if path.is_block_device()}
    assert set(bash("start", "/dev/", dev="/dev")) >= every


def test_ids(bash: Complete) -> None:
    for words in (["report"], ["report", "--json"], ["cancel"], ["report", "--no-pager"]):
        assert bash(*words, "") == IDS
    assert bash("report", "20260102") == IDS[1:]
    assert bash("report", "x") == []


def test_files_and_commands(bash: Complete, generated: Path) -> None:
    assert bash("report", "--svg", f"{generated}/is") == [f"{generated}/issu"]
    assert bash("continuity", "diff", f"{generated}/is") == [f"{generated}/issu"]
    assert "dbus-daemon" in bash("inhibit", "dbus-dae")


# --- zsh, on a terminal, for it completes nowhere else ------------------------------------------

START = """
fpath=({place} $fpath) _issu_dev={place}/dev _issu_history={place}/history
autoload -Uz compinit && compinit -u -D; PS1=; echo go''od
"""


class Zsh:
    """An interactive zsh."""

    def __init__(self, place: Path) -> None:
        self.pid, self.fd = pty.fork()
        if not self.pid:
            env = {"PATH": os.environ["PATH"], "TERM": "xterm", "HOME": "/none"}
            os.execvpe("zsh", ["zsh", "-f", "-i"], env)
        self.ask(START.format(place=place), "good")

    def ask(self, typed: str, text: str) -> None:
        """Type, and wait until `text` is on the screen; fails when nothing more comes."""
        os.write(self.fd, typed.encode())
        seen = ""
        while text not in seen:
            assert select([self.fd], [], [], 10)[0], f"no {text!r} in {seen!r}"
            seen += os.read(self.fd, 4096).decode(errors="replace")


@pytest.fixture
def zsh(generated: Path) -> Iterator[Zsh]:
    shell = Zsh(generated)
    try:
        yield shell
    finally:
        os.kill(shell.pid, SIGKILL)
        os.waitpid(shell.pid, 0)
        os.close(shell.fd)


@pytest.mark.parametrize(
    ("typed", "text"),
    [
        ("issu mon\t", "monitor"),
        ("issu sta\t\t", "status  -- how far the upgrade is"),
        ("issu start --no\t", "--no-block"),
        ("issu start --strategy l\t", "live"),
        ("issu start \t", "/dev/sdx1"),
        ("issu report 20260102\t", IDS[1]),
        ("issu report --json 20260102\t", IDS[1]),
        ("issu inhibit dbus-dae\t", "dbus-daemon"),
    ],
)
def test_zsh(zsh: Zsh, typed: str, text: str) -> None:
    zsh.ask(typed, text)


def test_zsh_completes_no_file_for_a_device(zsh: Zsh) -> None:
    """Control: the terminal's bell is all that answers what can be no device."""
    zsh.ask("issu start sdx-\t", "\a")
