"""Stock units: what an upgrade must not start again, and what it must not stop.

Each test has its negative control: the same without the package's drop-ins, or an ordinary boot.
"""

import shutil
import time
from pathlib import Path

import pytest

from tests.rig import sh

from .element import Element, element, row, write_unit

UNITS = Path("usr/lib/systemd/system")
DROP_INS = Path(__file__).parents[2] / "dropins"
PAIRS = [("bookworm", "trixie"), ("trixie", "bookworm")]
LOG = Path("/run/gated")
# Every stock unit of the list is made to run in a container, where most have nothing to do: the
# first line of conditions takes back those of the unit file, but not those of later drop-ins.
INSTRUMENTED = f"""
[Unit]
ConditionPathExists=
[Service]
Type=oneshot
StandardInput=null
StandardOutput=journal
StandardError=journal
ExecStart=
ExecStart=/bin/sh -c '[ -e /run/issu/in-progress ] || ordinary=1; echo %n $${{ordinary:-0}} >>{LOG}'
ExecStop=
"""
LATE = "systemd-journal-flush.service"  # is started as soon as the upgrade has ended
# What only starts with a device of its own, and there are none in a container.
NOT_HERE = {"systemd-rfkill.service"}
INSTANCES = {"modprobe@": "fuse", "systemd-backlight@": "backlight:none"}


def gated(root: Path) -> list[str]:
    """The services with a drop-in of ours that the root has, an instance for a template."""
    names = [path.name.removesuffix(".d") for path in DROP_INS.glob("*.service.d")]
    there = [name for name in names if (root / UNITS / name).is_file()]
    return sorted(instance(name) for name in there if name not in NOT_HERE)


def instance(name: str) -> str:
    """A template of the list with an instance that can be started."""
    prefix, at, suffix = name.partition("@")
    return name if not at else f"{prefix}@{INSTANCES.get(prefix + at, 'tmp')}{suffix}"


def instrument(root: Path) -> None:
    """Have every gated service started by a boot and write its name."""
    for name in gated(root):
        prefix, at, _ = name.partition("@")
        template = f"{prefix}@.service" if at else name
        place = root / f"etc/systemd/system/{template}.d/40-test.conf"
        place.parent.mkdir(exist_ok=True)
        place.write_text(INSTRUMENTED)
        wants = root / "etc/systemd/system/multi-user.target.wants" / name
        wants.symlink_to(f"/{UNITS}/{template}")


def ungate(e: Element, device: str) -> None:
    """Take the package's drop-ins out of the root on a device."""
    script = f"mount {device} /mnt && rm /mnt/{UNITS}/*.d/50-issu.conf && umount /mnt"
    e.machine.run(["sh", "-c", script])


def ran(e: Element) -> tuple[set[str], set[str]]:
    """The gated services that were started since the last call: within an upgrade, and not."""
    log = e.machine.path(LOG)
    lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
    log.unlink(missing_ok=True)
    within, ordinary = ({name for name, flag in lines if flag == sort} for sort in "01")
    return within, ordinary


def test_gated_services(tmp_path: Path) -> None:
    """Both ways with the drop-ins, and both ways with those of the new root removed."""
    with element(tmp_path, "bookworm", "trixie", in_source=instrument, in_target=instrument) as e:
        within, ordinary = ran(e)
        assert not within
        assert ordinary >= set(gated(e.machine.path("/")))
        for device in (e.target, e.source):
            report = e.upgrade(device)
            assert report["result"] == "accepted", report
            e.wait_quiet()
            assert ran(e) == (set(), {LATE})
            names = gated(e.machine.path("/"))
            assert len(names) > 15
            names.remove(LATE)
            actions = {name: row(report, name).get("action") for name in names}
            assert actions == dict.fromkeys(names, "skipped")
        for device in (e.target, e.source):
            ungate(e, device)
            report = e.upgrade(device)
            assert report["result"] == "accepted", report
            within, _ = ran(e)
            assert within >= set(gated(e.machine.path("/")))


ONCE = ("ldconfig.service", "systemd-journal-catalog-update.service", "systemd-update-done.service")
RESULTS = ("etc/ld.so.cache", "var/lib/systemd/catalog/database")
STAMPS = ("etc/.updated", "var/.updated")
DEVICES = "systemd-tmpfiles-setup-dev.service"


def stale(root: Path) -> None:
    """A root as an installer leaves it: none of the work of a first boot is done."""
    for name in (*RESULTS, *STAMPS):
        (root / name).unlink(missing_ok=True)


def test_first_boot_work(tmp_path: Path) -> None:
    """Staging does it, so that arrival need not; an ordinary boot of such a root does."""
    with element(tmp_path, "bookworm", "trixie", in_target=stale) as e:
        report = e.upgrade()
        assert report["result"] == "accepted", report
        begun = {phase["name"]: phase["start_usec"] / 1e6 for phase in report["phases"]}
        to_wall = time.time() - time.monotonic()
        assert all(e.machine.path(name).exists() for name in STAMPS)
        for name in RESULTS:
            done = e.machine.path(name).stat().st_mtime - to_wall
            assert begun["stage"] - 1 < done < begun["release"], name
        for unit in (*ONCE, DEVICES):
            assert row(report, unit)["action"] == "skipped"
            assert e.machine.systemctl("is-active", unit, check=False) == "inactive"

        stale(e.machine.path("/"))
        e.machine.poweroff()
        e.machine.boot(Path(e.target))
        assert e.machine.systemctl("is-active", *ONCE, DEVICES) == "\n".join(["active"] * 4)


HELD = ("blk-availability.service", "ifup@.service", "netfilter-persistent.service")
NETWORK = ("networking.service", "nftables.service")
STOPPED = Path("/run/stopped")
STAND_IN = f"""
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
ExecStop=/bin/sh -c 'echo %n >>{STOPPED}'
"""
INTERFACES = f"""
auto eth0
iface eth0 inet manual
    down echo networking.service >>{STOPPED}
"""
LIVE = "add table inet live; add counter inet live passed { packets 7 bytes 420 }"


def with_held(root: Path) -> None:
    """Debian's own networking and nftables; for packages that are not here, a unit of the name."""
    for name in HELD:
        write_unit(root, name, STAND_IN, wanted_by="")
    wants = root / "etc/systemd/system/multi-user.target.wants"
    for name in HELD:
        (wants / name.replace("@", "@eth0")).symlink_to(f"/etc/systemd/system/{name}")
    (root / "etc/network/interfaces").write_text(INTERFACES)
    sh.run(["systemctl", f"--root={root}", "--quiet", "enable", *NETWORK])


def with_held_but_no_hold(root: Path) -> None:
    with_held(root)
    shutil.rmtree(root / "usr/lib/issu/hold")


@pytest.mark.parametrize(("source", "target"), PAIRS)
@pytest.mark.parametrize("hold", [True, False], ids=["hold", "no-hold"])
def test_held_services(tmp_path: Path, source: str, target: str, hold: bool) -> None:
    prepare = with_held if hold else with_held_but_no_hold
    with element(tmp_path, source, target, in_source=prepare, in_target=with_held) as e:
        units = [*NETWORK, *(name.replace("@", "@eth0") for name in HELD)]
        assert e.machine.systemctl("is-active", *units) == "\n".join(["active"] * 5)
        e.machine.run(["nft", LIVE])
        report = e.upgrade()
        assert report["result"] == "accepted", report

        stopped = e.machine.path(STOPPED)
        stops = sorted(stopped.read_text().splitlines()) if stopped.exists() else []
        rules = e.machine.run(["nft", "list", "ruleset"]).stdout
        actions = {row(report, unit)["action"] for unit in units}
        assert e.machine.systemctl("is-active", *units) == "\n".join(["active"] * 5)
        if hold:
            assert stops == []
            assert "packets 7 bytes 420" in rules
            assert actions == {"kept"}
        else:
            assert stops == sorted({*units} - {"nftables.service"})
            assert "live" not in rules and "table inet filter" in rules
            assert actions == {"restarted"}
        # What held them was for the upgrade only.
        assert e.machine.systemctl("show", "-P", "IgnoreOnIsolate", *units).split() == ["no"] * 5
        assert "flush" in e.machine.systemctl("show", "-P", "ExecStop", "nftables.service")
