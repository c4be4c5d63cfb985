"""How many reports are kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from issu_systemd import outcome, record, settings
from issu_systemd.errors import SettingsError
from issu_systemd.settings import Settings

KEEP = 3


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(record, "HISTORY", tmp_path)
    monkeypatch.setattr(settings, "load", lambda: Settings(reports=KEEP))
    return tmp_path


def write(place: Path, *results: str) -> None:
    """Reports with these results, the oldest first; their ids are 0, 1, ..."""
    for number, result in enumerate(results):
        (place / f"{number}.json").write_text(json.dumps({"id": str(number), "result": result}))


def ids(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir())


@pytest.mark.parametrize(
    ("results", "left"),
    [
        (["accepted"] * 5, "234"),
        (["accepted"] * 3, "012"),
        (["failed", "accepted", "refused", "refused", "refused", "refused"], "1345"),
        (["refused"] * 5, "234"),
        ([], ""),
    ],
    ids=["five", "three", "the-accepted-one-is-old", "none-accepted", "none"],
)
def test_the_oldest_go(place: Path, results: list[str], left: str) -> None:
    write(place, *results)
    outcome.prune()
    assert ids(place) == [f"{number}.json" for number in left]


def test_a_report_that_cannot_be_read_is_none_that_was_accepted(place: Path) -> None:
    write(place, "accepted", "refused", "refused", "refused")
    (place / "4.json").write_text("half a rep")
    (place / "5.json").write_text("[]")
    outcome.prune()
    assert ids(place) == ["0.json", "3.json", "4.json", "5.json"]


def test_word_of_an_unfinished_upgrade_is_no_report(place: Path) -> None:
    write(place, *["accepted"] * 5)
    (place / f"0{record.UNFINISHED}").touch()
    outcome.prune()
    assert ids(place) == [f"0{record.UNFINISHED}", "2.json", "3.json", "4.json"]


def test_with_wrong_settings_all_stay(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> Settings:
        raise SettingsError("no TOML")

    monkeypatch.setattr(settings, "load", fails)
    write(place, *["accepted"] * 5)
    outcome.prune()
    assert len(ids(place)) == 5


def test_a_new_report_takes_the_place_of_the_oldest(place: Path) -> None:
    write(place, *["accepted"] * 3)
    outcome.write_history({"id": "3", "result": "refused"})
    assert ids(place) == ["1.json", "2.json", "3.json"]
