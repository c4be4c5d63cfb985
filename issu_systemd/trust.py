"""Is the target the image that it is said to be? Nothing in it is executed before that is known.

[stage] verity: veritysetup(8) reads every block of it and compares with the root hash, before the
kernel has looked at a file system that may be forged. [stage] verify-command: the site's own check,
a signature for instance. Without either the operator's word is what it is trusted for.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from . import mounts
from .devices import Device
from .errors import IssuError
from .run import plain, run_bounded
from .settings import Settings

UNTRUSTED = "ro,nosuid,nodev,noexec"
TRUSTED = "ro,suid,dev,exec"
VERITYSETUP = "veritysetup"
KEPT_BYTES = 4096  # of what a program prints, the end


class Doubts(NamedTuple):
    """Why the target is not trusted, as Facts have it: "" where there is no doubt."""

    verity: str = ""
    verify_command: str = ""


def mount(device: Device, place: Path, chosen: Settings) -> Doubts:
    """Mount the target read-only at `place`, executable only if it is trusted; why it is not.

    With a wrong root hash it is not mounted at all. Raises IssuError if it does not mount.
    """
    if forged := verity(device.node, chosen):
        return Doubts(forged, command(device.node, chosen))
    mounts.mount(device.node, place, options=UNTRUSTED, fstype=device.fstype or "auto")
    if refused := command(device.node, chosen):
        return Doubts(verify_command=refused)
    mounts.remount(place, TRUSTED)
    return Doubts()


def verity(node: str, chosen: Settings) -> str:
    """Why the device is not what [stage] verity says."""
    if not chosen.verity:
        return ""
    if not chosen.verity_hashes:
        return "[stage] verity-hashes is not set"
    argv = [VERITYSETUP, "verify", node, chosen.verity_hashes, chosen.verity]
    return refusal(argv, chosen)


def command(node: str, chosen: Settings) -> str:
    """Why the site's own program is not content with the device."""
    if not chosen.verify_command:
        return ""
    why = refusal([*chosen.verify_command, node], chosen)
    return why and f"{chosen.verify_command[0]}: {why}"


def refusal(argv: list[str], chosen: Settings) -> str:
    """Why a program is not content: its last line, or that it did not end; "" if it is."""
    seconds = chosen.trust_timeout_usec / 1_000_000
    try:
        done = run_bounded(argv, timeout=seconds, keep=KEPT_BYTES)
    except IssuError as error:
        return str(error)
    if done.status is None:
        return f"it took longer than {seconds:g} s"
    return (plain(done.output) or f"exit {done.status}") if done.status else ""


def seconds(chosen: Settings) -> float:
    """How long `mount` may take at most, besides mounting."""
    return (bool(chosen.verity) + bool(chosen.verify_command)) * chosen.trust_timeout_usec / 1e6
