"""The command `issu`: what it prints, where, and its exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from issu_systemd import __version__, cli, history, record, verdict, wayback
from issu_systemd.errors import IssuError, Refused
from issu_systemd.phase import Phase
from issu_systemd.record import Record

ROOT = Path(__file__).parents[2]
REPORT = ROOT / "tests/unit/data/report-accepted.json"
ID = json.loads(REPORT.read_text())["id"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory in place of the history, with one report in it; no upgrade runs."""
    monkeypatch.setattr(record.load, "__defaults__", (tmp_path / "record.json",))
    monkeypatch.setattr(history, "PLACE", tmp_path)
    (tmp_path / f"{ID}.json").write_text(REPORT.read_text())
    return tmp_path


@pytest.fixture
def issu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: Path
) -> Issu:
    return Issu(monkeypatch, capsys)


class Issu:
    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def __call__(self, *words: str) -> tuple[int, str, str]:
        """Exit status, standard output and standard error."""
        self.monkeypatch.setattr(sys, "argv", ["issu", *words])
        try:
            status: object = cli.main()
        except SystemExit as end:
            status = end.code
        out, err = self.capsys.readouterr()
        assert isinstance(status, int)
        return status, out, err


def test_version(issu: Issu) -> None:
    assert issu("--version") == (0, f"issu {__version__}\n", "")


@pytest.mark.parametrize("words", [["--help"], ["start", "-h"], ["status", "-h"], ["report", "-h"]])
def test_help(issu: Issu, words: list[str]) -> None:
    status, out, err = issu(*words)
    assert (status, err) == (0, "")
    assert out.startswith("usage: issu")


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["restart"],
        ["start"],
        ["start", "/dev/sdb2", "/dev/sdc2"],
        ["status", "x"],
        ["status", "--svg", "x"],
        ["report", "--json", "--svg", "x"],
        ["report", "--nosuch"],
        ["report", "a", "b"],
        ["--nosuch"],
        ["continuity"],
        ["continuity", "diff", "a"],
        ["continuity", "snapshot", "a"],
    ],
    ids=" ".join,
)
def test_wrong_words(issu: Issu, words: list[str]) -> None:
    status, out, err = issu(*words)
    assert (status, out) == (2, "")
    assert err.startswith("usage: issu")


# --- accept and rollback ------------------------------------------------------------------------


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is said to the upgrade that waits, and what is started."""
    words: list[str] = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(verdict, "give", words.append)
    monkeypatch.setattr(wayback, "start", lambda: words.append("start") or "issu@dev-x.service")
    return words


def test_accept(issu: Issu, said: list[str]) -> None:
    assert issu("accept") == (0, "", "")
    assert said == ["accept"]


def test_rollback_of_the_one_that_waits_or_of_the_last(
    issu: Issu, said: list[str], place: Path
) -> None:
    status, out, _ = issu("rollback")
    assert (status, said) == (0, ["start"])
    assert out.startswith("issu@dev-x.service: started")
    story = Record(id="z", started="y", phase=Phase.ACCEPT, deadline_usec=1)
    record.save(story, place / "record.json")
    assert issu("rollback") == (0, "", "")
    assert said == ["start", "roll-back"]


@pytest.mark.parametrize("verb", ["accept", "rollback"])
def test_only_root_decides(
    issu: Issu, said: list[str], monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    status, _, err = issu(verb)
    assert (status, said) == (1, [])
    assert "only root" in err
    assert f"sudo issu {verb}" in err


# --- status and report --------------------------------------------------------------------------


def test_status_of_the_last(issu: Issu) -> None:
    status, out, err = issu("status")
    assert (status, err) == (0, "")
    assert out.startswith(f"{ID}: accepted")
    assert json.loads(issu("status", "--json")[1])["id"] == ID


def test_status_of_the_one_that_runs(issu: Issu, place: Path) -> None:
    story = Record(id="z", started="y")
    story.enter(Phase.PREFLIGHT)
    record.save(story, place / "record.json")
    assert issu("status")[:2] == (0, "z: preflight, going to ?\n")
    assert json.loads(issu("status", "--json")[1])["phase"] == "preflight"


@pytest.mark.parametrize("words", [["report"], ["report", ID]], ids=["last", "by-id"])
def test_report_for_a_person(issu: Issu, words: list[str]) -> None:
    status, out, err = issu(*words)
    assert (status, err) == (0, "")
    assert ID in out


def test_report_for_a_program(issu: Issu) -> None:
    status, out, _ = issu("report", "--json")
    assert (status, json.loads(out)) == (0, json.loads(REPORT.read_text()))


def test_report_as_a_picture(issu: Issu, tmp_path: Path) -> None:
    assert issu("report", "--svg", str(tmp_path / "x.svg")) == (0, "", "")
    assert ElementTree.parse(tmp_path / "x.svg").getroot().tag.endswith("svg")


def test_a_picture_that_cannot_be_written(issu: Issu, tmp_path: Path) -> None:
    status, out, err = issu("report", "--svg", str(tmp_path / "no/x.svg"))
    assert (status, out) == (1, "")
    assert err == f"issu: {tmp_path}/no/x.svg: No such file or directory\n"


@pytest.mark.parametrize("words", [["status"], ["report"], ["report", "nosuch"]], ids=" ".join)
def test_nothing_to_tell(issu: Issu, place: Path, words: list[str]) -> None:
    (place / f"{ID}.json").unlink()
    status, out, err = issu(*words)
    assert (status, out) == (1, "")
    assert err.startswith("issu: no upgrade")
    assert len(err.splitlines()) == 2  # the error, and the way out


# --- start --------------------------------------------------------------------------------------


@pytest.fixture
def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)


def test_only_root_starts(issu: Issu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    status, out, err = issu("start", "/dev/sdb2")
    assert (status, out) == (1, "")
    assert err.startswith("issu: only root")


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize("status", [0, 1, 3])
def test_start_ends_as_the_upgrade_goes(
    issu: Issu, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    from issu_systemd import follow

    asked: list[tuple[str, bool]] = []

    def answer(device: str, *, block: bool) -> int:
        asked.append((device, block))
        return status

    monkeypatch.setattr(follow, "follow", answer)
    assert issu("start", "/dev/sdb2")[0] == status
    assert issu("start", "--no-block", "/dev/sdb2")[0] == status
    assert asked == [("/dev/sdb2", True), ("/dev/sdb2", False)]


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (Refused("refused: no such device"), 3, "issu: refused: no such device\n"),
        (IssuError("it failed", hint="mend it"), 1, "issu: it failed\n  mend it\n"),
        (IssuError("it failed"), 1, "issu: it failed\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_errors(
    issu: Issu, monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int, said: str
) -> None:
    from issu_systemd import follow

    def fail(device: str, *, block: bool) -> int:
        raise error

    monkeypatch.setattr(follow, "follow", fail)
    assert issu("start", "/dev/sdb2") == (status, "", said)


# --- continuity ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("as_root")
def test_a_snapshot(issu: Issu, monkeypatch: pytest.MonkeyPatch) -> None:
    from issu_systemd import compare

    monkeypatch.setattr(compare, "snapshot", lambda: {"boot_id": "b"})
    status, out, err = issu("continuity", "snapshot")
    assert (status, json.loads(out), err) == (0, {"boot_id": "b"}, "")


def test_only_root_takes_a_snapshot(issu: Issu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    status, out, err = issu("continuity", "snapshot")
    assert (status, out) == (1, "")
    assert err.startswith("issu: only root")


@pytest.mark.parametrize(("after", "status"), [("b", 0), ("c", 1)], ids=["same", "differs"])
def test_a_diff(issu: Issu, tmp_path: Path, after: str, status: int) -> None:
    files = [tmp_path / "before", tmp_path / "after"]
    for path, boot in zip(files, ["b", after], strict=True):
        path.write_text(json.dumps({"boot_id": boot}))
    words = ["continuity", "diff", *map(str, files)]
    done, out, err = issu(*words)
    assert (done, err) == (status, "")
    assert out.endswith("; compared: boot_id\n")
    done, out, _ = issu(*words, "--json")
    assert (done, len(json.loads(out)["differences"])) == (status, status)


def test_a_diff_of_nothing(issu: Issu, tmp_path: Path) -> None:
    status, out, err = issu("continuity", "diff", f"{tmp_path}/x", f"{tmp_path}/y")
    assert (status, out) == (1, "")
    assert err.startswith(f"issu: {tmp_path}/x: No such file")


# --- as a program -------------------------------------------------------------------------------

PROGRAM = """
import pathlib, sys
from issu_systemd import cli, history
history.PLACE = pathlib.Path(sys.argv.pop(1))
sys.exit(cli.main())
"""


@pytest.mark.parametrize("verb", ["report", "status"], ids=["much", "one-line"])
def test_nobody_reads_what_is_printed(place: Path, verb: str) -> None:
    """`issu report | true`: no traceback, and not success either."""
    reader, writer = os.pipe()
    os.close(reader)
    env = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(place), verb],
        cwd=ROOT,
        env=env,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_the_version_needs_no_library() -> None:
    """Preflight runs `issu --version` in the new root, where it must be quick and say one line."""
    show = "import sys, issu_systemd.cli; print(sorted({'pystemd', 'pyudev'} & set(sys.modules)))"
    argv = [sys.executable, "-c", show]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
