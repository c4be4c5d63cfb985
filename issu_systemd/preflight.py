"""Whether an upgrade may begin: a table of small pure checks over Facts.

To add a check, write one function that takes Facts and yields findings of one id, and put it into
the table of its theme; a row of issu@.service(8) tells what it means and the way out.
Patent [0064]: the new software must stand ready on the other root before the trigger.
"""

from __future__ import annotations

from collections.abc import Collection

from .evidence import Facts
from .finding import BLOCK, INFO, WARN, Check, Finding
from .preflight_live import LIVE
from .preflight_machine import MACHINE
from .preflight_network import NETWORK
from .preflight_storage import STORAGE
from .preflight_target import TARGET
from .preflight_watchdog import WATCHDOG

CHECKS: tuple[Check, ...] = (*MACHINE, *STORAGE, *TARGET, *NETWORK, *LIVE, *WATCHDOG)

# What blocks, and what an operator who knows better may pass by --force ID.
FORCEABLE: frozenset[str] = frozenset(
    {"systemd-older", "ids", "fstab-device", "network-namespace", "inhibitor"}
)
# With one of these the target is not mounted to be looked at: it is in use, it would do harm, or
# there is no room to note on /run that it is mounted.
SEALS: frozenset[str] = frozenset(
    {"pid1", "root", "busy", "running-root", "no-file-system", "file-system", "mounted", "pinned",
     "claimed", "run-space", "run-inodes"}
)  # fmt: skip


def judge(facts: Facts) -> list[Finding]:
    """Every finding of every check, the blocking ones first."""
    return in_order([finding for check in CHECKS for finding in check(facts)])


def in_order(found: list[Finding]) -> list[Finding]:
    """The findings as they are told, the blocking ones first."""
    return sorted(found, key=lambda finding: (BLOCK, WARN, INFO).index(finding.severity))


def blocks(findings: list[Finding], force: Collection[str] = ()) -> list[Finding]:
    """Those that forbid the upgrade; an operator may go on in spite of what is in `force`."""
    return [found for found in findings if found.severity == BLOCK and found.id not in force]


def may_look(findings: list[Finding]) -> bool:
    """Whether the target may be mounted, so that what is in it is found as well."""
    return not any(finding.id in SEALS for finding in findings)
