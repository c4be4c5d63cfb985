"""The command `issu`: what it prints, where, and its exit status."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from issu_systemd import __version__, cli, errors, history, record
from issu_systemd.errors import IssuError
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
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/none")
    (tmp_path / f"{ID}.json").write_text(REPORT.read_text())
    return tmp_path


@pytest.fixture
def issu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: Path) -> Issu:
    return Issu(monkeypatch, capsys)


class Issu:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
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


@pytest.mark.parametrize(
    "words", [["--help"], ["start", "-h"], ["status", "-h"], ["inhibit", "-h"]]
)
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
        ["status", "--json=long"],
        ["check"],
        ["check", "/dev/sdb2", "--strategy=fast"],
        ["start", "/dev/sdb2", "--wait", "--no-block"],
        ["history", "-n", "x"],
        ["history", "-n", "4294967296"],
    ],
    ids=" ".join,
)
def test_wrong_words(issu: Issu, words: list[str]) -> None:
    status, out, err = issu(*words)
    assert (status, out) == (2, "")
    assert err.startswith("usage: issu")


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


# --- how it ends --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (IssuError("it failed", hint="mend it"), 1, "issu: it failed\n  mend it\n"),
        (IssuError("it failed"), 1, "issu: it failed\n"),
        (errors.Unreachable("no bus"), 1, "issu: no bus\n"),
        (errors.NoSuchJob("none"), 1, "issu: none\n"),
        (errors.PastPointOfNoReturn("late"), 1, "issu: late\n"),
        (errors.InvalidArgument("odd"), 2, "issu: odd\n"),
        (errors.Refused("refused"), 3, "issu: refused\n"),
        (errors.RolledBack("back"), 4, "issu: back\n"),
        (errors.NotAuthorized("you may not"), 5, "issu: you may not\n"),
        (errors.Busy("another"), 6, "issu: another\n"),
        (errors.Inhibited("a backup"), 7, "issu: a backup\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_errors(
    issu: Issu, monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int, said: str
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(history, "current", fail)
    assert issu("status") == (status, "", said)


def test_every_exit_status_is_in_the_manual() -> None:
    table = (ROOT / "docs/issu.1.md").read_text().partition("# EXIT STATUS")[2]
    said = re.findall(r"^\| (\d+) \|", table.partition("\n# ")[0], re.MULTILINE)
    assert [int(word) for word in said] == [cli.OK, cli.FAILED, *sorted(cli.STATUS.values()), 130]


def test_every_verb_and_option_is_in_the_manual() -> None:
    manual = (ROOT / "docs/issu.1.md").read_text().replace("\\", "")
    assert [word for word in words_of(cli.parser()) if word not in manual] == []
    assert "--nosuch" not in manual  # control


def words_of(parser: argparse.ArgumentParser) -> list[str]:
    """Every verb and every long option."""
    found = []
    for action in parser._actions:
        found += [option for option in action.option_strings if option.startswith("--")]
        if isinstance(action, argparse._SubParsersAction):
            for name, verb in action.choices.items():
                found += [f"{parser.prog} {name}", *words_of(verb)]
    return found


# --- words --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "spelled"),
    [
        ("report --json", "report --json=pretty"),
        ("report --json ID", "report --json=pretty ID"),
        ("report ID --json", "report ID --json=pretty"),
        ("report --json short ID", "report --json short ID"),
        ("report --json=short ID", "report --json=short ID"),
        ("report --json --no-pager", "report --json=pretty --no-pager"),
        ("report -- --json", "report -- --json"),
        ("inhibit ls --json x", "inhibit ls --json x"),
        ("", ""),
    ],
)
def test_a_bare_json_takes_no_word(argv: str, spelled: str) -> None:
    assert cli.spelled_out(argv.split()) == spelled.split()


@pytest.mark.parametrize(
    ("words", "form"), [([], "off"), (["--json"], "pretty"), (["--json=short"], "short")]
)
def test_json_and_an_id(words: list[str], form: str) -> None:
    found = cli.parser().parse_args(cli.spelled_out(["report", *words, ID]))
    assert (found.json, found.id) == (form, ID)


def test_status_in_one_line(issu: Issu) -> None:
    short, pretty = (issu("status", f"--json={form}")[1] for form in ("short", "pretty"))
    assert json.loads(short) == json.loads(pretty)
    assert (short.count("\n"), pretty.count("\n") > 1) == (1, True)
    assert issu("status", "--json=off") == issu("status")


# --- continuity ---------------------------------------------------------------------------------


def test_a_snapshot(issu: Issu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    from issu_systemd import compare

    monkeypatch.setattr(compare, "snapshot", lambda: {"boot_id": "b"})
    status, out, err = issu("continuity", "snapshot")
    assert (status, json.loads(out), err) == (0, {"boot_id": "b"}, "")


def test_only_root_reads_kernel_and_device(issu: Issu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for words in (["continuity", "snapshot"], ["plan", "/dev/sdb2"]):
        status, out, err = issu(*words)
        assert (status, out) == (5, "")
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
    libraries = {"pystemd", "pyudev", "dbus_next", "rich"}
    show = f"import sys, issu_systemd.cli; print(sorted({libraries} & set(sys.modules)))"
    argv = [sys.executable, "-c", show]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
