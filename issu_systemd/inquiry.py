"""Check for many callers: preflight as a process of its own, few at a time, equal ones shared."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict
from typing import Any

from . import run, settings, trust
from .errors import IssuError, SettingsError
from .request import Options

PROGRAM = (sys.executable, "-I", "-m", "issu_systemd.check")
AT_ONCE = 2
WAIT_MOST = 32
CHECK_SEC = 120.0  # besides what the settings allow


class Inquiries:
    """The checks that run now."""

    def __init__(self) -> None:
        self._running: dict[tuple[str, Options], asyncio.Task[dict[str, Any]]] = {}
        self._turn = asyncio.Semaphore(AT_ONCE)

    async def check(self, target: str, options: Options) -> dict[str, Any]:
        """What check.py answers; who asks the same meanwhile shares it. Raises IssuError."""
        key = (target, options)
        task = self._running.get(key)
        if task is None:
            if len(self._running) >= WAIT_MOST:
                raise IssuError("too many checks are asked for", hint="ask again in a minute")
            task = asyncio.ensure_future(self._ask(target, options))
            self._running[key] = task
            task.add_done_callback(lambda _: self._running.pop(key))
        return await asyncio.shield(task)

    async def _ask(self, target: str, options: Options) -> dict[str, Any]:
        async with self._turn:
            said = await run.ask([*PROGRAM, target, json.dumps(asdict(options))], limit(options))
        try:
            answer: dict[str, Any] = json.loads(said)
        except ValueError:
            raise IssuError("preflight gave no answer", hint="journalctl -u issu-bus") from None
        if "error" in answer:
            raise IssuError(answer["error"], hint=answer["hint"])
        return answer


def limit(options: Options) -> float:
    """How long a check may take, in seconds."""
    try:
        chosen = settings.load()
    except SettingsError:  # the check tells
        return CHECK_SEC
    allowed = CHECK_SEC + trust.seconds(chosen)
    if options.rehearse:
        from .rehearse import most_seconds  # not many want it

        allowed += most_seconds(chosen)
    return allowed
