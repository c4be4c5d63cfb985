"""Upgrades to and fro on a real kernel, strategies in turn, under load: nothing grows.

`make soak` has ten of them, every run of the tier one.
"""

import json
import random

from tests.container import growth
from tests.rig import traces

from . import network
from .guest import Guest, guest
from .test_continuity import MODULE

SUITES = ("bookworm", "trixie")
TRACES = "ls /run/issu; find /run/systemd -name '50-issu*'; grep sysroot /proc/1/mountinfo"


def disturb(g: Guest, dice: random.Random) -> None:
    """What an operator does between two upgrades."""
    for _ in range(dice.randrange(3)):
        g.run(f"systemctl restart {dice.choice(growth.LOADS)}; logger again")


def measure(g: Guest) -> growth.Sizes:
    """The sizes, once nothing of the upgrade runs any more."""
    g.run('until [ -z "$(systemctl list-jobs --no-legend)" ]; do sleep 0.2; done')
    g.run("systemctl stop issu-bus.service")  # whoever asks for a report starts it
    sizes: growth.Sizes = json.loads(g.run(f"python3 - <<'END'\n{growth.SIZES}\nEND"))
    return sizes


def test_soak() -> None:
    seed, most = growth.seed(), growth.upgrades("SOAK_VM", 1)
    dice = random.Random(seed)
    with (
        traces.workspace() as work,
        guest(work, SUITES, customize=[network.ifupdown, lambda top: growth.load(top, seed)]) as g,
    ):
        g.run(f"rmmod {MODULE}")
        boot, modules = g.run("cat /proc/sys/kernel/random/boot_id"), g.modules()
        sizes = list[growth.Sizes]()
        for count in range(most):
            strategy = growth.STRATEGIES[count % growth.CYCLE]
            disturb(g, dice)
            g.configure(f'[switch]\nstrategy = "{strategy}"\n')
            report = g.upgrade()
            assert (report["result"], report["strategy"]) == ("accepted", strategy), report["error"]
            assert g.root == SUITES[(count + 1) % 2]
            assert report["continuity"]["differences"] == []
            assert report["uevents"]["forbidden"] == []
            assert "old-root-free" in [finding["id"] for finding in report["findings"]]
            assert g.run("systemctl is-system-running --wait").strip() == "running"
            assert g.run(TRACES, check=False) == ""
            sizes.append(measure(g))
            print(f"{count + 1} of {most}: {strategy}, {report['outage_usec'] / 1e6:.1f} s")
        print(growth.table(sizes))
        assert g.run("cat /proc/sys/kernel/random/boot_id") == boot
        assert g.modules() == modules
        assert not any(grown := growth.grown(sizes)), grown
