"""A long run of upgrades: in which order, under what load, and whether anything has grown in it."""

import os
import random
from pathlib import Path

from .element import write_unit

DATA = Path(__file__).with_name("data")
SIZES = (DATA / "sizes.py").read_text()
STRATEGIES = ("halt", "live", "live", "halt")  # of a system that goes to and fro
CYCLE = len(STRATEGIES)
FIRST = 2  # what was looked for only once is there by then: the size of these is the measure
NOISE_KIB = 256  # of 3 MiB, which is what PID 1 has; pages come and go with its heap
LOADS = ("load-a.service", "load-b.service", "load-c.service")

Sizes = dict[str, int]


def seed() -> int:
    """$SEED, or another one each time; it is printed, so that a run can be repeated."""
    found = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"SEED={found}")
    return found


def upgrades(name: str, usual: int) -> int:
    """How many: what `make soak` says by a variable, else as many as are usual."""
    return int(os.environ.get(name) or usual)


def load(root: Path, seed: int) -> None:
    """Services with random work in a root."""
    (root / "etc/load.py").write_bytes((DATA / "load.py").read_bytes())
    for name in LOADS:
        start = f"ExecStart=/usr/bin/python3 /etc/load.py {seed}-{name}\n"
        write_unit(root, name, f"[Unit]\nAfter=nginx.service\n[Service]\n{start}")


def growth(early: Sizes, late: Sizes) -> dict[str, tuple[int, int]]:
    """What has become more than it was."""
    noise = {"memory": NOISE_KIB}
    return {k: (early[k], late[k]) for k in early if late[k] > early[k] + noise.get(k, 0)}


def grown(sizes: list[Sizes]) -> list[dict[str, tuple[int, int]]]:
    """Of the last cycle of upgrades, what is more than after the first one that came that way."""
    late = range(max(FIRST + CYCLE, len(sizes) - CYCLE), len(sizes))
    return [growth(sizes[FIRST + (n - FIRST) % CYCLE], sizes[n]) for n in late]


def table(sizes: list[Sizes]) -> str:
    """The sizes at the beginning, at the end and the largest, for people."""
    rows = ((key, sizes[0][key], sizes[-1][key], max(s[key] for s in sizes)) for key in sizes[0])
    return "\n".join(f"{key:26}{first:8}{last:8}{most:8}" for key, first, last, most in rows)
