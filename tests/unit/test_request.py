"""What is asked for over D-Bus: taken once, by the agent it is for; what is wrong is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from issu_systemd import record, request
from issu_systemd.errors import InvalidArgument
from issu_systemd.request import Options, Request

UNIT = "issu@dev-sdb2.service"
ASKED = Request("20261125T120000_1", UNIT, "/dev/sdb2", 1000, "live", ("memory",))


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(record, "DIRECTORY", tmp_path)
    return tmp_path


def test_the_agent_takes_it_once(place: Path) -> None:
    request.leave(ASKED)
    assert request.peek() == ASKED
    assert request.take(UNIT) == ASKED
    assert request.take(UNIT) is None
    assert list(place.iterdir()) == []


def test_another_unit_leaves_it_alone() -> None:
    request.leave(ASKED)
    assert request.take("issu@dev-sdc2.service") is None
    assert request.take(UNIT) == ASKED


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"id": 1}', '{"id": 1, "unit": "u", "target": "t", "force": []}',
     '{"id": "i", "unit": "u", "target": "t", "force": [], "new": 1}',
     '{"id": "i", "unit": "u", "target": "t", "force": [], "uid": "0"}'],
)  # fmt: skip
def test_what_cannot_be_read_is_removed(
    place: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    request.path().write_text(text)
    assert request.take(UNIT) is None
    assert list(place.iterdir()) == []
    assert "request.json" in caplog.text


# --- options ------------------------------------------------------------------------------------


def test_options() -> None:
    assert request.options({}, ["strategy"]) == Options()
    given = {"strategy": "live", "force": ["memory", "busy", "memory"]}
    assert request.options(given, ["strategy", "force"]) == Options("live", ("memory", "busy"))
    assert request.options({"rehearse": True}, ["rehearse"]) == Options(rehearse=True)


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"Strategy": "live"}, "Strategy"),
        ({"a\nb": "live"}, r"a\nb"),
        ({"strategy": "both"}, "both"),
        ({"strategy": ["live"]}, "live"),
        ({"strategy": 1}, "1"),
        ({"strategy": None, "force": "memory"}, "force"),
        ({"force": [1]}, "1"),
        ({"force": ["a b"]}, "a b"),
        ({"force": ["x" * 65]}, "xxx"),
        ({"force": ["memory"] * 65}, "force"),
        ({"force": {"memory": 1}}, "force"),
        ({"rehearse": 1}, "rehearse is not a boolean"),
        ({"rehearse": "true"}, "rehearse is not a boolean"),
    ],
)
def test_options_that_are_wrong_are_named(values: dict[str, Any], names: str) -> None:
    with pytest.raises(InvalidArgument) as error:
        request.options(values, ["strategy", "force", "rehearse"])
    assert names in error.value.sentence()
    assert "\n" not in error.value.sentence()


def test_force_is_no_option_of_check() -> None:
    with pytest.raises(InvalidArgument, match="force"):
        request.options({"force": []}, ["strategy"])


# --- strings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["/dev/sdb2", "dev-sdb2", "/dev/disk/by-label/ä b", "/dev/" + "x" * 4091]
)
def test_targets(name: str) -> None:
    assert request.target(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "/dev/" + "x" * 4092, "ä" * 2049, "/dev/../etc", "..", "/dev/sd\nb", "/dev/\0",
     "/dev/\x7f", "/dev/\u2028", "/dev/\udcff", "x" * 10_000_000],
    ids=lambda name: ascii(name[:12]),
)  # fmt: skip
def test_targets_that_none_can_be(name: str) -> None:
    with pytest.raises(InvalidArgument, match="target") as error:
        request.target(name)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 512


def test_text_for_people() -> None:
    assert request.text("who", "x" * 256) == "x" * 256
    for words in ("", "x" * 257, "a\nb", "a\0"):
        with pytest.raises(InvalidArgument, match="who"):
            request.text("who", words)
