"""What the command prints, from values."""

from __future__ import annotations

import pytest

from issu_systemd import progress, show
from issu_systemd.follow import State

LONG = "a sentence of some words that is longer than the line of this terminal may be"


def test_findings_block_first_and_keep_their_order() -> None:
    rows = [
        {"id": id, "severity": severity, "text": id.upper(), "way_out": ""}
        for id, severity in (("a", "info"), ("b", "block"), ("c", "odd"), ("d", "block"))
    ]
    told = show.findings(rows, legend=False, width=None)
    assert [line.split()[1] for line in told] == ["b", "d", "a", "c"]
    assert show.findings([], legend=True, width=None) == []


def test_findings_are_wrapped_below_themselves() -> None:
    row = {"id": "x", "severity": "warn", "text": LONG, "way_out": LONG}
    told = show.findings([row], legend=True, width=70)
    assert max(map(len, told)) <= 70
    assert len(told) > 3
    indent = len("SEVERITY  ID  ")
    assert {line[:indent].strip() for line in told[2:]} == {""}
    assert told[0].index("FINDING") == told[1].index("a sentence") == indent
    assert " ".join(" ".join(told[1:]).split()).count(LONG) == 2
    assert max(map(len, show.findings([row], legend=True, width=None))) > 70


def test_what_is_printed_does_not_speak_to_the_terminal() -> None:
    row = {"id": "x", "severity": "warn", "text": "a\x1b[31mb\nc", "way_out": ""}
    assert show.findings([row], legend=False, width=None) == ["warn  x  a?[31mb c"]


def test_the_verdict() -> None:
    rows = [{"severity": severity} for severity in ("block", "warn", "block")]
    assert show.verdict("/dev/b", rows, eligible=False).endswith("refused: 2 blocking findings.")
    assert show.verdict("/dev/b", rows[:1], eligible=False).endswith("1 blocking finding.")
    assert show.verdict("/dev/b", [], eligible=True) == "An upgrade to /dev/b would start."


def test_columns_are_as_wide_as_they_must_be() -> None:
    rows = [("aaa", "b"), ("a", "bb")]
    assert show.table(("X", "Y"), rows, legend=True) == ["X    Y", "aaa  b", "a    bb"]
    assert show.table(("LONG", "Y"), rows, legend=False) == ["aaa  b", "a    bb"]
    assert show.table(("X", "Y"), [], legend=False) == []


def test_phases_so_far() -> None:
    spans = [
        {"name": "preflight", "start_usec": 1_000_000, "end_usec": 1_500_000},
        {"name": "stage", "start_usec": 1_500_000, "end_usec": None},
    ]
    told = show.phases(spans, 4_000_000)
    assert told == ["preflight  0.500 s", "stage      2.500 s so far"]


@pytest.mark.parametrize(("mode", "text"), [("short", '{"a":[1]}'), ("pretty", '{\n "a": [')])
def test_json(mode: str, text: str) -> None:
    assert show.as_json({"a": [1]}, mode).startswith(text)


@pytest.mark.parametrize(
    ("environment", "argv"),
    [
        ({}, ["less"]),
        ({"PAGER": "more -d"}, ["more", "-d"]),
        ({"SYSTEMD_PAGER": "x", "PAGER": "y"}, ["x"]),
        ({"SYSTEMD_PAGER": "", "PAGER": "y"}, []),
        ({"PAGER": "cat"}, []),
    ],
)
def test_the_choice_of_a_pager(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], argv: list[str]
) -> None:
    for name in ("PAGER", "SYSTEMD_PAGER"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert show.pager() == argv


def test_a_phase_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    tell = progress.lines()
    state = State("x", "stage", 10)
    for one in (
        State("x"),  # not known yet
        state,
        state._replace(percent=20),
        state._replace(away=True),
        state._replace(away=True, percent=30),
        state,
        state._replace(phase="arrive"),
    ):
        tell(one)
    assert capsys.readouterr().out.splitlines() == [
        "stage",
        progress.AWAY,
        "stage",
        "arrive",
    ]


def test_quiet_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.display(quiet=True) as tell:
        tell(State("x", "stage"))
    assert capsys.readouterr().out == ""
