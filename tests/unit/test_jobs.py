"""Jobs as the bus shows them, from requests, records and reports of any version."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from issu_systemd import jobs, observer
from issu_systemd.jobs import Job
from issu_systemd.observer import Signal
from issu_systemd.phase import BEYOND, ORDER, Phase
from issu_systemd.record import Record, load
from issu_systemd.request import Request

DATA = Path(__file__).parent / "data"
RUNS = Job("1", "/dev/b", Phase.STAGE, unit="issu@dev-b.service")


# --- progress -----------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["halt", "live", "of a later version"])
def test_progress_never_falls_on_any_way_through_the_phases(strategy: str) -> None:
    ways = [ORDER, *((*ORDER[: ORDER.index(p) + 1], Phase.BACK) for p in (*BEYOND, ORDER[-1]))]
    for way in ways:
        told = [jobs.progress(replace(RUNS, phase=p, strategy=strategy)) for p in way]
        told.append(jobs.progress(replace(RUNS, phase=way[-1], result="accepted")))
        percents = [percent for percent, _, _ in told]
        assert percents == sorted(percents)
        assert (percents[0], percents[-1]) == (0, 100)
        assert all(message and depth == 1 for _, message, depth in told)


def test_every_phase_has_a_percent_and_words() -> None:
    for table in (*jobs.PERCENT.values(), jobs.MESSAGES):
        assert {*table} == {*Phase}


def test_no_job_is_no_progress_and_an_unknown_phase_is_shown() -> None:
    assert jobs.progress(None) == (-1, "", 0)
    assert jobs.progress(replace(RUNS, phase="later")) == (0, "later", 1)


# --- Cancel -------------------------------------------------------------------------------------


def test_a_job_can_be_given_up_until_the_roots_change() -> None:
    may = [p for p in Phase if jobs.allow_cancel(replace(RUNS, phase=p))]
    assert may == [Phase.PREFLIGHT, Phase.STAGE, Phase.RELEASE]
    assert not jobs.allow_cancel(replace(RUNS, result="refused"))


# --- where they come from -----------------------------------------------------------------------


def test_of_a_record() -> None:
    story = load(DATA / "record-v1.json")
    job = jobs.of_record(story)
    assert (job.id, job.uid, job.unit) == (story.id, 1000, "issu@-dev-sdb2.service")
    assert job.phase == "arrive"
    assert job.left
    assert all(found.keys() == {"id", "severity", "text", "way_out"} for found in job.findings)


def test_a_record_that_has_just_begun_is_in_preflight() -> None:
    assert jobs.of_record(Record("1", "x")) == Job("1", "", "preflight")


def test_of_a_request() -> None:
    asked = Request("1", "issu@dev-b.service", "/dev/b", 7, "live")
    assert jobs.of_request(asked) == Job(
        "1", "/dev/b", "preflight", "live", "issu@dev-b.service", 7
    )


@pytest.mark.parametrize(
    "document",
    [
        {}, {"id": None, "phases": None, "findings": None, "target": None, "uid": None},
        {"phases": [1, {}], "findings": ["x"], "target": "x", "source": 1, "uid": -1},
        {"uid": 1 << 40, "outage_usec": -1}, {"uid": "x", "outage_usec": True},
    ],
)  # fmt: skip
def test_a_report_with_odd_data_is_shown_all_the_same(document: dict[str, Any]) -> None:
    job = jobs.of_report(document)
    assert (job.uid, job.result) == (0, "failed")
    assert jobs.values(job)["Progress"] == (100, "failed", 1)
    assert {type(value.value) for value in jobs.row(document).values()} <= {str}


def test_a_report_that_the_service_writes_reads_as_one() -> None:
    asked = Job("1", "/dev/b", "preflight", "live", uid=7)
    document = json.loads(json.dumps(jobs.lost(asked, "then", "the agent ended")))
    job = jobs.of_report(document)
    assert (job.id, job.target, job.uid, job.strategy) == ("1", "/dev/b", 7, "live")
    assert (job.result, job.error) == ("failed", "the agent ended")


def test_an_id_that_can_be_no_path_gets_no_object() -> None:
    assert "job" in jobs.row({"id": "20260101T000000_1"})
    assert "job" not in jobs.row({"id": "20260801T101500Z-7f3a"})
    for id in ("", "a/b", "é", "x" * 129):
        assert not jobs.is_id(id)


# --- signals ------------------------------------------------------------------------------------


def told(*args: Any) -> list[Signal]:
    return list(observer.signals(*args))


def test_nothing_new_is_nothing_told() -> None:
    assert told({}, {}, []) == []
    assert told({"1": RUNS}, {"1": replace(RUNS, uid=3)}, []) == []


def test_a_job_is_told_from_its_begin_to_its_end() -> None:
    path = "/org/issu1/job/1"
    assert told({}, {"1": RUNS}, []) == [
        ("JobNew", ("1", path)), ("PhaseChanged", ("1", path, "stage")),
    ]  # fmt: skip
    later = replace(RUNS, phase=Phase.RELEASE)
    assert told({"1": RUNS}, {"1": later}, []) == [("PhaseChanged", ("1", path, "release"))]
    ended = replace(later, result="failed")
    assert told({"1": RUNS}, {}, [ended]) == [("JobRemoved", ("1", path, "failed"))]
    left = replace(ended, left=True)
    assert told({"1": RUNS}, {}, [left])[0] == ("PrepareForUpgrade", (False,))
    assert [s.member for s in told({}, {}, [ended])] == ["JobNew", "PhaseChanged", "JobRemoved"]
