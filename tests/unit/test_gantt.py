"""The picture of a report: well-formed, self-contained, and every bar where its times say."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from issu_systemd.gantt import AWAY, KEPT, LEFT, RIGHT, SHADE, Axis, svg

DATA = Path(__file__).parent / "data"
NS = "{http://www.w3.org/2000/svg}"
SEC = 1_000_000
ODD: list[Any] = [None, "", "a\x00\x1b\ud800<&", -1, math.nan, 10**400, True, [None], {},
                  [{"name": [], "start_usec": 5, "end_usec": -10**15}, {"start_usec": 10**18}],
                  [{"unit": None, "action": [], "stopped_usec": 5, "started_usec": 10**18}],
                  {"read": ["a"], "differences": [{}, 7]}]  # fmt: skip


def read(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((DATA / f"report-{name}.json").read_text())
    return document


@pytest.fixture
def accepted() -> dict[str, Any]:
    return read("accepted")


def draw(report: dict[str, Any]) -> ElementTree.Element:
    return ElementTree.fromstring(svg(report))


def texts(root: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{NS}text")]


def drawn(root: ElementTree.Element, kind: str, **style: str) -> list[ElementTree.Element]:
    return [e for e in root.iter(NS + kind) if all(e.get(k) == v for k, v in style.items())]


def bars(root: ElementTree.Element) -> list[ElementTree.Element]:
    """What shows units that are away, top down, without the one of the legend."""
    return [bar for bar in drawn(root, "rect", fill=AWAY) if float(bar.get("x", 0)) >= LEFT]


def edges(bar: ElementTree.Element) -> tuple[float, float]:
    x, width = (float(bar.attrib[key]) for key in ("x", "width"))
    return x, x + width


def restarted(count: int) -> list[dict[str, Any]]:
    """Units that stop one after another, a tenth of a second apart, the last one named first."""
    rows = []
    for n in range(count):
        stop, start = round((10 + n / 10) * SEC), round((50 + n / 10) * SEC)
        row = {"unit": f"u{count - n:03}.service", "stopped_usec": stop, "started_usec": start}
        rows.append(row | {"outage_usec": 40 * SEC, "action": "restarted"})
    return sorted(rows, key=lambda row: str(row["unit"]))


def test_it_is_self_contained(accepted: dict[str, Any]) -> None:
    text = svg(accepted)
    assert text.count("http") == text.count("http://www.w3.org/2000/svg") == 1
    kinds = {element.tag.removeprefix(NS) for element in draw(accepted).iter()}
    assert kinds == {"svg", "title", "rect", "path", "text"}


@pytest.mark.parametrize("name", ["accepted", "refused"])
def test_everything_lies_on_the_paper(name: str) -> None:
    root = draw(read(name))
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    assert root.attrib["viewBox"] == f"0 0 {width:.0f} {height:.0f}"
    for element in [*drawn(root, "rect"), *drawn(root, "text")]:
        if element.get("width") != "100%":
            assert 0 <= float(element.attrib["x"]) + float(element.get("width", 0)) <= width
            assert 0 <= float(element.attrib["y"]) + float(element.get("height", 0)) <= height


def test_title_and_figures(accepted: dict[str, Any]) -> None:
    found = texts(draw(accepted))
    for text in ("accepted", "5.662 s", "outage 5.662 s", "14.783 s", "T1 staging", "21.174 s",
                 "nothing lost (compared: boot_id, module, network-device)"):  # fmt: skip
        assert text in found
    assert any("13 (trixie)" in text and "/dev/vdb1" in text for text in found)


def test_every_phase_has_its_duration(accepted: dict[str, Any]) -> None:
    found = texts(draw(accepted))
    for text in ("preflight 413 ms", "stage 14.370 s", "release 1.318 s", "accept 187 ms"):
        assert text in found


@pytest.mark.parametrize("count", [1, 10, 300])
def test_a_row_for_each_unit_in_the_order_of_the_stops(
    accepted: dict[str, Any], count: int
) -> None:
    root = draw(accepted | {"units": restarted(count)})
    names = [text for text in texts(root) if text.endswith(".service")]
    assert names == [f"u{count - n:03}.service" for n in range(count)]
    places = [float(bar.attrib["y"]) for bar in bars(root)]
    assert len(places) == count
    assert all(below - above >= 12 for above, below in itertools.pairwise(places))


def test_bar_runs_from_stop_to_start() -> None:
    row = {"unit": "a.service", "stopped_usec": 20 * SEC, "started_usec": 60 * SEC,
           "outage_usec": 40 * SEC, "action": "restarted"}  # fmt: skip
    phases = [{"name": "release", "start_usec": 10 * SEC, "end_usec": 15 * SEC}]
    outage = {"outage_start_usec": 20 * SEC, "outage_end_usec": 110 * SEC, "outage_usec": 90 * SEC}
    root = draw({"phases": phases, "units": [row], **outage})
    axis = Axis(10 * SEC - 100 * SEC // 30, 110 * SEC + 100 * SEC // 30, 10 * SEC)
    assert edges(bars(root)[0]) == pytest.approx((axis.x(20 * SEC), axis.x(60 * SEC)), abs=0.2)
    (shade,) = drawn(root, "rect", fill=SHADE)
    assert edges(shade) == pytest.approx((axis.x(20 * SEC), axis.x(110 * SEC)), abs=0.2)
    assert "40.000 s" in texts(root)


def test_kept_units_are_never_away(accepted: dict[str, Any]) -> None:
    accepted["units"] = [row for row in accepted["units"] if row["action"] == "kept"]
    root = draw(accepted)
    assert len(drawn(root, "path", stroke=KEPT)) == len(accepted["units"])
    assert bars(root) == []


@pytest.mark.parametrize(
    ("action", "head"),
    [("skipped", "Skipped"), ("gone", "Gone"), ("new", "New"), ("kept", "Kept")],
)
def test_marks(accepted: dict[str, Any], action: str, head: str) -> None:
    count = sum(row["action"] == action for row in accepted["units"])
    found = texts(draw(accepted))
    assert found.count(action) - (action == "kept") == count > 0  # the legend names kept
    assert any(text.startswith(head) and text.endswith(f"({count})") for text in found)
    without = [row for row in accepted["units"] if row["action"] != action]
    found = texts(draw(accepted | {"units": without}))
    assert not any(text.startswith(head) for text in found)


@pytest.mark.parametrize("lost", ["stopped_usec", "started_usec"])
def test_unknown_times_are_no_bar(accepted: dict[str, Any], lost: str) -> None:
    row = restarted(1)[0] | {lost: None, "outage_usec": None}
    root = draw(accepted | {"units": [row]})
    assert bars(root) == [] and "unknown" in texts(root)


def test_no_shade_without_an_outage(accepted: dict[str, Any]) -> None:
    assert len(drawn(draw(accepted), "rect", fill=SHADE)) == 1
    root = draw(accepted | {"outage_end_usec": None, "outage_usec": None})
    assert drawn(root, "rect", fill=SHADE) == []


def test_refused_shows_why_and_no_run() -> None:
    root = draw(read("refused"))
    found = texts(root)
    assert "Error: preflight refused /dev/vdb1: 2 findings block the upgrade" in found
    assert any(text.startswith("way out: Free space") for text in found)
    assert bars(root) == [] and not any(text.startswith("Restarted") for text in found)


def test_long_names_are_cut_in_the_middle(accepted: dict[str, Any]) -> None:
    name = "systemd-fsck@dev-disk-by\\x2duuid-5b0f4c1e-7d3a-4a52-9e43-0c1d2f6b8a97.service"
    found = texts(draw(accepted | {"units": [restarted(1)[0] | {"unit": name}]}))
    (shown,) = [text for text in found if text.startswith("systemd-fsck@")]
    assert shown.endswith(".service") and "..." in shown and len(shown) <= 40


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0, 8 * SEC, [f"{n} s" for n in range(9)]),
        (-3 * SEC, 5 * SEC, [f"{n} s" for n in range(-3, 6)]),
        (0, SEC // 2, ["0.0 s", "0.1 s", "0.2 s", "0.3 s", "0.4 s", "0.5 s"]),
        (0, 2700 * SEC, ["0 s", "500 s", "1000 s", "1500 s", "2000 s", "2500 s"]),
    ],
)
def test_ticks(low: int, high: int, labels: list[str]) -> None:
    ticks = Axis(low + 7 * SEC, high + 7 * SEC, 7 * SEC).ticks()
    assert [label for _, label in ticks] == labels
    places = [place for place, _ in ticks]
    assert places == sorted(places) and places[0] >= LEFT and places[-1] <= RIGHT


@pytest.mark.parametrize("span", [0, 1, 7, 999, 10**6, 10**12, 2**63])
def test_ticks_are_few_and_at_most_once(span: int) -> None:
    labels = [label for _, label in Axis(0, span, 0).ticks()]
    assert 1 <= len(labels) == len(set(labels)) <= 9


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
def test_odd_values_anywhere(accepted: dict[str, Any], odd: Any) -> None:
    for key in accepted:
        draw(accepted | {key: odd})
    draw(dict.fromkeys(accepted, odd))


def test_empty_report() -> None:
    assert "unknown" in texts(draw({}))
