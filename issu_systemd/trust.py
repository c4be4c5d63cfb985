"""Is the target the image that it is said to be? Nothing in it is executed before that is known.

[stage] verity: veritysetup(8) reads every block of it and compares with the root hash, before the
kernel has looked at a file system that may be forged. [stage] verify-command: the site's own check,
a signature for instance. Without either the operator's word is what it is trusted for.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from . import mounts
from .devices import Device
from .errors import IssuError
from .finding import BLOCK, Finding
from .run import last_line
from .settings import Settings

UNTRUSTED = "ro,nosuid,nodev,noexec"
TRUSTED = "ro,suid,dev,exec"
VERITYSETUP = "veritysetup"


def mount(device: Device, place: Path, chosen: Settings) -> list[Finding]:
    """Mount the target read-only at `place`, executable only if it is trusted; why it is not.

    With a wrong root hash it is not mounted at all. Raises IssuError if it does not mount.
    """
    if forged := list(verity(device.node, chosen)):
        return [*forged, *command(device.node, chosen)]
    mounts.mount(device.node, place, options=UNTRUSTED, fstype=device.fstype or "auto")
    if refused := list(command(device.node, chosen)):
        return refused
    mounts.remount(place, TRUSTED)
    return []


def verity(node: str, chosen: Settings) -> Iterator[Finding]:
    """Whether all of the device is what [stage] verity says."""
    if not chosen.verity:
        return
    if not chosen.verity_hashes:
        yield Finding(
            "verity", BLOCK, "[stage] verity is set, and verity-hashes is not",
            "set [stage] verity-hashes to the device or file with the hash tree",
        )  # fmt: skip
        return
    argv = [VERITYSETUP, "verify", node, chosen.verity_hashes, chosen.verity]
    if why := refusal(argv, chosen):
        yield Finding(
            "verity", BLOCK, f"{node} is not what [stage] verity says: {why}",
            "write the image to it again, or correct [stage] verity and verity-hashes",
        )  # fmt: skip


def command(node: str, chosen: Settings) -> Iterator[Finding]:
    """Whether the site's own program is content with the device."""
    argv = [*chosen.verify_command, node]
    if chosen.verify_command and (why := refusal(argv, chosen)):
        yield Finding("verify-command", BLOCK, f"{chosen.verify_command[0]} refuses {node}: {why}",
                      f"`{shlex.join(argv)}` shows all it says")  # fmt: skip


def refusal(argv: list[str], chosen: Settings) -> str:
    """Why a program is not content: its last line, or that it did not end; "" if it is."""
    try:
        status, said = last_line(argv, timeout=chosen.trust_timeout_usec / 1_000_000)
    except IssuError as error:
        return str(error)
    return (said or f"exit {status}") if status else ""
