"""The reports of past upgrades, and the upgrade that runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from issu_systemd import history, oldroot, record
from issu_systemd.errors import IssuError
from issu_systemd.phase import Phase
from issu_systemd.record import Record

OLD, NEW = "20260731T235959Z-ffff", "20260801T000000Z-0000"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory in place of /var/lib/issu/history, which is not there yet."""
    monkeypatch.setattr(history, "PLACE", tmp_path / "history")
    return tmp_path / "history"


def keep(place: Path, id: str, **more: Any) -> dict[str, Any]:
    place.mkdir(exist_ok=True)
    document = {"id": id, "result": "accepted"} | more
    (place / f"{id}.json").write_text(json.dumps(document))
    return document


def test_nothing_is_recorded(place: Path) -> None:
    assert history.ids() == []
    with pytest.raises(IssuError, match=str(place)) as caught:
        history.last()
    assert caught.value.hint
    with pytest.raises(IssuError, match=f"no upgrade {OLD}") as caught:
        history.find(OLD)
    assert "none" in caught.value.hint


def test_the_last_is_the_one_of_the_latest_id(place: Path) -> None:
    newest = keep(place, NEW)
    older = keep(place, OLD)
    (place / f".{NEW}.json.new").write_text("{")  # a draft, half written
    assert history.ids() == [OLD, NEW]
    assert history.last() == newest
    assert history.find(OLD) == older


def test_an_unknown_one_names_the_last_five(place: Path) -> None:
    for n in range(7):
        keep(place, f"2026080{n}")
    with pytest.raises(IssuError) as caught:
        history.find("20260809")
    assert caught.value.hint.endswith("20260802, 20260803, 20260804, 20260805, 20260806")


@pytest.mark.parametrize("content", [b"{", b"\xff", b""], ids=["half", "no-text", "empty"])
def test_a_report_that_cannot_be_read_is_named(place: Path, content: bytes) -> None:
    keep(place, OLD)
    (place / f"{OLD}.json").write_bytes(content)
    with pytest.raises(IssuError, match=f"{OLD}.json"):
        history.find(OLD)


@pytest.mark.parametrize("id", ["../secret", "/etc/secret", "a/../../secret"])
def test_an_id_is_no_path(place: Path, id: str) -> None:
    place.mkdir()
    (place.parent / "secret.json").write_text("{}")
    with pytest.raises(IssuError, match="no upgrade"):
        history.find(id)


# --- the one that runs --------------------------------------------------------------------------


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in place of /run/issu/record.json."""
    monkeypatch.setattr(record.load, "__defaults__", (tmp_path / "record.json",))
    return tmp_path / "record.json"


def test_none_runs(running: Path) -> None:
    assert not running.exists()
    assert history.current() is None


def test_one_runs(running: Path) -> None:
    story = Record(id=NEW, started="y", target={"device": "/dev/sdb2", "os": "Debian 13"})
    for phase in (Phase.PREFLIGHT, Phase.STAGE):
        story.enter(phase)
    record.save(story, running)
    found = history.current()
    assert found is not None
    assert (found["id"], found["phase"], found["result"]) == (NEW, "stage", None)
    assert history.one_line(found) == f"{NEW}: stage, going to Debian 13 on /dev/sdb2"
    json.dumps(found)


# --- one line -----------------------------------------------------------------------------------

TARGET = {"device": "/dev/sdb2", "os": "Debian 13"}


@pytest.mark.parametrize(
    ("document", "line"),
    [
        (
            {"id": "x", "result": "accepted", "target": TARGET, "outage_usec": 1_234_567},
            "x: accepted, Debian 13 on /dev/sdb2, outage 1.235 s",
        ),
        (
            {"id": "x", "result": "refused", "target": {}, "outage_usec": 0, "error": "no (do y)"},
            "x: refused, ?\n  no (do y)",
        ),
        (
            {"id": "x", "result": "failed", "target": TARGET, "outage_usec": None, "error": "e"},
            "x: failed, Debian 13 on /dev/sdb2\n  e",
        ),
        ({"id": "x", "result": "failed"}, "x: failed, ?"),
        (
            {
                "id": "x",
                "result": "accepted",
                "strategy": "live",
                "target": TARGET,
                "unit_outage_usec": {"longest": 40_000, "sum": 90_000},
            },
            "x: accepted, Debian 13 on /dev/sdb2, no unit away longer than 0.040 s",
        ),
        (
            {
                "id": "x",
                "result": "refused",
                "strategy": "live",
                "target": TARGET,
                "unit_outage_usec": {"longest": 0, "sum": 0},
            },
            "x: refused, Debian 13 on /dev/sdb2",
        ),
        (
            {"id": "x", "result": "refused", "target": {"device": "/dev/sdb2", "os": ""}},
            "x: refused, /dev/sdb2",
        ),
        ({"id": "x", "phase": "stage", "result": None}, "x: stage, going to ?"),
    ],
    ids=["accepted", "refused", "failed", "bare", "live", "live-refused", "no-os", "running"],
)
def test_one_line(document: dict[str, Any], line: str) -> None:
    assert history.one_line(document) == line


@pytest.mark.parametrize(
    ("found", "free", "told"),
    [
        (["bash[7] of session-1.scope (its program)"], False, None),
        ([], True, []),
        ([], False, ["somebody in another PID namespace"]),
    ],
    ids=["held", "free", "unseen"],
)
def test_who_pins_the_old_root_is_asked_now(
    found: list[str], free: bool, told: list[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oldroot, "holders", lambda dev: found if dev == 77 else ["wrong"])
    monkeypatch.setattr(oldroot, "is_free", lambda node: free)
    document = {
        "source": {"device": "/dev/null", "dev": 77},
        "findings": [{"id": "old-root-pinned"}],
    }
    assert history.pinned(document) == (found if told is None else told)


def test_a_refusal_does_not_hide_who_pins_the_old_root(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = {"device": "/dev/null", "dev": 77}
    pinning = keep(place, OLD, source=source, findings=[{"id": "old-root-pinned"}])
    refused = keep(place, NEW, result="refused")
    monkeypatch.setattr(oldroot, "holders", lambda dev: ["sh[7]"])
    for document in (pinning, refused):
        assert history.old_root(document) == ["old root pinned by sh[7]"]
    monkeypatch.setattr(oldroot, "holders", lambda dev: [])
    monkeypatch.setattr(oldroot, "is_free", lambda node: True)
    assert history.old_root(refused) == ["the old root is free now"]
    (place / f"{OLD}.json").unlink()
    assert history.old_root(refused) == []


def test_nobody_asks_who_pins_a_root_that_was_free() -> None:
    source = {"device": "/dev/null", "dev": 77}
    assert history.pinned({"source": source, "findings": [{"id": "old-root-free"}]}) is None
    assert history.pinned({"source": {}, "findings": [{"id": "old-root-pinned"}]}) is None
