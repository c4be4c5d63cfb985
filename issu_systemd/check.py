"""Whether an upgrade would be allowed, without one: preflight in a mount namespace of its own.

Run as a program, `check TARGET OPTIONS` prints the answer as JSON: the service can neither be
blocked nor ended by what a device does to it.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import devices, facts, foresee, preflight, rehearse, settings
from .errors import Busy, IssuError
from .evidence import Facts
from .finding import INFO, Finding
from .request import Options
from .settings import Settings
from .systemd import Manager


def check(target: str, options: Options) -> dict[str, Any]:
    """What preflight finds: `eligible`, and `findings` as the report has them.

    Changes nothing, even if a rehearsal is asked for. Raises IssuError when the target is no device
    or PID 1 cannot be asked.
    """
    chosen = settings.load()
    chosen = replace(chosen, strategy=options.strategy or chosen.strategy)
    device = devices.resolve(target)
    with Manager() as manager:
        seen, units = look(manager, device, chosen)
    findings = preflight.judge(seen)
    if options.rehearse:
        findings = preflight.in_order([*findings, *rehearsed(seen, units, chosen)])
    return {
        "eligible": not preflight.blocks(findings),
        "findings": [finding._asdict() for finding in findings],
    }


def look(
    manager: Manager, device: devices.Device, chosen: Settings
) -> tuple[Facts, tuple[str, ...]]:
    """What an upgrade would see, and the [verify] units of both roots."""
    seen, units = facts.gather(manager, device, chosen), chosen.verify_units
    if not preflight.may_look(preflight.judge(seen)):
        return seen, units
    try:
        with foresee.looked_into(device, chosen) as (root, doubts):
            if any(doubts):
                return replace(seen, **doubts._asdict()), units
            own, _ = facts.own_settings(root)
            units = tuple(sorted({*units, *own.verify_units}))
            seen, _ = facts.foresee(
                manager, facts.look(seen, root, chosen.carry_mounts), root, chosen
            )
    except IssuError as error:
        seen = replace(seen, mount_error=str(error))
    return seen, units


def rehearsed(seen: Facts, units: tuple[str, ...], chosen: Settings) -> list[Finding]:
    """What a rehearsal of the target finds, or why there is none."""
    if not facts.is_sound(seen):
        return [Finding("rehearsal", INFO, f"no rehearsal: {seen.target} cannot be booted as it is",
                        "mend what else is found, and ask again")]  # fmt: skip
    try:
        return rehearse.rehearse(Path(seen.target), units, rehearse.seconds(chosen))
    except Busy as error:
        return [Finding("rehearsal", INFO, f"no rehearsal: {error}", error.hint)]


def main() -> int:
    """Print the answer for the arguments, or the error."""
    target, words = sys.argv[1:]
    try:
        given = json.loads(words)
        answer = check(target, Options(given["strategy"], rehearse=given["rehearse"]))
    except IssuError as error:
        answer = {"error": str(error), "hint": error.hint}
    except OSError as error:
        answer = {"error": str(error), "hint": ""}
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
