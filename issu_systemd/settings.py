"""Settings: TOML fragments merged by file name, see issu.toml(5)."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from os.path import normpath
from pathlib import Path
from typing import Any

from .errors import SettingsError

DIRECTORIES = ("usr/lib/issu/conf.d", "etc/issu/conf.d", "run/issu/conf.d")
UNIT_SUFFIXES = (
    "service", "socket", "timer", "path", "target", "mount", "automount", "swap", "slice", "device",
)  # fmt: skip
_SPAN = re.compile(
    r"(\d+)\s*(usec|us|msec|ms|seconds?|sec|s|minutes?|min|m|hours?|hr|h|days?|d|)"
)  # fmt: skip
_USEC = {
    "us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000,
}  # fmt: skip

BOOT_LOADERS = ("none", "grub", "systemd-boot", "extlinux")
WATCHDOG_MIN_USEC = 10_000_000  # less is taken by PID 1 and a new root without any trouble


@dataclass(frozen=True)
class Settings:
    """Every setting there is. Times are microseconds."""

    keep: tuple[str, ...] = ()
    stop_timeout_usec: int = 30_000_000
    keep_ipc: tuple[str, ...] = ()
    modules: str = "require"
    rehearse: bool = False
    rehearse_timeout_usec: int = 120_000_000
    rehearse_skip: tuple[str, ...] = ()
    verity: str = ""  # root hash in hexadecimal
    verity_hashes: str = ""  # where its hash tree is
    verify_command: tuple[str, ...] = ()
    trust_timeout_usec: int = 300_000_000
    skip: tuple[str, ...] = ()
    sysctl: bool = False
    carry_files: tuple[str, ...] = ("/etc/machine-id", "/etc/hostname", "/etc/ssh/ssh_host_*")
    carry_mounts: tuple[str, ...] = ()
    carry_journal: bool = True
    strategy: str = "halt"
    watchdog_usec: int = 0
    live_parallel: int = 1
    live_timeout_usec: int = 120_000_000
    live_settle_usec: int = 1_000_000
    sessions: str = "keep"
    verify_units: tuple[str, ...] = ()
    verify_timeout_usec: int = 120_000_000
    verify_settle_usec: int = 5_000_000
    verify_program_timeout_usec: int = 30_000_000
    verify_continuity: str = "report"
    accept_mode: str = "auto"
    accept_timeout_usec: int = 2_700_000_000
    boot_loader: str = "none"
    hook_timeout_usec: int = 30_000_000
    reports: int = 100


def timespan(text: object) -> int:
    """Microseconds of a time span as systemd.time(7) writes it: "30s", "1min 30s", "500ms"."""
    if isinstance(text, int) and not isinstance(text, bool) and text >= 0:
        return text * 1_000_000
    if not isinstance(text, str) or not text.strip() or _SPAN.sub("", text).strip():
        raise ValueError('a time span such as "30s" or "45min" is wanted')
    total = 0
    for number, unit in _SPAN.findall(text):
        key = {"usec": "us", "msec": "ms"}.get(unit, unit if unit in _USEC else unit[:1] or "s")
        total += int(number) * _USEC[key]
    return total


def _strings(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError("a list of strings is wanted")
    return tuple(value)


def _units(value: object) -> tuple[str, ...]:
    for name in (names := _strings(value)):
        if "/" in name or name.rpartition(".")[2] not in UNIT_SUFFIXES:
            raise ValueError(f'"{name}" is not a unit name such as "frr.service"')
    return names


def _paths(value: object) -> tuple[str, ...]:
    for name in (names := _strings(value)):
        if not name.startswith("/") or ".." in name.split("/"):
            raise ValueError(f'"{name}" is not an absolute path without ".."')
    return tuple(normpath(name) for name in names)


def _ipc(value: object) -> tuple[str, ...]:
    for name in (names := _strings(value)):
        if not re.fullmatch(r"(shm|sem|msg):(0x[0-9a-fA-F]{1,8}|\d+)", name):
            raise ValueError(f'"{name}" is not of the form "shm:0x46494201"')
    return names


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false is wanted")
    return value


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError("a whole number from 1 on is wanted")
    return value


def _watchdog(value: object) -> int:
    if 0 < (usec := timespan(value)) < WATCHDOG_MIN_USEC:
        raise ValueError(f'"0s", or "{WATCHDOG_MIN_USEC // 1_000_000}s" and more, is wanted')
    return usec


def _path(value: object) -> str:
    return _paths([value])[0]


def _root_hash(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"([0-9a-fA-F]{2}){16,64}", value):
        raise ValueError("the root hash as `veritysetup format` prints it is wanted")
    return value.lower()


def _command(value: object) -> tuple[str, ...]:
    words = tuple(shlex.split(value)) if isinstance(value, str) else _strings(value)
    if not words or not words[0].startswith("/"):
        raise ValueError("a program by its absolute path, and its arguments, is wanted")
    return words


def _one_of(*choices: str) -> Callable[[object], str]:
    def parse(value: object) -> str:
        if value not in choices:
            raise ValueError(f"one of {', '.join(choices)} is wanted")
        return str(value)

    return parse


# section and key in the file -> (field, parser)
KEYS: dict[tuple[str, str], tuple[str, Callable[[object], Any]]] = {
    ("release", "keep"): ("keep", _units),
    ("release", "stop-timeout"): ("stop_timeout_usec", timespan),
    ("release", "keep-ipc"): ("keep_ipc", _ipc),
    ("stage", "modules"): ("modules", _one_of("require", "bind")),
    ("stage", "rehearse"): ("rehearse", _boolean),
    ("stage", "rehearse-timeout"): ("rehearse_timeout_usec", timespan),
    ("stage", "rehearse-skip"): ("rehearse_skip", _units),
    ("stage", "verity"): ("verity", _root_hash),
    ("stage", "verity-hashes"): ("verity_hashes", _path),
    ("stage", "verify-command"): ("verify_command", _command),
    ("stage", "verify-timeout"): ("trust_timeout_usec", timespan),
    ("arrive", "skip"): ("skip", _units),
    ("arrive", "sysctl"): ("sysctl", _boolean),
    ("carry", "files"): ("carry_files", _paths),
    ("carry", "mounts"): ("carry_mounts", _paths),
    ("carry", "journal"): ("carry_journal", _boolean),
    ("switch", "strategy"): ("strategy", _one_of("halt", "live")),
    ("switch", "watchdog"): ("watchdog_usec", _watchdog),
    ("live", "parallel"): ("live_parallel", _count),
    ("live", "timeout"): ("live_timeout_usec", timespan),
    ("live", "settle"): ("live_settle_usec", timespan),
    ("live", "sessions"): ("sessions", _one_of("keep", "terminate")),
    ("verify", "units"): ("verify_units", _units),
    ("verify", "timeout"): ("verify_timeout_usec", timespan),
    ("verify", "settle"): ("verify_settle_usec", timespan),
    ("verify", "program-timeout"): ("verify_program_timeout_usec", timespan),
    ("verify", "continuity"): ("verify_continuity", _one_of("strict", "report")),
    ("accept", "mode"): ("accept_mode", _one_of("auto", "manual")),
    ("accept", "timeout"): ("accept_timeout_usec", timespan),
    ("accept", "boot-loader"): ("boot_loader", _one_of(*BOOT_LOADERS)),
    ("accept", "program-timeout"): ("hook_timeout_usec", timespan),
    ("history", "keep"): ("reports", _count),
}


def fragments(root: Path = Path("/")) -> list[Path]:
    """The files that count, in order of their names; a later directory's same-named file wins."""
    found = {f.name: f for d in DIRECTORIES for f in sorted((root / d).glob("*.toml"))}
    return [found[name] for name in sorted(found)]


def load(root: Path = Path("/")) -> Settings:
    """Read the settings of the system at `root`; raises SettingsError naming file and key."""
    values: dict[str, Any] = {}
    for path in fragments(root):
        try:
            text = path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{path}: {error}") from error
        values |= parse(text, str(path))
    return Settings(**values)


def parse(text: str, name: str) -> dict[str, Any]:
    """The settings of one fragment by field; raises SettingsError naming file and key."""
    hint = "see issu.toml(5)"
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{name}: {error}", hint=hint) from error
    values = {}
    for section, table in data.items():
        if not isinstance(table, dict):
            raise SettingsError(f"{name}: {section} stands outside a section", hint=hint)
        if not table and section not in {known for known, _ in KEYS}:
            raise SettingsError(f"{name}: [{section}] is not a section", hint=hint)
        for key, value in table.items():
            if (section, key) not in KEYS:
                raise SettingsError(f"{name}: [{section}] {key} is not a setting", hint=hint)
            field, parser = KEYS[section, key]
            try:
                values[field] = parser(value)
            except ValueError as error:
                raise SettingsError(f"{name}: [{section}] {key}: {error}", hint=hint) from error
    return values
