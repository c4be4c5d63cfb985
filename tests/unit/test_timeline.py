"""A report as text: what a person must find in it, and that no odd report breaks it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from issu_systemd.timeline import duration, kernel_state, number, render, string

DATA = Path(__file__).parent / "data"
ODD: list[Any] = [None, "", "text", 0, -1, 1.5, math.nan, 10**400, True, [], [None], ["x"], {},
                  [{}], [{"name": 1, "start_usec": "a", "end_usec": []}],
                  [{"unit": None, "action": [], "outage_usec": {}, "stopped_usec": 5}],
                  {"read": 1, "differences": 2},
                  {"read": ["a"], "differences": [{}, 7]}]  # fmt: skip


def read(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((DATA / f"report-{name}.json").read_text())
    return document


@pytest.fixture
def accepted() -> dict[str, Any]:
    return read("accepted")


def section(text: str, head: str) -> list[str]:
    """The lines of the section that begins with `head`."""
    found = [part for part in text.split("\n\n") if part.startswith(head)]
    assert len(found) == 1, text
    return found[0].splitlines()


@pytest.mark.parametrize(
    ("usec", "text"),
    [
        (None, "unknown"),
        (0, "0 s"),
        (850, "850 us"),
        (56_000, "56 ms"),
        (999_499, "999 ms"),
        (999_600, "1.000 s"),
        (1_234_000, "1.234 s"),
        (59_999_900, "1 min 0 s"),
        (123_000_000, "2 min 3 s"),
        (3_599_600_000, "1 h 0 min"),
        (3_720_000_000, "1 h 2 min"),
        (-56_000, "-56 ms"),
    ],
)
def test_duration(usec: int | None, text: str) -> None:
    assert duration(usec) == text


def test_header_names_both_systems(accepted: dict[str, Any]) -> None:
    head = "\n".join(section(render(accepted, width=120), "ISSU "))
    for text in (accepted["id"], "ACCEPTED", "12 (bookworm)", "/dev/vda1", "13 (trixie)",
                 "/dev/vdb1", "257.13", "switch-root", "halt"):  # fmt: skip
        assert text in head


def test_phases_in_order_with_bars_to_scale(accepted: dict[str, Any]) -> None:
    lines = section(render(accepted), "Phases")[1:8]
    assert [line.split()[0] for line in lines] == [phase["name"] for phase in accepted["phases"]]
    bars = {line.split()[0]: line.split("|")[1] for line in lines}
    assert bars["stage"].count("=") > bars["verify"].count("=") > bars["switch"].count("=") > 0
    assert bars["preflight"].startswith("=") and bars["accept"].endswith("=")
    assert bars["stage"].rindex("=") <= bars["release"].index("=")


def test_clocks(accepted: dict[str, Any]) -> None:
    text = render(accepted)
    assert "T1 staging 14.783 s, T2 run 5.702 s, T3 housekeeping 689 ms, T4 sum 21.174 s" in text


def test_ten_longest_outages(accepted: dict[str, Any]) -> None:
    lines = section(render(accepted), "Outage: 5.662 s")
    spans = {row["unit"]: row["outage_usec"] for row in accepted["units"] if row["outage_usec"]}
    longest = sorted(spans, key=lambda name: -spans[name])[:10]
    assert lines[0].endswith(f"the longest 10 of {len(spans)} units")
    assert [line.split()[0] for line in lines[1:]] == longest


def test_kept_units_have_no_outage(accepted: dict[str, Any]) -> None:
    accepted["units"] = [row for row in accepted["units"] if row["action"] == "kept"]
    assert section(render(accepted), "Outage") == ["Outage: 5.662 s"]


def test_counts_and_names_of_what_is_missing(accepted: dict[str, Any]) -> None:
    text = "\n".join(section(render(accepted), "Units"))
    assert "48 restarted, 11 kept, 5 skipped, 1 new, 2 gone" in text
    assert "gone: e2scrub_all.timer, user@0.service" in text
    assert "vendor-hw-reset.service" in text and "nginx.service" not in text


def test_many_names_are_not_all_told(accepted: dict[str, Any]) -> None:
    accepted["units"] = [{"unit": f"u{n}.service", "action": "gone"} for n in range(40)]
    assert "and 28 more" in render(accepted)


def test_findings_and_way_out() -> None:
    text = render(read("refused"))
    lines = section(text, "Findings")
    assert sum("way out: " in line for line in lines) == 3
    assert lines[1].startswith("  BLOCK target-space: /dev/vdb1 has 11 MiB free")
    assert "Error: preflight refused /dev/vdb1" in text
    assert "not switched" in text and "\nUnits" not in text


def test_a_finding_that_was_forced_says_so(accepted: dict[str, Any]) -> None:
    found = {"id": "swap", "severity": "block", "text": "there is swap", "way_out": "swapoff"}
    accepted["findings"] = [found, found | {"id": "battery", "note": "forced"}]
    lines = section(render(accepted), "Findings")
    assert "  BLOCK swap: there is swap" in lines
    assert "  BLOCK (forced) battery: there is swap" in lines


def test_no_error_no_line(accepted: dict[str, Any]) -> None:
    assert "Error" not in render(accepted)


def test_kernel_state(accepted: dict[str, Any]) -> None:
    assert "nothing lost (compared: boot_id, module, network-device)" in render(accepted)
    lost = {"what": "module", "name": "ext4", "before": {"sysfs_inode": 7}, "after": None}
    accepted["continuity"]["differences"] = [lost]
    text = render(accepted)
    assert "1 difference (compared" in text and "module ext4: {'sysfs_inode': 7} -> none" in text
    assert "nothing lost" not in text


def test_kernel_state_not_compared_is_not_called_kept() -> None:
    assert kernel_state({"continuity": {"read": [], "differences": []}}) == "not compared"
    assert "nothing lost" not in render(read("refused"))


@pytest.mark.parametrize("name", ["accepted", "refused"])
@pytest.mark.parametrize("width", [60, 80, 132])
@pytest.mark.parametrize("unicode", [True, False])
def test_no_line_is_wider(name: str, width: int, unicode: bool) -> None:
    text = render(read(name), width=width, unicode=unicode)
    assert max(map(len, text.splitlines())) <= width
    assert text.endswith("\n") and not text.endswith("\n\n")


def test_ascii_unless_allowed(accepted: dict[str, Any]) -> None:
    accepted["error"] = "Gerät"
    assert render(accepted).isascii() and "Ger\\xe4t" in render(accepted)
    text = render(accepted, unicode=True)
    assert "█" in text and "Gerät" in text


def test_terminal_is_not_at_the_mercy_of_the_report(accepted: dict[str, Any]) -> None:
    accepted["error"] = "a\x1b[2J\nb\x00c"
    assert "Error: a?[2J b?c" in render(accepted)


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_odd_values_anywhere(accepted: dict[str, Any], odd: Any) -> None:
    for key in accepted:
        assert render(accepted | {key: odd})
    assert render(dict.fromkeys(accepted, odd))


def test_empty_and_newer_reports(accepted: dict[str, Any]) -> None:
    assert "unknown" in render({})
    accepted["units"].append({"unit": "a.service", "action": "migrated", "since": 5})
    assert "1 migrated" in render(accepted | {"schema": 9, "more": {}})


def test_readers() -> None:
    assert [number(x) for x in (5, 5.9)] == [5, 5]
    assert [number(x) for x in (True, "5", None, math.inf)] == [None] * 4
    assert [string(x) for x in (None, "", "a\tb", "\ud800", 7)] == ["?", "?", "a b", "?", "7"]


def test_live_tells_what_each_unit_was_away(accepted: dict[str, Any]) -> None:
    accepted |= {
        "strategy": "live",
        "unit_outage_usec": {"longest": 52_000, "sum": 170_000},
        "steps": {"pivot_usec": 90, "reexec_usec": 280_000},
        "plan": {"sha256": "ab", "differences": ["a.service was to be kept and is gone"]},
    }
    text = render(accepted)
    assert "Outage: each unit by itself, 52 ms at most, 170 ms in sum" in text
    assert "change of the root 90 us, PID 1 away 280 ms" in text
    assert "otherwise than planned: a.service was to be kept and is gone" in text


def test_halt_tells_one_outage_and_no_steps(accepted: dict[str, Any]) -> None:
    text = render(accepted | {"unit_outage_usec": {"longest": 52_000, "sum": 170_000}})
    assert "by itself" not in text
    assert "PID 1 away" not in text
    assert "otherwise than planned" not in text
