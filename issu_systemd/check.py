"""Whether an upgrade would be allowed, without one: preflight in a mount namespace of its own.

Run as a program, `check TARGET OPTIONS` prints the answer as JSON: the service can neither be
blocked nor ended by what a device does to it.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import Any

from . import devices, facts, foresee, preflight, settings
from .errors import IssuError
from .finding import Finding
from .request import Options
from .settings import Settings
from .systemd import Manager


def check(target: str, options: Options) -> dict[str, Any]:
    """What preflight finds: `eligible`, and `findings` as the report has them.

    Changes nothing. Raises IssuError when the target is no device or PID 1 cannot be asked.
    """
    chosen = settings.load()
    chosen = replace(chosen, strategy=options.strategy or chosen.strategy)
    device = devices.resolve(target)
    with Manager() as manager:
        findings = judge(manager, device, chosen)
    return {
        "eligible": not preflight.blocks(findings),
        "findings": [finding._asdict() for finding in findings],
    }


def judge(manager: Manager, device: devices.Device, chosen: Settings) -> list[Finding]:
    """Every finding, as an upgrade would tell it."""
    seen = facts.gather(manager, device, chosen)
    if not preflight.may_look(preflight.judge(seen)):
        return preflight.judge(seen)
    try:
        with foresee.looked_into(device, chosen) as (root, doubts):
            if any(doubts):
                return preflight.judge(replace(seen, **doubts._asdict()))
            seen, _ = facts.foresee(
                manager, facts.look(seen, root, chosen.carry_mounts), root, chosen
            )
    except IssuError as error:
        seen = replace(seen, mount_error=str(error))
    return preflight.judge(seen)


def main() -> int:
    """Print the answer for the arguments, or the error."""
    target, words = sys.argv[1:]
    try:
        given = json.loads(words)
        answer = check(target, Options(given["strategy"], tuple(given["force"])))
    except IssuError as error:
        answer = {"error": str(error), "hint": error.hint}
    except OSError as error:
        answer = {"error": str(error), "hint": ""}
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
