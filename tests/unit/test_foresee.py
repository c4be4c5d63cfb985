"""`issu plan` as people read it."""

from __future__ import annotations

from typing import Any

from issu_systemd import foresee, plan

STEPS = [
    plan.Step("a.timer", plan.RELOADED, "PID 1 reads it anew"),
    plan.Step("b.service", plan.GONE, "the new root does not have it"),
    plan.Step("c.service", plan.RESTARTED, "its program is replaced"),
]


def document(steps: list[plan.Step]) -> dict[str, Any]:
    return {
        "target": {"device": "/dev/sdb2", "os": "Debian 13", "version": "13"},
        "strategy": "live",
        "sha256": plan.digest(steps),
        "units": [step._asdict() for step in steps],
    }


def test_what_is_interrupted_comes_first_and_everything_has_its_reason() -> None:
    lines = foresee.table(document(STEPS)).splitlines()
    assert lines[0] == "Strategy live, to Debian 13 on /dev/sdb2. Nothing was changed."
    assert [line.split()[:2] for line in lines[2:5]] == [
        ["c.service", "restarted"],
        ["b.service", "gone"],
        ["a.timer", "reloaded"],
    ]
    assert lines[3].endswith("the new root does not have it")
    assert lines[-1] == f"1 restarted, 1 gone, 1 reloaded; plan {plan.digest(STEPS)}"


def test_nothing_runs() -> None:
    assert foresee.table(document([])).splitlines()[-1] == f"; plan {plan.digest([])}"
