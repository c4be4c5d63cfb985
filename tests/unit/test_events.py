"""Events in the journal: each has an id, fields and an explanation, and telling one never waits."""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from string import hexdigits

import pytest

from issu_systemd import events, log
from issu_systemd.events import Event
from issu_systemd.phase import Phase
from issu_systemd.record import Record

CATALOG = Path(__file__).parents[2] / "data/issu.catalog"
NAMES = ("ID", "SOURCE", "TARGET", "PHASE", "STRATEGY", "RESULT", "ERROR")
FIELDS = {f"ISSU_{name}" for name in NAMES}


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A socket in place of journald's."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as inbox:
        inbox.bind(str(tmp_path / "journal"))
        inbox.setblocking(False)
        monkeypatch.setattr(log, "JOURNAL", str(tmp_path / "journal"))
        yield inbox


def parsed(data: bytes) -> dict[str, str]:
    """One entry, as the specification of the protocol says."""
    found = {}
    while data:
        line, _, rest = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            size = int.from_bytes(rest[:8], "little")
            value, end, data = rest[8 : 8 + size], rest[8 + size : 9 + size], rest[9 + size :]
            assert end == b"\n"
        else:
            data = rest
        found[name.decode()] = value.decode()
    return found


def a_story() -> Record:
    story = Record(id="20260801T101500_1", started="y", unit="issu@-dev-sdb2.service")
    story.source, story.target = {"device": "/dev/sda2"}, {"device": "/dev/sdb2"}
    story.enter(Phase.PREFLIGHT)
    return story


# --- the catalog --------------------------------------------------------------------------------


def entries() -> dict[str, str]:
    """The catalog's entries by their id."""
    text = "\n".join(x for x in CATALOG.read_text().splitlines() if not x.startswith("#"))
    _, *parts = re.split(r"^-- (\w+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_the_catalog_explains_every_event_and_nothing_else() -> None:
    assert sorted(entries()) == sorted(Event)
    assert CATALOG.read_text().count("\n-- ") == len(Event)  # none twice


@pytest.mark.parametrize("event", Event)
def test_an_id_is_128_bits_in_hexadecimal(event: Event) -> None:
    assert len(event.value) == 32
    assert set(event.value) <= set(hexdigits.lower())


@pytest.mark.parametrize("event", Event)
def test_an_explanation_names_its_fields_and_says_what_to_do(event: Event) -> None:
    head, _, body = entries()[event].strip().partition("\n\n")
    assert [line.partition(":")[0] for line in head.splitlines()] == [
        "Subject", "Defined-By", "Documentation",
    ]  # fmt: skip
    assert set(re.findall(r"@(ISSU_\w+)@", head + body)) <= FIELDS
    assert "@ISSU_ID@" in head
    assert body
    assert max(map(len, body.splitlines())) <= 82


def test_every_result_has_its_event() -> None:
    assert sorted(events.ENDS) == ["accepted", "failed", "refused", "rolled-back"]


# --- telling ------------------------------------------------------------------------------------


def test_an_entry_has_its_fields(journal: socket.socket) -> None:
    events.tell(Event.STARTED, a_story(), "upgrade to /dev/sdb2")
    entry = parsed(journal.recv(1 << 16))
    assert entry["MESSAGE"] == "20260801T101500_1: upgrade to /dev/sdb2"
    assert entry["MESSAGE_ID"] == Event.STARTED
    assert entry["PRIORITY"] == "6"
    assert {key: value for key, value in entry.items() if key in FIELDS} == {
        "ISSU_ID": "20260801T101500_1", "ISSU_SOURCE": "/dev/sda2", "ISSU_TARGET": "/dev/sdb2",
        "ISSU_PHASE": "preflight", "ISSU_STRATEGY": "halt", "ISSU_RESULT": "", "ISSU_ERROR": "",
    }  # fmt: skip
    assert entry["OBJECT_SYSTEMD_UNIT"] == "issu@-dev-sdb2.service"


@pytest.mark.parametrize("result", sorted(events.ENDS))
def test_an_end_has_result_and_reason(journal: socket.socket, result: str) -> None:
    story = a_story()
    story.result, story.error = result, "no such device\nMESSAGE=forged"
    events.tell_end(story)
    entry = parsed(journal.recv(1 << 16))
    assert entry["MESSAGE_ID"] == events.ENDS[result]
    assert entry["MESSAGE"].endswith(f": {result}: no such device\nMESSAGE=forged")
    assert (entry["ISSU_RESULT"], entry["ISSU_ERROR"]) == (result, story.error)
    with pytest.raises(BlockingIOError):
        journal.recv(1)  # once


def test_what_cannot_be_encoded_is_told_all_the_same(journal: socket.socket) -> None:
    assert log.entry({"MESSAGE": "device \udcff"})
    assert parsed(journal.recv(1 << 16)) == {"MESSAGE": "device ?"}


@pytest.mark.parametrize("why", ["missing", "nobody reads", "full", "too long"])
def test_without_a_journal_the_text_goes_where_lines_go(
    journal: socket.socket, caplog: pytest.LogCaptureFixture, why: str
) -> None:
    """At once: a journal that is stopped must not stop an upgrade."""
    story = a_story()
    story.result = "failed"
    if why == "missing":
        Path(log.JOURNAL).unlink()
    elif why == "nobody reads":
        journal.close()
    elif why == "full":
        while log.entry({"MESSAGE": "x"}):
            pass
    story.error = "no" * (1 << 20 if why == "too long" else 1)
    with caplog.at_level(logging.INFO):
        events.tell_end(story)
    assert [(r.levelno, r.message[:10]) for r in caplog.records] == [(logging.ERROR, "failed: no")]


def test_while_the_journal_listens_nothing_is_told_twice(
    journal: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        events.tell(Event.STARTED, a_story(), "x")
    assert caplog.records == []
