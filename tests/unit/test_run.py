"""Other programs: what they get, and how their failure is told."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import pytest

from issu_systemd.errors import IssuError
from issu_systemd.run import ENVIRONMENT, LINE_MAX, last_line, run, run_inside


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


# --- programs that are not ours -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "want"),
    [
        ("echo a; echo b >&2", (0, "b")),
        ("echo a; exit 3", (3, "a")),
        ("exit 4", (4, "")),
        ("printf 'red\\033[31m\\007\\n\\n'", (0, "red[31m")),
        ("exec >&- 2>&-; exit 5", (5, "")),
        ("kill -9 $$", (-9, "")),
    ],
)
def test_the_last_line(script: str, want: tuple[int, str]) -> None:
    assert last_line(["sh", "-c", script], timeout=20) == want


def test_little_is_kept_of_much() -> None:
    status, said = last_line(["sh", "-c", "yes x | head -c 50000000; echo; echo end"], timeout=60)
    assert (status, said) == (0, "end")
    _, said = last_line(["sh", "-c", "head -c 100000 /dev/zero | tr '\\0' y"], timeout=20)
    assert said == "y" * LINE_MAX


@pytest.mark.parametrize("script", ["sleep 300", "yes", "exec >&- 2>&-; sleep 300"])
def test_one_that_does_not_end_is_killed(script: str) -> None:
    with pytest.raises(IssuError, match=r"took longer than 0\.2 s"):
        last_line(["sh", "-c", script], timeout=0.2)


def test_what_it_leaves_is_killed(tmp_path: Path) -> None:
    """And is not waited for, although it holds the output."""
    status, said = last_line(
        ["sh", "-c", f"sleep 300 & echo $! >{tmp_path}/pid; echo ok"], timeout=20
    )
    assert (status, said) == (0, "ok")
    stat = Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}/stat")
    deadline = time.monotonic() + 10
    while stat.exists() and ") Z" not in stat.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_one_that_is_not_there() -> None:
    with pytest.raises(IssuError, match="/no/such cannot be run: No such file"):
        last_line(["/no/such"], timeout=1)
