"""The checks of preflight that concern forwarding: what an upgrade would take from the network."""

from __future__ import annotations

from collections.abc import Iterator

from .evidence import Facts
from .finding import BLOCK, WARN, Check, Finding

MAX_COMMAND = 160  # letters


def named_namespaces_stay(f: Facts) -> Iterator[Finding]:
    if f.strategy == "halt" and f.mechanism == "soft-reboot" and f.network_namespaces:
        names = f.network_namespaces
        yield Finding(
            "network-namespace", BLOCK,
            f"network namespaces are lost with SoftReboot: {', '.join(names)}",
            'set [switch] strategy = "live", or delete them: `ip netns delete NAME`',
        )  # fmt: skip


def told(command: str, culprit: str) -> str:
    """A command as a sentence shows it, with the line of the script that matters."""
    within = f" ({culprit[:MAX_COMMAND]})" if culprit else ""
    return f"`{command[:MAX_COMMAND]}`{within}"


def stops_leave_forwarding(f: Facts) -> Iterator[Finding]:
    for unit, command, culprit, starts in f.actions:
        if not starts:
            yield Finding(
                "stop-action", WARN,
                f"{unit} would break forwarding when it stops: {told(command, culprit)}",
                f'[release] keep = ["{unit}"]',
            )  # fmt: skip


def starts_leave_forwarding(f: Facts) -> Iterator[Finding]:
    for unit, command, culprit, starts in f.actions:
        if starts:
            yield Finding(
                "start-action", WARN,
                f"{unit} of the new root would break forwarding when it starts: "
                f"{told(command, culprit)}", f'[arrive] skip = ["{unit}"]',
            )  # fmt: skip


NETWORK: tuple[Check, ...] = (
    named_namespaces_stay, stops_leave_forwarding, starts_leave_forwarding,
)  # fmt: skip
