"""The report of an upgrade: what became of each unit, the outage, T1 to T4; times in seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from issu_systemd.report import Phase, UnitTimes, build

DATA = Path(__file__).parent / "data"
SEC = 1_000_000
RELEASE = 100
PHASES = {
    "preflight": (80, 81),
    "stage": (81, RELEASE),
    "release": (RELEASE, 103),
    "switch": (103, 104),
    "arrive": (104, 105),
    "verify": (105, 112),
    "accept": (112, 115),
}
KEYS = """schema id result mechanism strategy source target started phases outage_usec
    outage_start_usec outage_end_usec unit_outage_usec units continuity findings error
    t1_usec t2_usec t3_usec t4_usec""".split()  # noqa: SIM905


def times(
    enter: float = 0,
    leave: float = 0,
    *,
    inactive: float = 0,
    active: bool = True,
    failed: bool = False,
) -> UnitTimes:
    entered, left, dead = (round(when * SEC) for when in (enter, leave, inactive))
    return UnitTimes(active, entered, left, dead, condition_failed=failed)


TARGET = times(110, 100.1)


def report(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "id": "one",
        "result": "accepted",
        "mechanism": "switch-root",
        "strategy": "halt",
        "source": {"device": "/dev/vda1"},
        "target": {"device": "/dev/vdb1"},
        "started": "2026-11-22T03:15:02Z",
        "phases": [Phase(n, a * SEC, b * SEC) for n, (a, b) in PHASES.items()],
        "before": set(),
        "after": {"multi-user.target": TARGET},
        "gated": set(),
        "kept": set(),
        "release_usec": RELEASE * SEC,
        "default_target": "multi-user.target",
        "continuity": {},
        "findings": [],
        "error": None,
    }
    return build(**values | changes)


def unit(
    name: str, after: UnitTimes | None, *, before: bool = True, **changes: Any
) -> dict[str, Any] | None:
    """The row of one unit in a report."""
    states = {"multi-user.target": TARGET} | ({name: after} if after else {})
    rows = report(after=states, before={name} if before else set(), **changes)["units"]
    return rows[0] if rows else None


def row(name: str, action: str, stopped: Any = None, started: Any = None, outage: Any = None
        ) -> dict[str, Any]:  # fmt: skip
    spans = {"stopped_usec": stopped, "started_usec": started, "outage_usec": outage}
    usec = {key: value and round(value * SEC) for key, value in spans.items()}
    return {"unit": name, **usec, "action": action}


def read(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((DATA / f"report-{name}.json").read_text())
    return document


# --- what became of a unit ------------------------------------------------------------------------


def test_restarted() -> None:
    found = unit("frr.service", times(108, 101))
    assert found == row("frr.service", "restarted", stopped=101, started=108, outage=7)


def test_kept() -> None:
    assert unit("asic.service", times(9)) == row("asic.service", "kept", outage=0)


def test_kept_was_down_once_long_before() -> None:
    assert unit("asic.service", times(9, 8)) == row("asic.service", "kept", outage=0)


def test_to_be_kept_but_restarted_is_called_restarted() -> None:
    found = unit("asic.service", times(108, 101), kept={"asic.service"})
    assert found == row("asic.service", "restarted", stopped=101, started=108, outage=7)


def test_new() -> None:
    assert unit("ssh.socket", times(106), before=False) == row("ssh.socket", "new", started=106)


def test_new_tells_nothing_of_a_stop() -> None:
    found = unit("ssh.socket", times(108, 102), before=False)
    assert found == row("ssh.socket", "new", started=108)


def test_skipped() -> None:
    gone = times(5, 102, active=False, inactive=102.2, failed=True)
    found = unit("udev-trigger.service", gone, gated={"udev-trigger.service"})
    assert found == row("udev-trigger.service", "skipped", stopped=102)


def test_skipped_without_running_before() -> None:
    after = times(active=False, failed=True)
    found = unit("hw-reset.service", after, before=False, gated={"hw-reset.service"})
    assert found == row("hw-reset.service", "skipped")


@pytest.mark.parametrize(
    ("failed", "gated"), [(True, set()), (False, {"a.service"}), (False, set())]
)
def test_gone_unless_gated_and_condition_failed(failed: bool, gated: set[str]) -> None:
    after = times(5, 102, active=False, failed=failed)
    assert unit("a.service", after, gated=gated) == row("a.service", "gone", stopped=102)


def test_gone_from_the_new_root() -> None:
    assert unit("old.timer", None) == row("old.timer", "gone")


def test_gone_before_it_was_up_has_only_its_end() -> None:
    after = times(0, 0, active=False, inactive=102)
    assert unit("a.service", after) == row("a.service", "gone", stopped=102)


def test_oneshot_that_ran_and_ended_is_left_out() -> None:
    assert unit("fsck.service", times(106, 107, active=False), before=False) is None
    # Its condition failed, but nobody gated it; or it was gated, but is not what kept it away.
    assert unit("fsck.service", times(active=False, failed=True), before=False) is None
    assert unit("fsck.service", times(active=False), before=False, gated={"fsck.service"}) is None


@pytest.mark.parametrize(
    "kind", ["service", "socket", "timer", "path", "mount", "automount", "swap"]
)
def test_kinds_that_count(kind: str) -> None:
    assert unit(f"a.{kind}", times(108, 101)) is not None


@pytest.mark.parametrize(
    "name",
    ["a.device", "a.slice", "a.scope", "a.target", "a", "", "service",
     "issu@-dev-vdb1.service", "issu-arrive.service", "issu-halt.target",
     "run-credentials-a.service.mount"],
)  # fmt: skip
def test_units_that_do_not_count(name: str) -> None:
    assert unit(name, times(108, 101)) is None


def test_units_are_sorted_by_name() -> None:
    names = ["b.service", "a.timer", "c.socket"]
    units = report(before=set(names), after={name: times(5) for name in names})["units"]
    assert [row["unit"] for row in units] == sorted(names)


# --- odd time stamps ------------------------------------------------------------------------------


def test_start_time_lost() -> None:
    found = unit("a.service", times(5, 101))
    assert found == row("a.service", "restarted", stopped=101)
    assert unit("a.service", times(5, 101), before=False) == found


def test_stop_time_lost() -> None:
    assert unit("a.service", times(108, 0)) == row("a.service", "restarted", started=108)


def test_stop_before_release_is_not_of_this_upgrade() -> None:
    assert unit("a.service", times(108, 99)) == row("a.service", "restarted", started=108)


def test_stop_after_the_switch_is_a_crash_in_the_new_root() -> None:
    assert unit("a.service", times(109, 108.9)) == row("a.service", "restarted", started=109)


def test_live_stops_until_verify_has_ended() -> None:
    found = unit("a.service", times(109, 108.9), strategy="live")
    assert found == row("a.service", "restarted", stopped=108.9, started=109, outage=0.1)
    found = unit("a.service", times(114, 113), strategy="live")
    assert found == row("a.service", "restarted", started=114)


def test_stop_after_the_start_is_not_the_one_it_ended() -> None:
    found = unit("a.service", times(101, 102))
    assert found == row("a.service", "restarted", started=101)


def test_all_times_lost() -> None:
    assert unit("a.service", times()) == row("a.service", "restarted")
    assert unit("a.service", times(), kept={"a.service"}) == row("a.service", "kept", outage=0)
    assert unit("-.mount", times()) == row("-.mount", "kept", outage=0)
    assert unit("new.mount", times(), before=False) == row("new.mount", "new")


def test_active_just_between_listing_and_release_is_among() -> None:
    assert unit("a.timer", times(99.9), before=False) == row("a.timer", "kept", outage=0)


def test_nothing_raises() -> None:
    odd = [-5, 0, 1, 103, 10**9]
    states = [times(e, x, active=a, inactive=i, failed=f) for e in odd for x in odd for i in odd
              for a in (True, False) for f in (True, False)]  # fmt: skip
    after = {f"u{n}.service": state for n, state in enumerate(states)}
    for target in states[::41]:
        done = report(before=set(list(after)[::2]), after=after | {"multi-user.target": target},
                      gated=set(list(after)[::3]), kept=set(list(after)[::5]))  # fmt: skip
        spans = [unit["outage_usec"] for unit in done["units"]]
        assert all(span is None or span >= 0 for span in [*spans, done["outage_usec"]])
        json.dumps(done)


# --- the outage of the element --------------------------------------------------------------------


def outage(**changes: Any) -> list[float | None]:
    """Start, end and length in seconds."""
    done = report(**changes)
    keys = ("outage_start_usec", "outage_end_usec", "outage_usec")
    return [None if done[key] is None else done[key] / SEC for key in keys]


SERVICES = {
    "a.service": times(106, 100.5),
    "b.service": times(109, 102),
    "k.service": times(5),
}


def test_outage_ends_with_the_default_target() -> None:
    after = SERVICES | {"multi-user.target": TARGET}
    assert outage(before=set(SERVICES), after=after) == [100.5, 110, 9.5]


def test_outage_begins_with_the_first_stop_even_of_a_unit_that_is_gone() -> None:
    after = SERVICES | {"multi-user.target": TARGET, "g.timer": times(5, 100.2, active=False)}
    assert outage(before=set(after), after=after) == [100.2, 110, 9.8]


def test_outage_lasts_while_the_default_target_is_down() -> None:
    after = SERVICES | {"multi-user.target": times(110, 111, active=False)}
    assert outage(before=set(SERVICES), after=after) == [100.5, None, None]
    assert outage(before=set(SERVICES), after=dict(SERVICES)) == [100.5, None, None]


def test_outage_of_live_ends_with_the_last_restart() -> None:
    after = SERVICES | {"multi-user.target": times(7), "late.service": times(114, 113)}
    live = {"strategy": "live", "before": set(after), "after": after}
    assert outage(**live) == [100.5, 109, 8.5]


def test_outage_of_live_is_unknown_if_a_start_is() -> None:
    after = SERVICES | {"multi-user.target": times(7), "lost.service": times(5, 101)}
    assert outage(strategy="live", before=set(after), after=after) == [100.5, None, None]


def test_no_outage_if_nothing_stopped() -> None:
    after = {"k.service": times(5), "n.service": times(106), "multi-user.target": times(7)}
    assert outage(strategy="live", before={"k.service"}, after=after) == [None, None, 0]


def test_outage_is_unknown_if_stops_are() -> None:
    after = {"a.service": times(106), "multi-user.target": TARGET}
    assert outage(before={"a.service"}, after=after) == [None, 110, None]


def test_outage_is_unknown_if_pid_1_could_not_be_read() -> None:
    done = report(before={"a.service"}, after={})
    assert (done["units"], done["outage_usec"]) == ([], None)


# --- T1 to T4 -------------------------------------------------------------------------------------


def clocks(**changes: Any) -> list[float | None]:
    done = report(**changes)
    return [None if done[f"t{n}_usec"] is None else done[f"t{n}_usec"] / SEC for n in (1, 2, 3, 4)]


def test_clocks() -> None:
    after = SERVICES | {"multi-user.target": TARGET}
    assert clocks(before=set(SERVICES), after=after) == [20, 10, 5, 35]


def test_clocks_while_the_target_is_still_to_come() -> None:
    after = SERVICES | {"multi-user.target": times(active=False)}
    assert clocks(before=set(SERVICES), after=after) == [20, None, None, 35]


def test_clocks_if_nothing_stopped_end_the_run_with_verify() -> None:
    after = {"k.service": times(5), "multi-user.target": times(7)}
    assert clocks(strategy="live", before={"k.service"}, after=after) == [20, 12, 3, 35]


def test_clocks_of_a_target_later_than_the_last_phase() -> None:
    after = SERVICES | {"multi-user.target": times(120)}
    assert clocks(before=set(SERVICES), after=after) == [20, 20, 0, 40]


def test_clocks_without_release_are_all_staging() -> None:
    phases = [Phase("preflight", 80 * SEC, 81 * SEC), Phase("stage", 81 * SEC, 90 * SEC)]
    refused = {"release_usec": 0, "phases": phases, "result": "failed", "mechanism": None}
    assert clocks(**refused) == [10, 0, 0, 10]


def test_clocks_without_phases() -> None:
    assert clocks(release_usec=0, phases=[]) == [None, 0, 0, None]


def test_phase_cut_off_has_no_end() -> None:
    phases = [Phase("preflight", 80 * SEC, 81 * SEC), Phase("stage", 81 * SEC, 0)]
    done = report(release_usec=0, phases=phases)
    assert done["phases"][1] == {"name": "stage", "start_usec": 81 * SEC, "end_usec": None}
    assert done["t4_usec"] == SEC


def test_release_is_found_in_the_phases() -> None:
    assert report(release_usec=0) == report()


# --- the document ---------------------------------------------------------------------------------


def test_refused_touched_nothing() -> None:
    done = report(result="refused", release_usec=0, phases=[], before={"a.service"})
    assert (done["units"], done["outage_usec"], done["outage_start_usec"]) == ([], 0, None)


def test_failed_and_restored() -> None:
    """Released, then started again on the old root: no switch, the same rules."""
    phases = [Phase(n, a * SEC, b * SEC) for n, (a, b) in list(PHASES.items())[:3]]
    after = {"a.service": times(104, 101), "multi-user.target": times(105, 100)}
    done = report(result="failed", phases=phases, before={"a.service"}, after=after, error="why")
    assert done["units"] == [row("a.service", "restarted", stopped=101, started=104, outage=3)]
    assert (done["outage_usec"], done["error"]) == (4 * SEC, "why")


def test_versions_of_the_package() -> None:
    done = report(versions={"source": "1.0.0", "target": "1.1.0"})
    assert [done[side]["package"] for side in ("source", "target")] == ["1.0.0", "1.1.0"]
    assert report()["source"] == {"device": "/dev/vda1", "package": None}
    assert report(source={"package": "0.9"})["source"] == {"package": "0.9"}


def test_values_given_are_not_shared() -> None:
    finding = {"id": "a", "severity": "warn", "text": "b", "way_out": "c"}
    done = report(findings=[finding])
    done["findings"][0]["id"] = "changed"
    assert finding["id"] == "a"


@pytest.mark.parametrize("name", ["accepted", "refused"])
def test_example_has_the_keys_of_the_contract(name: str) -> None:
    document = read(name)
    assert list(document) == list(report())
    assert set(document) == set(KEYS)
    assert document["result"] == name
    for side in ("source", "target"):
        assert {"device", "fstype", "os", "version", "systemd"} <= set(document[side])


def test_example_is_what_build_makes() -> None:
    """Take the accepted example apart into the facts it was made of and build it again."""
    document = read("accepted")
    before, gated, after = set(), set(), {}
    for unit in document["units"]:
        name, action = unit["unit"], unit["action"]
        enter = unit["started_usec"] or (5 * SEC if action == "kept" else 0)
        leave = unit["stopped_usec"] or 0
        active = action not in ("gone", "skipped")
        after[name] = UnitTimes(active, enter, leave, leave, condition_failed=action == "skipped")
        if action == "skipped":
            gated.add(name)
        if action != "new":
            before.add(name)
    after["multi-user.target"] = UnitTimes(True, document["outage_end_usec"])
    given = {key: document[key] for key in ("id", "result", "mechanism", "strategy", "source",
             "target", "started", "continuity", "findings", "error")}  # fmt: skip
    phases = [Phase(p["name"], p["start_usec"], p["end_usec"]) for p in document["phases"]]
    release = next(phase.start_usec for phase in phases if phase.name == "release")
    again = report(
        **given, phases=phases, before=before, after=after, gated=gated, release_usec=release
    )
    assert again == document
