"""What will become of each unit, decided before anything changes. Pure: values in, values out.

`issu plan` prints it, the record keeps it with its hash, and the report holds what was done
against it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from .gate import is_among
from .newroot import Offer

KEPT, RESTARTED, RELOADED = "kept", "restarted", "reloaded"
NEW, GONE, SKIPPED = "new", "gone", "skipped"
ACTIONS = (RESTARTED, GONE, NEW, SKIPPED, RELOADED, KEPT)
IN_PID1 = (".socket", ".timer", ".path", ".slice", ".target")
OF_KERNEL = (".mount", ".automount", ".swap", ".device")
COUNTED = (".service", ".socket", ".timer", ".path", ".mount", ".automount", ".swap")
OWN = ("issu@", "issu-")
# A service's credentials come and go with it; systemd 252 mounts /run/lock without a unit.
PASSING = (*OWN, "run-credentials-", "run-lock.mount")
MAYBE = "if its conditions hold"  # the end of a reason; only the start of the unit tells
AGAIN = ("systemd-remount-fs.service",)  # oneshots that look at the root itself


class Step(NamedTuple):
    """What becomes of one unit, and why."""

    unit: str
    action: str
    reason: str


@dataclass(frozen=True)
class Running:
    """A unit that is active now."""

    name: str
    oneshot: bool = False  # Type=oneshot with RemainAfterExit=yes
    busy: bool = False  # it has processes
    transient: bool = False  # systemd-run(1) made it
    runtime: bool = False  # its file lies below /run, which both roots have
    connection: bool = False  # of a socket with Accept=yes: one for each connection
    carried: bool = False  # a mount that goes along
    listens: tuple[str, ...] = ()  # a socket's addresses


@dataclass(frozen=True)
class Wishes:
    """What the settings and the package say of units; templates stand for all their instances."""

    keep: Collection[str] = ()
    gated: Collection[str] = ()  # the new root does not start them
    lifted: Collection[str] = ()  # but these of them it does, [arrive] sysctl
    skip: Collection[str] = ()  # [arrive] skip, of either root
    sessions: str = "keep"


Plan = list[Step]
Rule = Callable[[Running, Offer, Wishes], tuple[str, str] | None]


def live(unit: Running, offer: Offer, wishes: Wishes) -> tuple[str, str]:
    """What strategy live does with a unit that is active."""
    name, gone = unit.name, not (unit.runtime or unit.transient or offer.has(unit.name))
    if name.endswith(OF_KERNEL):
        return KEPT, "the kernel has it"
    if is_among(name, wishes.keep):
        return KEPT, "named in [release] keep, or by the package"
    if unit.connection or is_session(name):
        what = "a connection" if unit.connection else "a session"
        ends = wishes.sessions == "terminate"
        return (GONE, f"{what}, and [live] sessions says terminate") if ends else (KEPT, what)
    if name.endswith(".scope") or unit.transient:
        return KEPT, "started by hand; not restarted, it may pin the old root"
    if name.endswith(IN_PID1) and not (gone and name.endswith(COUNTED)):
        return RELOADED, socket_reason(unit, offer)
    if gone:
        return GONE, "the new root does not have it"
    if is_gated(name, wishes) and not unit.busy:
        return KEPT, "it prepares the kernel, which stays"
    if is_among(name, wishes.skip):
        return (SKIPPED, "named in [arrive] skip") if unit.busy else (KEPT, "done once")
    if name in wishes.lifted:
        return RESTARTED, "done again: [arrive] sysctl"
    if unit.oneshot and not unit.busy and name not in AGAIN:
        return KEPT, "done once, it has no process"
    return RESTARTED, "its program is replaced"


def is_gated(name: str, wishes: Wishes) -> bool:
    """Whether the new root must not start the unit because the package says so."""
    return is_among(name, wishes.gated) and name not in wishes.lifted


def socket_reason(unit: Running, offer: Offer) -> str:
    """Why PID 1 takes the unit over as it is."""
    there = offer.listens.get(unit.name)
    if unit.listens and there and {*there} != {*unit.listens}:
        return f"stays open; listens on {', '.join(there)} in the new root when it is restarted"
    return "PID 1 reads it anew" if not unit.listens else "stays open in PID 1"


def is_session(name: str) -> bool:
    """Whether logind made the scope for somebody who is logged in."""
    return name.startswith("session-") and name.endswith(".scope")


def halt(unit: Running, offer: Offer, wishes: Wishes) -> tuple[str, str]:
    """What strategy halt does with a unit that is active."""
    name = unit.name
    wanted = name in offer.wanted
    if name.endswith(OF_KERNEL) and unit.carried:
        return KEPT, "it goes along"
    if is_among(name, wishes.keep) and not name.endswith(OF_KERNEL):
        return KEPT, "named in [release] keep, or by the package"
    if wanted and is_gated(name, wishes):
        return SKIPPED, "it prepares the kernel, which is prepared"
    if is_among(name, wishes.skip):
        return SKIPPED, "named in [arrive] skip"
    if name.endswith((".slice", ".target", ".scope", ".device")):
        return (GONE, "ends with its processes") if name.endswith(".scope") else (
            RELOADED, "PID 1 reads it anew")  # fmt: skip
    if wanted and unit.oneshot:
        return RESTARTED, f"stopped; the new root starts it, {MAYBE}"
    if wanted:
        return RESTARTED, "stopped; the new root starts it"
    if unit.runtime or offer.has(name):
        return GONE, "nothing starts it with the new root; on demand it comes"
    return GONE, "the new root does not have it"


STRATEGIES: dict[str, Callable[[Running, Offer, Wishes], tuple[str, str]]] = {
    "halt": halt, "live": live,
}  # fmt: skip


def make(running: Iterable[Running], offer: Offer, wishes: Wishes, strategy: str) -> Plan:
    """The plan, in the order of the units' names."""
    decide, known = STRATEGIES[strategy], {unit.name: unit for unit in running}
    steps = [
        Step(name, *decide(unit, offer, wishes))
        for name, unit in known.items()
        if not name.startswith(PASSING) and name not in ("-.mount", "-.slice", "init.scope")
        and not name.endswith(".device")
    ]  # fmt: skip
    steps += new(known, offer, wishes)
    return sorted(steps)


def new(known: Collection[str], offer: Offer, wishes: Wishes) -> Iterator[Step]:
    """What the new root starts and the old one does not have active."""
    for name in offer.wanted:
        counts = name.endswith(COUNTED) and not name.startswith(PASSING)
        barred = is_gated(name, wishes) or is_among(name, wishes.skip)
        if counts and not barred and name not in known:
            yield Step(name, NEW, f"the new root starts it, {MAYBE}")


def digest(plan: Plan) -> str:
    """SHA-256 of a plan, in hex; reasons do not count."""
    return hashlib.sha256(json.dumps([step[:2] for step in plan]).encode()).hexdigest()


def of(plan: Plan, action: str) -> list[str]:
    """The units of a plan with one action."""
    return [step.unit for step in plan if step.action == action]


def differences(plan: Iterable[Iterable[str]], rows: Iterable[Mapping[str, object]]) -> list[str]:
    """Where what was done (the unit rows of a report) is not what was planned; a sentence each."""
    done = {str(row["unit"]): str(row["action"]) for row in rows}
    said = []
    for unit, action, reason in plan:
        if not unit.endswith(COUNTED) or OK.get(action) is None:
            continue
        found = done.get(unit, GONE)
        if found not in OK[action] and not (found == GONE and reason.endswith(MAYBE)):
            said.append(f"{unit} was to be {action} and is {found}")
    return said


# What a report may say of a unit planned so. A new unit may have ended or met its condition; a
# skipped one that was not active is of no concern to a report.
OK = {
    KEPT: (KEPT,), RELOADED: (KEPT,), RESTARTED: (RESTARTED,), GONE: (GONE, SKIPPED),
    SKIPPED: (SKIPPED, GONE),
}  # fmt: skip
