"""`issu plan`: the plan of an upgrade, as the upgrade itself would make it, without one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import devices, facts, mounts, plan, settings, survey, trust
from .errors import IssuError, Refused
from .settings import Settings
from .systemd import Manager


def foresee(target: str, strategy: str | None) -> dict[str, Any]:
    """The plan for the root on a device; `strategy` None means that of the settings.

    Raises IssuError when the device is none or holds no system, Refused when it is not trusted.
    """
    chosen = settings.load()
    strategy = strategy or chosen.strategy
    device = devices.resolve(target)
    with Manager() as manager, looked_into(device, chosen) as (place, doubts):
        if any(doubts):
            raise Refused(f"{device.node} is not trusted: {'; '.join(filter(None, doubts))}")
        system = facts.os_release(place)
        if not system["os"]:
            raise IssuError(f"{device.node} holds no operating system: no os-release in it")
        says, _ = facts.first_line(place, facts.ISSU_VERSION)
        wanted = survey.wanted(chosen, settings.load(place), says)
        steps = survey.plan_for(manager, place, chosen, wanted, strategy)
    return {
        "target": {"device": device.node, **system}, "strategy": strategy,
        "sha256": plan.digest(steps), "units": [step._asdict() for step in steps],
    }  # fmt: skip


@contextmanager
def looked_into(
    device: devices.Device, chosen: Settings
) -> Iterator[tuple[Path, trust.Doubts]]:
    """The device mounted read-only in a mount namespace of our own, which ends with the program.

    With a doubt nothing in it can be executed. Raises IssuError when it does not mount.
    """
    mounts.apart()
    with tempfile.TemporaryDirectory(prefix="issu-look-") as name:
        place = Path(name)
        try:
            yield place, trust.mount(device, place, chosen)
        finally:
            mounts.unmount_all(place)


def table(document: dict[str, Any]) -> str:
    """The plan for people: what is interrupted first, what stays last."""
    rows = sorted(
        document["units"], key=lambda row: (plan.ACTIONS.index(row["action"]), row["unit"])
    )
    wide = max((len(row["unit"]) for row in rows), default=0)
    lines = [f"{row['unit']:<{wide}}  {row['action']:<9}  {row['reason']}" for row in rows]
    counts = {action: sum(row["action"] == action for row in rows) for action in plan.ACTIONS}
    told = ", ".join(f"{count} {action}" for action, count in counts.items() if count)
    where = f"{document['target']['os']} on {document['target']['device']}"
    head = f"Strategy {document['strategy']}, to {where}. Nothing was changed."
    return "\n".join([head, "", *lines, "", f"{told}; plan {document['sha256']}"])
