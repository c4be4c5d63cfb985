"""`make bench-vm`: what an upgrade costs a forwarding element, against what else there is.

One guest with a Debian kernel and two equal Debian 13 roots, frames going through it all the time.
Every rival takes its turn in every round, from one root to the other. Measured from outside: frames
lost and the gap in a TCP service (RFC 7654, TPL_frames and TPL_time). Nothing is asserted.

    TRIALS=5 make bench-vm      leaves bench/results/vm.md, vm.json and vm.svg
"""

import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tests.rig import traces

from . import figures, network, picture
from .guest import BOOT_SEC, BUSY, READY, UPGRADE_SEC, Guest, guest

RESULTS = Path("bench/results")
RATE = 400.0  # frames a second
TCP_PORT = 7777
RATES = (400, 800, 1600, 3200)
IDLE_SEC = 5
AFTER_SEC = 3  # of traffic after the last service is up
SERVED = "until systemctl is-active --quiet version-echo; do sleep 0.1; done"
# Whether both ports are set up again; after a minute they do not come by themselves.
FORWARDS = """
for i in $(seq 60); do
    there=yes
    for port in enp0s16 enp0s17; do
        ip -4 address show dev $port | grep -q ' inet ' &&
            ip -6 address show dev $port -tentative | grep -q ' fd00' || there=
    done
    [ -z "$there" ] || exit 0
    sleep 1
done
echo no
"""
MENDED = "udevadm trigger --action=add --subsystem-match=net --settle; systemctl restart networking"
BOOT_ID = "cat /proc/sys/kernel/random/boot_id"
UEVENTS = "cat /sys/kernel/uevent_seqnum"
NEXT_ROOT = "mkdir -p /run/nextroot; mount {disk} /run/nextroot"
HOLD = "mv /usr/lib/issu/hold{a} /usr/lib/issu/hold{b}"
GATES = """
mount {disk} /mnt
for f in /mnt/usr/lib/systemd/system/*.d/50-issu.conf{a}; do mv $f ${{f%.conf*}}.conf{b}; done
umount /mnt
"""
Report = dict[str, Any]


def issu(g: Guest, strategy: str) -> Report:
    """systemctl start issu@OTHER."""
    g.configure(f'[switch]\nstrategy = "{strategy}"\n')
    return g.upgrade()


def ungated(g: Guest) -> Report:
    """The same with halt, without the drop-ins of the package, in either root."""
    left, other = g.here(), g.other()
    g.run(HOLD.format(a="", b=".off") + GATES.format(disk=other, a="", b=".off"))
    report = issu(g, "halt")
    back = "for f in /usr/lib/systemd/system/*.d/50-issu.conf.off; do mv $f ${f%.off}; done\n"
    g.run(
        f"{back} mount {left} /mnt; mv /mnt/usr/lib/issu/hold.off /mnt/usr/lib/issu/hold\n"
        "umount /mnt"
    )
    return report


def soft_reboot(g: Guest) -> Report:
    """systemctl soft-reboot to the other root."""
    g.run(NEXT_ROOT.format(disk=g.other()) + "; systemctl soft-reboot --no-block")
    g.root = g.channel.hello(UPGRADE_SEC)
    return {}


def reboot(g: Guest) -> Report:
    """systemctl reboot, through the machine's reset and the kernel's start."""
    g.run("systemctl reboot --no-block")
    g.root = g.channel.hello(BOOT_SEC)
    g.run(READY, BOOT_SEC)
    return {}


RIVALS: dict[str, tuple[str, Callable[[Guest], Report]]] = {
    "halt": ("this ISSU, halt", lambda g: issu(g, "halt")),
    "live": ("this ISSU, live", lambda g: issu(g, "live")),
    "ungated": ("halt, gating off", ungated),
    "soft-reboot": ("soft-reboot, other root", soft_reboot),
    "reboot": ("full reboot", reboot),
}
FEWER = ("reboot",)


@dataclass(frozen=True)
class Trial:
    """One run of one rival; times in microseconds, `uevents` is None where the kernel changed."""

    rival: str
    sent: int
    lost: int
    lost_msec: float
    gap: int
    leaked: int
    tcp: int
    modules: tuple[int, int]
    uevents: int | None
    t: tuple[int | None, ...]
    outage: int | None
    parts: tuple[int, ...]  # of the outage: units stop, PID 1 changes roots, units start
    bins: list[int]


def trial(g: Guest, key: str) -> Trial:
    """Let a rival run once under traffic."""
    modules, events, boot = len(g.modules()), int(g.run(UEVENTS)), g.run(BOOT_ID)
    with g.traffic(RATE, TCP_PORT) as seen:
        report = RIVALS[key][1](g)
        g.run(SERVED, UPGRADE_SEC)
        back = g.run(FORWARDS, UPGRADE_SEC, check=False)
        g.run(f"sleep {AFTER_SEC}")
    if "no" in back:  # until here it counts; the next one is to begin in good order
        g.run(MENDED, UPGRADE_SEC)
    g.run("systemctl is-system-running --wait; udevadm settle", UPGRADE_SEC, check=False)
    same_kernel = g.run(BOOT_ID) == boot
    if not same_kernel and key != "reboot":
        print(f"{key}: the kernel started anew\n{g.tail()}", flush=True)
        g.run(READY, BOOT_SEC)
    return Trial(
        key, figures.sent(seen), figures.lost(seen), figures.lost_msec(seen, load(seen)),
        figures.longest_gap(seen), figures.leaked(seen), seen["tcp"]["longest_gap"],
        (modules, len(g.modules())), int(g.run(UEVENTS)) - events if same_kernel else None,
        tuple(report.get(f"t{i}_usec") for i in (1, 2, 3, 4)), report.get("outage_usec"),
        parts(report), seen["bins"],
    )  # fmt: skip


def parts(report: Report) -> tuple[int, ...]:
    """What of the outage is units that stop, PID 1, and units that start; () if there was none."""
    begin = {phase["name"]: phase["start_usec"] for phase in report.get("phases", ())}
    if report.get("strategy") != "halt":
        return ()
    switch, arrive = begin["switch"], begin["arrive"]
    return (
        switch - report["outage_start_usec"], arrive - switch, report["outage_end_usec"] - arrive
    )  # fmt: skip


def load(seen: dict[str, Any]) -> float:
    """The offered load of the frames that must come through, in frames a second."""
    return RATE * len(figures.allowed(seen)) / len(seen["flows"])


def idle(g: Guest) -> tuple[list[tuple[int, int]], int]:
    """What the guest loses at each rate when idle, and at ours when its processors are busy."""
    found = []
    for rate in RATES:
        with g.traffic(rate) as seen:
            g.run(f"sleep {IDLE_SEC}")
        found.append((rate, figures.lost(seen)))
    with g.traffic(RATE) as seen:
        g.run(BUSY)
    return found, figures.lost(seen)


def table(trials: list[Trial], rates: list[tuple[int, int]], busy: int, kernel: str) -> str:
    """The figures for people: median and maximum of each rival."""
    lines = [
        f"Debian 13 to an equal Debian 13 in a virtual machine, kernel {kernel}, 2 virtual",
        f"processors, emulated or not as the host can; host {platform.machine()} with "
        f"{os.cpu_count()} processors. {RATE:g} frames a second,",
        "IPv4 and IPv6, 64, 512 and 1518 bytes, both ways; median / maximum of the trials.",
        "",
        "Lost when idle: "
        + ", ".join(f"{lost} at {rate} frames/s" for rate, lost in rates)
        + f"; {busy} at {RATE:g} with both processors busy.",
        "",
        "| | trials | TPL_frames | TPL_time ms | longest gap ms | firewall leaked | TCP outage ms "
        "| modules before, after | uevents | T1 s | T2 s | T3 s | T4 s |",
        "|" + "---|" * 13,
    ]
    for key, (title, _) in RIVALS.items():
        mine = [t for t in trials if t.rival == key]
        if mine:
            lines.append("| " + " | ".join([title, str(len(mine)), *cells(mine)]) + " |")
    halt = [t.parts for t in trials if t.rival == "halt"]
    stop, change, start = (median(part) / 1e6 for part in zip(*halt, strict=True))
    lines += ["", f"Of the outage of halt (median, s): units stop {stop:.1f}, PID 1 changes roots "
              f"{change:.1f}, units start {start:.1f}."]  # fmt: skip
    return "\n".join(lines) + "\n"


def cells(mine: list[Trial]) -> list[str]:
    """One rival's row."""
    columns = [
        pair([t.lost for t in mine]), pair([t.lost_msec for t in mine]),
        pair([t.gap / 1000 for t in mine]), pair([t.leaked for t in mine]),
        pair([t.tcp / 1000 for t in mine]), "{}, {}".format(*mine[-1].modules),
        pair([t.uevents for t in mine]),
    ]  # fmt: skip
    return columns + [
        pair([usec / 1e6 for t in mine if (usec := t.t[i]) is not None], 1) for i in range(4)
    ]


def pair(values: "list[Any]", digits: int = 0) -> str:
    """Median and maximum."""
    known = [value for value in values if value is not None]
    return f"{median(known):.{digits}f} / {max(known):.{digits}f}" if known else "-"


def keep(trials: list[Trial], text: str, **more: Any) -> None:
    """Leave the results so far, for people, for programs and as a picture."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "vm.md").write_text(text)
    document = {**more, "rate": RATE, "trials": [asdict(t) for t in trials]}
    (RESULTS / "vm.json").write_text(json.dumps(document) + "\n")
    rows = {
        title: sorted(mine, key=lambda t: (t.lost, t.tcp))[(len(mine) - 1) // 2].bins
        for key, (title, _) in RIVALS.items() if (mine := [t for t in trials if t.rival == key])
    }  # fmt: skip
    (RESULTS / "vm.svg").write_text(picture.svg(rows))  # of each the trial in the middle


def main() -> None:
    """Measure, print, and keep the results after each round."""
    count = int(os.environ.get("TRIALS", "5"))
    begin = time.monotonic()
    trials: list[Trial] = []
    with (
        traces.workspace() as work,
        guest(
            work, ("trixie", "trixie"), kernel_of="trixie", customize=[network.ifupdown],
            options="-action reboot=reset",
        ) as g,
    ):  # fmt: skip
        kernel = g.run("uname -r").strip()
        rates, busy = idle(g)
        for number in range(count):
            for key in RIVALS:
                if key in FEWER and number >= max(1, count // 2):
                    continue
                trials.append(trial(g, key))
                t = trials[-1]
                print(
                    f"{key:12} lost {t.lost:5} of {t.sent}, TCP {t.tcp / 1000:.0f} ms", flush=True
                )
            text = table(trials, rates, busy, kernel)
            keep(trials, text, kernel=kernel, idle=rates, busy_lost=busy)
    print(text)
    print(
        f"Measured in {time.monotonic() - begin:.0f} s. The same in {RESULTS}: vm.md, .json, .svg"
    )


if __name__ == "__main__":
    main()
