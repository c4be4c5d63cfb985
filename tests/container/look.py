"""Preflight's findings without an upgrade: what `issu@.service` would find, asked inside."""

import json
from pathlib import Path
from typing import NamedTuple

from .element import Element

LOOK = """
import json, sys, tempfile, time
from pathlib import Path
from issu_systemd import devices, facts, mounts, preflight, settings
from issu_systemd.errors import IssuError
from issu_systemd.systemd import Manager
from dataclasses import replace

chosen = replace(settings.load(), strategy=sys.argv[2])
with Manager() as manager, tempfile.TemporaryDirectory() as name:
    start, root = time.monotonic(), Path(name)
    device = devices.resolve(sys.argv[1])
    seen = facts.gather(manager, device, chosen)
    mounts.apart()
    if preflight.may_look(preflight.judge(seen)):
        try:
            mounts.mount(device.node, root, options="ro", fstype=device.fstype)
            seen = facts.look(seen, root, chosen.carry_mounts)
            seen, _ = facts.foresee(manager, seen, root, chosen)
        except IssuError as error:
            seen = replace(seen, mount_error=str(error))
        finally:
            mounts.unmount_all(root)
    print(json.dumps([list(f) for f in preflight.judge(seen)]))
    print(f"preflight took {time.monotonic() - start:.2f} s", file=sys.stderr)
"""


class Found(NamedTuple):
    """A finding, as issu_systemd.finding has it."""

    id: str
    severity: str
    text: str
    way_out: str


def look(e: Element, strategy: str = "halt") -> list[Found]:
    """What preflight finds on the machine and in its target; nothing is changed."""
    argv = ["/usr/bin/python3", "-c", LOOK, e.target, strategy]
    done = e.machine.run(argv, timeout=120)
    print(done.stderr)
    return [Found(*row) for row in json.loads(done.stdout)]


def of(found: list[Found], id: str) -> list[Found]:
    """The findings with one id."""
    return [finding for finding in found if finding.id == id]


def put(root: Path, name: str, text: str) -> Path:
    """Write a file of a root."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path
