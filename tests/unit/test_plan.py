"""What becomes of each unit: one unit, one rule."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from issu_systemd.newroot import Offer
from issu_systemd.plan import MAYBE, Plan, Running, Step, Wishes, differences, digest, make, of

OFFER = Offer(
    wanted=frozenset({"a.service", "late.service", "gate.service", "new.target", "x@1.service"}),
    known=frozenset({"a.service", "late.service", "gate.service", "x@.service", "a.socket",
                     "once.service", "systemd-remount-fs.service", "a.timer", "kept.service",
                     "skip.service", "a.slice"}),
    listens={"a.socket": ("/run/a",)},
)  # fmt: skip
WISHES = Wishes(keep=["kept.service", "k@.service"], gated=["gate.service"], skip=["skip.service"])


def action(unit: Running, strategy: str, wishes: Wishes = WISHES) -> str:
    """What becomes of one unit."""
    steps = make([unit], OFFER, wishes, strategy)
    return next((step.action for step in steps if step.unit == unit.name), "")


def running(name: str, **more: Any) -> Running:
    return Running(name, **more)


@pytest.mark.parametrize(
    ("unit", "live", "halt"),
    [
        (running("a.service", busy=True), "restarted", "restarted"),
        (running("x@2.service", busy=True), "restarted", "gone"),
        (running("old.service", busy=True), "gone", "gone"),
        (running("old.service", busy=True, runtime=True), "restarted", "gone"),
        (running("old.service", busy=True, transient=True), "kept", "gone"),
        (running("kept.service", busy=True), "kept", "kept"),
        (running("k@7.service"), "kept", "kept"),
        (running("gate.service"), "kept", "skipped"),
        (running("gate.service", busy=True), "restarted", "skipped"),
        (running("skip.service", busy=True), "skipped", "skipped"),
        (running("skip.service", oneshot=True), "kept", "skipped"),
        (running("once.service", oneshot=True), "kept", "gone"),
        (running("once.service", oneshot=True, busy=True), "restarted", "gone"),
        (running("systemd-remount-fs.service", oneshot=True), "restarted", "gone"),
        (running("x@3-1.service", busy=True, connection=True), "kept", "gone"),
        (running("a.socket"), "reloaded", "gone"),
        (running("old.socket"), "gone", "gone"),
        (running("a.timer"), "reloaded", "gone"),
        (running("old.timer"), "gone", "gone"),
        (running("old.target"), "reloaded", "reloaded"),
        (running("a.slice"), "reloaded", "reloaded"),
        (running("srv.mount"), "kept", "gone"),
        (running("srv.mount", carried=True), "kept", "kept"),
        (running("session-4.scope", busy=True), "kept", "gone"),
        (running("other.scope", busy=True), "kept", "gone"),
        (running("issu@-dev-sdb2.service", busy=True), "", ""),
        (running("-.mount"), "", ""),
        (running("dev-sda.device"), "", ""),
        (running("run-credentials-a.service.mount"), "", ""),
    ],
    ids=lambda value: value.name if isinstance(value, Running) else "",
)
def test_one_unit(unit: Running, live: str, halt: str) -> None:
    assert (action(unit, "live"), action(unit, "halt")) == (live, halt)


@pytest.mark.parametrize("strategy", ["live", "halt"])
def test_a_gate_that_is_lifted(strategy: str) -> None:
    """[arrive] sysctl: done again, however often it was done."""
    gate = running("gate.service", oneshot=True)
    lifted = replace(WISHES, lifted=["gate.service"])
    assert action(gate, strategy, lifted) == "restarted"
    assert action(gate, strategy) != "restarted"
    assert action(gate, strategy, replace(lifted, keep=["gate.service"])) == "kept"
    assert action(gate, strategy, replace(lifted, skip=["gate.service"])) != "restarted"
    barred, new = make([], OFFER, WISHES, strategy), make([], OFFER, lifted, strategy)
    assert {step.unit for step in new} - {step.unit for step in barred} == {"gate.service"}


@pytest.mark.parametrize("strategy", ["live", "halt"])
def test_a_lifted_unit_that_the_new_root_does_not_have(strategy: str) -> None:
    lifted = replace(WISHES, lifted=["old.service"])
    assert action(running("old.service", oneshot=True), strategy, lifted) == "gone"


def test_sessions_end_only_on_request() -> None:
    ends = Wishes(sessions="terminate")
    session, other = running("session-4.scope"), running("other.scope")
    connection = running("x@3-1.service", busy=True, connection=True)
    assert [action(u, "live", ends) for u in (session, connection, other)] == [
        *("gone", "gone"),
        "kept",
    ]


def test_a_socket_that_will_listen_elsewhere_is_named() -> None:
    [same] = [s for s in make([running("a.socket", listens=("/run/a",))], OFFER, WISHES, "live")
              if s.unit == "a.socket"]  # fmt: skip
    [other] = [s for s in make([running("a.socket", listens=("/run/b",))], OFFER, WISHES, "live")
               if s.unit == "a.socket"]  # fmt: skip
    assert "/run/a" not in same.reason
    assert "listens on /run/a" in other.reason


@pytest.mark.parametrize("strategy", ["live", "halt"])
def test_new_is_what_is_wanted_not_active_and_not_barred(strategy: str) -> None:
    steps = make([running("a.service", busy=True)], OFFER, WISHES, strategy)
    assert of(steps, "new") == ["late.service", "x@1.service"]


def test_every_step_has_a_reason_and_they_are_in_order() -> None:
    units = [running("b.service"), running("a.service"), running("once.service", oneshot=True)]
    steps = make(units, OFFER, WISHES, "live")
    assert all(step.reason for step in steps)
    assert steps == sorted(steps)


PLAN: Plan = [Step("a.service", "restarted", "x"), Step("b.service", "gone", "y")]


def test_the_hash_is_of_what_is_done() -> None:
    assert digest(PLAN) == digest([Step(u, a, "another reason") for u, a, _ in PLAN])
    assert digest(PLAN) != digest([PLAN[0]._replace(action="kept"), PLAN[1]])
    assert digest(PLAN) != digest(PLAN[:1])
    assert len(digest(PLAN)) == 64


@pytest.mark.parametrize(
    ("planned", "done", "differs"),
    [
        ("restarted", "restarted", False),
        ("restarted", "kept", True),
        ("restarted", None, True),
        ("kept", "kept", False),
        ("kept", "restarted", True),
        ("reloaded", "kept", False),
        ("reloaded", "restarted", True),
        ("gone", None, False),
        ("gone", "restarted", True),
        ("skipped", "skipped", False),
        ("new", None, False),
    ],
)
def test_what_was_done_is_held_against_the_plan(
    planned: str, done: str | None, *, differs: bool
) -> None:
    rows = [{"unit": "a.service", "action": done}] if done else []
    said = differences([["a.service", planned, "why"]], rows)
    assert bool(said) is differs
    if not done:  # what the new root's conditions forbid is no surprise
        assert differences([["a.service", planned, f"started, {MAYBE}"]], rows) == []
    assert all("a.service" in sentence for sentence in said)
