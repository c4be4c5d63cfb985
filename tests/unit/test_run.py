"""Other programs: what they get, and how their failure is told."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from pathlib import Path

import pytest

from issu_systemd.errors import IssuError
from issu_systemd.run import ENVIRONMENT, ask, run, run_bounded, run_inside


def test_output_and_exit_status() -> None:
    done = run(["sh", "-c", "echo out; echo err >&2"])
    assert (done.returncode, done.stdout, done.stderr) == (0, "out\n", "err\n")


def test_a_path_is_a_word(tmp_path: Path) -> None:
    (tmp_path / "a b").touch()
    assert run(["ls", tmp_path / "a b"]).stdout == f"{tmp_path}/a b\n"


def test_it_gets_an_environment_of_its_own_and_no_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("SECRET", "x")
    lines = run(["env"]).stdout.splitlines()
    assert sorted(lines) == sorted(f"{key}={value}" for key, value in ENVIRONMENT.items())
    assert run(["cat"]).stdout == ""


def test_one_that_is_missing() -> None:
    with pytest.raises(IssuError, match="no-such-program is not installed"):
        run(["no-such-program", "x"])


@pytest.mark.parametrize(
    ("script", "last"),
    [
        ("echo first >&2; echo 'last line' >&2; exit 3", "last line"),
        ("echo 'on stdout'; exit 3", "on stdout"),
        ("exit 3", "exit 3"),
        ("kill -9 $$", "exit -9"),
    ],
)
def test_one_that_fails_is_told_with_its_last_line(script: str, last: str) -> None:
    with pytest.raises(IssuError) as caught:
        run(["sh", "-c", script])
    assert str(caught.value).endswith(f"failed: {last}")
    assert str(caught.value).startswith("`sh -c ")


def test_a_failure_may_be_wanted() -> None:
    assert run(["sh", "-c", "exit 3"], check=False).returncode == 3


def test_one_that_takes_too_long() -> None:
    with pytest.raises(IssuError, match=r"`sleep 300` took longer than 0\.1 s"):
        run(["sleep", "300"], timeout=0.1)
    with pytest.raises(IssuError, match="took longer"):
        run(["sleep", "300"], timeout=0.1, check=False)


def test_bytes_that_are_no_text() -> None:
    assert run(["printf", r"\377x"]).stdout == "\N{REPLACEMENT CHARACTER}x"


# --- programs of somebody else's ----------------------------------------------------------------

KEEP = 64 * 1024
NOBODY_LEFT = 10.0  # seconds for the kernel to end what was killed


def bounded(script: str, timeout: float = 30) -> tuple[int | None, str]:
    return run_bounded(["sh", "-c", script], timeout=timeout, keep=KEEP)


def is_gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody waits for is a zombie."""
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


def wait_gone(pid: int) -> bool:
    deadline = time.monotonic() + NOBODY_LEFT
    while not is_gone(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return is_gone(pid)


def test_status_and_both_streams() -> None:
    assert bounded("echo a; echo b >&2; exit 7") == (7, "a\nb\n")
    assert bounded("kill -9 $$") == (-9, "")


def test_of_much_output_the_end_is_kept() -> None:
    status, output = bounded("head -c 100M /dev/zero | tr '\\0' x; echo; echo enough")
    assert status == 0
    assert len(output) == KEEP
    assert output.endswith("x\nenough\n")


def test_one_that_hangs_is_killed_with_its_children() -> None:
    status, output = bounded("sleep 300 & echo $!; wait", timeout=0.5)
    assert status is None
    assert wait_gone(int(output))


def test_a_child_that_is_left_is_not_waited_for_but_killed() -> None:
    """Though it holds the pipe, and fills it."""
    begin = time.monotonic()
    status, output = bounded("yes & echo $!; exec sleep 0.3", timeout=60)
    assert status == 0
    assert time.monotonic() - begin < 30
    assert output.endswith("y\n")
    status, output = bounded("sleep 300 & echo $!", timeout=60)
    assert status == 0
    assert wait_gone(int(output))


def test_what_closes_its_output_is_waited_for() -> None:
    assert bounded("exec >&- 2>&-; sleep 0.3; exit 5") == (5, "")


def test_what_cannot_be_executed_is_named(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no program")
    (tmp_path / "text").chmod(0o755)
    for path, why in ((tmp_path / "text", "Exec format error"), (tmp_path / "no", "No such file")):
        with pytest.raises(IssuError, match=f"{path} cannot be run: {why}"):
            run_bounded([path], timeout=1, keep=KEEP)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: unshare(2), chroot(2)")
class TestInside:
    """In the tree / itself, since a program of a tree needs the tree's libraries."""

    def test_it_has_an_empty_run_and_is_the_only_process(self) -> None:
        done = run_inside(Path("/"), ["sh", "-c", "ls /run; ls -d /proc/[0-9]*; pwd"])
        assert done.stdout.splitlines()[:3] == ["lock", "systemd", "user"]
        assert len([line for line in done.stdout.splitlines() if "/proc/" in line]) <= 3
        assert done.stdout.endswith("\n/\n")

    def test_what_it_mounts_is_not_seen_outside(self) -> None:
        with tempfile.TemporaryDirectory(dir="/var/tmp") as place:  # it has a /tmp of its own
            run_inside(Path("/"), ["mount", "-t", "tmpfs", "tmpfs", place])
            assert place not in Path("/proc/self/mountinfo").read_text()

    def test_its_exit_status_is_ours(self) -> None:
        assert run_inside(Path("/"), ["sh", "-c", "exit 7"], check=False).returncode == 7
        with pytest.raises(IssuError, match=r"no$"):
            run_inside(Path("/"), ["sh", "-c", "echo no >&2; exit 7"])

    @pytest.mark.parametrize(("unprivileged", "uid"), [(False, "0"), (True, "65534")])
    def test_as_whom(self, uid: str, *, unprivileged: bool) -> None:
        done = run_inside(Path("/"), ["id", "-u"], unprivileged=unprivileged)
        assert done.stdout.strip() == uid

    def test_a_tree_without_a_shell(self, tmp_path: Path) -> None:
        with pytest.raises(IssuError):
            run_inside(tmp_path, ["true"])


# --- for who must not wait ----------------------------------------------------------------------


def test_who_asks_is_free_meanwhile() -> None:
    async def go() -> list[str]:
        return await asyncio.gather(*(ask(["sh", "-c", f"echo {n}"], 30) for n in range(3)))

    assert asyncio.run(go()) == ["0\n", "1\n", "2\n"]


def test_who_asks_hears_of_a_failure() -> None:
    with pytest.raises(IssuError, match="ended with 3"):
        asyncio.run(ask(["sh", "-c", "exit 3"], 30))


def test_one_that_takes_too_long_is_killed_with_all_it_has_started(tmp_path: Path) -> None:
    script = f"sleep 600 & echo $! >{tmp_path}/pid; wait"
    with pytest.raises(IssuError, match=r"longer than 0\.3 s"):
        asyncio.run(ask(["sh", "-c", script], 0.3))
    child = Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}/stat")
    for _ in range(1000):
        if not child.exists() or child.read_text().split()[2] == "Z":
            return
        signal.sigtimedwait([], 0.01)
    pytest.fail("it lives")
