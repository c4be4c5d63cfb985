"""Each check fires on one changed fact, and only that one; nothing fires on good facts."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from issu_systemd.evidence import (
    Action,
    Facts,
    Layer,
    Owner,
    Policy,
    Tree,
    Watchdog,
    by_age,
    systemd_major,
    version,
)
from issu_systemd.preflight import (
    BLOCK,
    CHECKS,
    FORCEABLE,
    INFO,
    SEALS,
    WARN,
    Finding,
    blocks,
    judge,
    may_look,
)
from issu_systemd.preflight_machine import BATTERY_MIN, MEMORY_MIN_BYTES, RUN_MIN_BYTES
from issu_systemd.preflight_target import DOWNWARDS

KERNEL = "6.1.0-40-amd64"
AGE = "way-back"
TREE = Tree(
    os="Debian GNU/Linux 13 (trixie)",
    version="13",
    init="/usr/lib/systemd/systemd",
    init_says="systemd 257 (257.13-1~deb13u1)",
    machine=62,
    issu_says="issu 0.4.0",
    kernels=(KERNEL,),
)
LACKING = replace(TREE, lacks_modules=True, kernels=())
OLDER = replace(TREE, issu_says="issu 0.2.0")
BIND: dict[str, Any] = {"modules": "bind"}
LIVE: dict[str, Any] = {"strategy": "live"}
LUKS: dict[str, Any] = {"layers": (Layer("target", "LUKS", "disk"),)}
WATCHED: dict[str, Any] = {"watchdog_usec": 60_000_000, "tree": replace(TREE, watchdog=True)}
DOG = Watchdog("/dev/watchdog0", "iTCO_wdt", timeout=30)
BUSY_DOG = DOG._replace(active=True)
SOFTDOG = Watchdog("/dev/watchdog1", "Software Watchdog", timeout=60)
OWN: dict[str, Any] = {"watchdog_of_pid1": "/dev/watchdog0", "watchdogs": (BUSY_DOG,)}
BEFORE_MOUNT = Facts(
    target="/dev/sdb2", target_dev=2066, root_dev=2049, root_device="/dev/sda1", kernel=KERNEL
)
GOOD = replace(BEFORE_MOUNT, tree=TREE)

# id, severity, the facts that differ from good ones, and what the sentence must name
Case = tuple[str, str, dict[str, Any], str]
CASES: list[Case] = [
    ("pid1", BLOCK, {"pid1": "runit"}, "runit"),
    ("root", BLOCK, {"uid": 1000}, "1000"),
    ("mechanism", BLOCK, {"mechanism": None}, "SwitchRoot"),
    ("strategy", BLOCK, LIVE | {"tree": replace(TREE, issu_says="issu 0.1.9")}, "0.1.9"),
    ("pivot", BLOCK, LIVE | {"foreign_mounts": True}, "namespace"),
    ("pivot", BLOCK, LIVE | {"on_rootfs": True}, "initramfs"),
    ("stray-mount", BLOCK, LIVE | {"stray_mounts": ("/srv",)}, "/srv"),
    ("swap-file", BLOCK, LIVE | {"swap_files": ("/swap",)}, "/swap"),
    ("watchdog-idle", INFO, {"watchdogs": (SOFTDOG, DOG)}, "/dev/watchdog0 (iTCO_wdt)"),
    ("watchdog", BLOCK, WATCHED, "no device"),
    ("watchdog", BLOCK, WATCHED | {"watchdogs": (BUSY_DOG,)}, "/dev/watchdog0 is in use"),
    ("watchdog", BLOCK, WATCHED | {"watchdogs": (DOG._replace(nowayout=True),)}, "nowayout"),
    ("watchdog", WARN, WATCHED | OWN, "PID 1 has /dev/watchdog0"),
    ("watchdog", INFO, WATCHED | OWN | {"softdog": True}, "softdog watches"),
    ("watchdog", INFO, WATCHED | OWN | {"watchdogs": (BUSY_DOG, SOFTDOG)}, "/dev/watchdog1"),
    ("watchdog-target", BLOCK, WATCHED | {"watchdogs": (DOG,), "tree": TREE}, "issu 0.4.0"),
    ("accept-mode", BLOCK, {"accept_mode": "manual", "tree": OLDER}, "0.2.0"),
    ("busy", BLOCK, {"in_progress": True}, "another upgrade"),
    ("inhibited", BLOCK, {"inhibitors": ("backup (nightly), process 7",)}, "backup (nightly)"),
    ("run-space", BLOCK, {"run_free": RUN_MIN_BYTES - 1}, "31 MiB"),
    ("run-inodes", BLOCK, {"run_inodes": 1023}, "1023 inodes"),
    ("memory", BLOCK, {"memory_free": MEMORY_MIN_BYTES - 1}, "63 MiB"),
    ("running-root", BLOCK, {"target_dev": GOOD.root_dev}, "/dev/sdb2"),
    ("no-file-system", BLOCK, {"target_fstype": ""}, "/dev/sdb2"),
    ("read-only", BLOCK, {"target_read_only": True}, "/dev/sdb2"),
    ("read-only", BLOCK, {"target_fstype": "squashfs"}, "squashfs"),
    ("mounted", BLOCK, {"mounted_rw": ("/srv",)}, "/srv"),
    ("claimed", BLOCK, {"claimed": True}, "/dev/sdb2"),
    ("pinned", BLOCK, {"claimed": True, "held_by": ("sh[7] (its root)",)}, "sh[7]"),
    ("mount", BLOCK, {"mount_error": "bad superblock"}, "bad superblock"),
    ("verity", BLOCK, {"verity": "Verification failed"}, "Verification failed"),
    ("verify-command", BLOCK, {"verify_command": "/x: no seal"}, "no seal"),
    ("no-os", BLOCK, {"tree": Tree()}, "/dev/sdb2"),
    ("no-init", BLOCK, {"tree": replace(TREE, init="", init_says="", issu_says="")}, "systemd"),
    ("architecture", BLOCK, {"tree": replace(TREE, machine=183, init_says="")}, "183"),
    ("architecture", BLOCK, {"machine": 183, "tree": replace(TREE, init_says="")}, "62"),
    (
        "init-runs",
        BLOCK,
        {"tree": replace(TREE, init_says="", init_error="libc.so.6: not found", issu_says="")},
        "libc.so.6: not found",
    ),
    ("init-runs", BLOCK, {"tree": replace(TREE, init_says="busybox 1.36")}, "/dev/sdb2"),
    ("merged-usr", BLOCK, {"tree": replace(TREE, merged_usr=False)}, "/lib"),
    ("issu-missing", BLOCK, {"tree": replace(TREE, issu_says="")}, "/dev/sdb2"),
    ("target-settings", BLOCK, {"tree": replace(TREE, settings_error="x.toml: kep")}, "x.toml"),
    ("carry-mount", BLOCK, {"not_mounts": ("/var/lib/element",)}, "/var/lib/element"),
    ("keep-inactive", WARN, {"not_loaded": ("frr.service",)}, "frr.service"),
    ("keep-running", WARN, {"kept_running": ("frr.service",)}, "frr.service"),
    ("modules", BLOCK, {"tree": LACKING}, "/dev/sdb2"),
    ("modules", BLOCK, BIND | {"tree": replace(LACKING, no_copy=("it is full", "x"))}, "full"),
    ("modules", INFO, BIND | {"tree": LACKING}, "will be copied"),
    ("kernel-waits", INFO, {"tree": replace(TREE, kernels=("6.12.1", KERNEL))}, "6.12.1"),
    ("way-back", WARN, {"tree": replace(TREE, issu_says="issu 0.3.9")}, "0.3.9"),
    ("sysctl", WARN, {"sysctl": True, "tree": OLDER}, "0.2.0"),
    ("sysctl", WARN, {"tree": replace(OLDER, sysctl=True)}, "0.2.0"),
    ("no-root-device", INFO, {"root_device": None}, "running root"),
    ("swap-file", WARN, {"swap_files": ("/swap",)}, "/swap"),
    ("memory", WARN, {"memory_free": MEMORY_MIN_BYTES, "warm_bytes": 1 << 20}, "65 MiB"),
    ("battery", WARN, {"battery": BATTERY_MIN - 1}, "19 %"),
    ("package-manager", BLOCK, {"package_managers": ("dpkg[7] holds /l",)}, "dpkg[7]"),
    ("package-manager", BLOCK, {"tree": replace(TREE, package_managers=("a[8] holds",))}, "a[8]"),
    ("inhibitor", BLOCK, {"locks": ("backup (it runs)",)}, "backup (it runs)"),
    ("jobs", WARN, {"jobs": (("a.service", "start"),)}, "start a.service"),
    ("jobs", WARN, {"jobs": (("reboot.target", "stop"),)}, "stop reboot.target"),
    ("jobs", BLOCK, {"jobs": (("reboot.target", "start"),)}, "goes down"),
    ("stray-process", WARN, {"strays": ("sleep[9] in /",)}, "the upgrade ends it"),
    ("stray-process", WARN, LIVE | {"strays": ("sleep[9] in /",)}, "goes on"),
    ("namespace-pin", WARN, {"pins": ("runc[5] of a.scope",)}, "runc[5] of a.scope"),
    ("not-checked", INFO, {"unread": ("layers: no sysfs",)}, "layers: no sysfs"),
    ("file-system", BLOCK, {"file_system_state": "has errors"}, "/dev/sdb2 has errors"),
    ("room", BLOCK, {"tree": replace(TREE, no_room="has 1 MiB free")}, "/dev/sdb2 has 1 MiB"),
    ("fstab-device", BLOCK, {"tree": replace(TREE, fstab_missing=(("UUID=x", "/d"),))}, "UUID=x"),
    ("fstab-hides", BLOCK, {"tree": replace(TREE, fstab_hides=(("/d", "/d/e"),))}, "over /d/e"),
    ("layers", INFO, {"layers": (Layer("root", "LVM", "vg-a"),)}, "root lies on LVM (vg-a)"),
    ("layers", INFO, LUKS | {"tree": replace(TREE, crypttab=("disk",))}, "LUKS (disk)"),
    ("layers", WARN, LUKS, "crypttab"),
    ("layers", WARN, {"layers": (Layer("target", "network", "nbd0"),)}, "serve it"),
    ("libc", BLOCK, {"tree": replace(TREE, oldest_kernel=(6, 2, 0))}, "needs kernel 6.2.0"),
    ("systemd-older", BLOCK, {"systemd": 258}, "systemd 257 in /dev/sdb2 is older than 258"),
    ("command-line", INFO, {"tree": replace(TREE, command_line=("+a=1", "-b"))}, "+a=1 -b"),
    ("policy", WARN, {"tree": replace(TREE, policies=(Policy("SELinux", "is off"),))}, "is off"),
    ("start-up", BLOCK, {"no_plan": ("it does not tell", "try")}, "does not tell"),
    ("default-target", BLOCK, {"tree": replace(TREE, default_target="")}, "leads nowhere"),
    ("default-target", INFO, {"default_target": "multi-user.target"}, "goes to graphical.target"),
    ("unit-lost", WARN, {"lost": (("a.service", "masks it"),)}, "/dev/sdb2 masks it"),
    ("unit-broken", WARN, {"tree": replace(TREE, faults=(("a.service", "no x"),))}, "no x"),
    ("ids", BLOCK, {"tree": replace(TREE, owners=(Owner("user", "u", 1, 2, "/f"),))}, "it is 2"),
    ("ids", WARN, {"tree": replace(TREE, owners=(Owner("group", "g", 1, None, "/f"),))}, "none"),
    ("network-namespace", BLOCK, {"network_namespaces": ("a", "b")}, "a, b"),
    ("stop-action", WARN, {"actions": (Action("a.service", "nft flush", "", False),)}, "nft"),
    ("start-action", WARN, {"actions": (Action("a.service", "x", "rmmod y", True),)}, "rmmod y"),
]


@pytest.mark.parametrize("facts", [GOOD, BEFORE_MOUNT], ids=["mounted", "before-mount"])
def test_nothing_fires_on_good_facts(facts: Facts) -> None:
    assert judge(facts) == []


def fired(case: Case) -> list[list[Finding]]:
    """What each check that fires says; an old package in the target always brings "way-back"."""
    id, _, changed, _ = case
    told = ([*check(facts(changed))] for check in CHECKS)
    return [found for found in told if found and (found[0].id != AGE or id == AGE)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_one_changed_fact_fires_one_check(case: Case) -> None:
    id, severity, _, named = case
    [found] = fired(case)
    assert [(finding.id, finding.severity) for finding in found] == [(id, severity)]
    assert named in found[0].text


def test_every_check_has_a_case_and_an_id_of_its_own() -> None:
    ids = {
        check: {finding.id for _, _, changed, _ in CASES for finding in check(facts(changed))}
        for check in CHECKS
    }
    assert {check.__name__: len(found) for check, found in ids.items() if len(found) != 1} == {}
    assert [id for id, n in Counter(min(found) for found in ids.values()).items() if n > 1] == []


def facts(changed: dict[str, Any]) -> Facts:
    return replace(GOOD, **changed)


def test_what_blocks_has_a_way_out() -> None:
    findings = [finding for _, _, changed, _ in CASES for finding in judge(facts(changed))]
    assert {finding.severity for finding in findings} == {BLOCK, WARN, INFO}
    assert [finding.id for finding in blocks(findings) if not finding.way_out] == []
    assert [finding.id for finding in findings if not finding.text] == []


@pytest.mark.parametrize(
    ("free", "fires"), [(RUN_MIN_BYTES - 1, True), (RUN_MIN_BYTES, False)], ids=["less", "enough"]
)
def test_the_room_needed_is_enough(free: int, fires: bool) -> None:
    assert bool(judge(replace(GOOD, run_free=free))) == fires


def test_one_finding_for_each_thing() -> None:
    found = judge(replace(GOOD, mounted_rw=("/a", "/b"), not_mounts=("/c", "/d")))
    assert [finding.way_out for finding in found[:2]] == ["umount /a", "umount /b"]
    assert len(found) == 4


def test_a_mounted_target_is_not_claimed_by_somebody_unseen() -> None:
    for changed in ({"mounted_rw": ("/srv",)}, {"target_dev": GOOD.root_dev}):
        found = [finding.id for finding in judge(facts({"claimed": True, **changed}))]
        assert len(found) == 1
        assert "claimed" not in found


@pytest.mark.parametrize(
    ("mechanism", "says"), [("switch-root", "stays down"), ("soft-reboot", "old root in use")]
)
def test_what_becomes_of_kept_processes(mechanism: str, says: str) -> None:
    [finding] = judge(replace(GOOD, mechanism=mechanism, kept_running=("frr.service",)))
    assert says in finding.text


def test_the_blocking_ones_come_first() -> None:
    everything = judge(
        replace(GOOD, root_device=None, not_loaded=("a.service",), uid=1, pid1="runit")
    )
    assert [f.severity for f in everything] == [BLOCK, BLOCK, WARN, INFO]
    assert [f.id for f in everything] == ["pid1", "root", "keep-inactive", "no-root-device"]
    assert blocks(everything) == everything[:2]


def test_a_finding_that_does_not_block() -> None:
    assert blocks([Finding("x", WARN, "", ""), Finding("y", INFO, "", "")]) == []


def test_a_target_without_an_os_is_told_once() -> None:
    """The checks of what a tree holds do not pile up on an empty file system."""
    assert [finding.id for finding in judge(replace(GOOD, tree=Tree()))] == ["no-os"]


def test_what_only_live_needs_does_not_hold_up_halt() -> None:
    facts = replace(GOOD, foreign_mounts=True, on_rootfs=True)
    assert judge(facts) == []
    old = judge(replace(GOOD, tree=replace(TREE, issu_says="issu 0.1.0")))
    assert [found.id for found in old] == [AGE]
    assert judge(replace(GOOD, strategy="live")) == []


@pytest.mark.parametrize(
    ("says", "numbers"),
    [("issu 0.2.0", (0, 2, 0)), ("issu 0.10.1~rc1", (0, 10, 1)), ("issu ?", ()), ("", ())],
)
def test_version(says: str, numbers: tuple[int, ...]) -> None:
    assert version(says) == numbers


# --- the kernel ---------------------------------------------------------------------------------


def test_without_modules_there_are_two_ways_out() -> None:
    [finding] = judge(replace(GOOD, tree=LACKING))
    assert '[stage] modules = "bind"' in finding.way_out
    assert "running kernel's package" in finding.way_out


def test_what_stands_against_a_copy_has_its_own_way_out() -> None:
    tree = replace(LACKING, no_copy=("it is full", "make room there"))
    [finding] = judge(replace(GOOD, modules="bind", tree=tree))
    assert "make room there" in finding.way_out
    assert '"bind"' not in finding.way_out


@pytest.mark.parametrize("modules", ["require", "bind"])
def test_modules_that_are_there_are_not_told_of(modules: str) -> None:
    assert judge(replace(GOOD, modules=modules)) == []


@pytest.mark.parametrize(
    ("kernels", "named"),
    [
        ((), None),
        ((KERNEL,), None),
        (("5.10.0-1-amd64", KERNEL), "5.10.0-1-amd64"),
        ((KERNEL, "6.12.9-amd64", "6.12.38+deb13-amd64"), "6.12.38+deb13-amd64"),
        (("6.1.0-9-amd64", "6.1.0-38-amd64"), "6.1.0-38-amd64"),
    ],
)
def test_the_newest_kernel_that_waits_is_named(
    kernels: tuple[str, ...], named: str | None
) -> None:
    found = judge(replace(GOOD, tree=replace(TREE, kernels=kernels)))
    says = f"kernel {named} of the new root waits for the next reboot; {KERNEL} runs on"
    assert found == ([Finding("kernel-waits", INFO, says, "")] if named else [])


def test_releases_by_age() -> None:
    releases = ["5.19", "6.1", "6.1.0-9", "6.1.0-10", "6.12~rc6-amd64", "6.12.0-rc1",
                "6.12.0-rc2", "6.12.0", "6.12.0-1-amd64"]  # fmt: skip
    assert sorted(reversed(releases), key=by_age) == releases


def test_the_kernels_settings_need_both_roots() -> None:
    assert judge(replace(GOOD, sysctl=True)) == []
    assert judge(replace(GOOD, tree=replace(TREE, sysctl=True))) == []
    assert [found.id for found in judge(replace(GOOD, tree=OLDER))] == [AGE]


def test_only_hardware_is_idle() -> None:
    assert judge(replace(GOOD, watchdogs=(SOFTDOG, BUSY_DOG))) == []


# --- forced -------------------------------------------------------------------------------------


def test_what_is_forced_no_longer_forbids() -> None:
    a, b = (Finding(id, BLOCK, "x", "y") for id in ("a", "b"))
    assert blocks([a, b, Finding("c", WARN, "x", "y")]) == [a, b]
    assert blocks([a, b], ["b", "nosuch"]) == [a]


# --- the catalogue ------------------------------------------------------------------------------

PAGE = Path(__file__).parents[2] / "docs/issu@.service.8.md"


def documented() -> dict[str, tuple[set[str], bool]]:
    """The manual's table of findings: severities of each id, and whether it is forceable."""
    rows = [line.split("|") for line in PAGE.read_text().splitlines() if line.startswith("| **")]
    cells = [[cell.strip() for cell in row[1:-1]] for row in rows]
    return {row[0].strip("*"): ({*row[1].split(", ")}, row[2] == "yes") for row in cells}


def test_the_manual_tells_of_each_finding_what_the_code_does() -> None:
    found: dict[str, set[str]] = {}
    for id, severity, _, _ in CASES:
        found.setdefault(id, set()).add(severity)
    found["rehearsal"] = {BLOCK, WARN, INFO}  # it is none of the checks, see test_rehearse.py
    assert documented() == {id: (is_so, id in FORCEABLE) for id, is_so in found.items()}


def test_only_what_blocks_can_be_forced_and_nothing_that_would_end_badly() -> None:
    blocking = {id for id, severity, _, _ in CASES if severity == BLOCK}
    assert blocking > FORCEABLE
    assert not FORCEABLE & SEALS


def test_a_target_in_use_is_not_mounted_to_be_looked_at() -> None:
    assert {id for id, severity, _, _ in CASES if severity == BLOCK} >= SEALS
    assert not may_look(judge(replace(GOOD, mounted_rw=("/srv",))))
    assert not may_look(judge(replace(GOOD, run_free=0)))
    assert may_look(judge(replace(GOOD, locks=("a (b)",), target_read_only=True)))


def test_many_things_are_told_at_once() -> None:
    tree = replace(TREE, default_target="", no_room="is full", merged_usr=False)
    found = judge(replace(GOOD, tree=tree, locks=("a (b)",), network_namespaces=("n",)))
    assert {f.id for f in found} == {
        "default-target", "room", "merged-usr", "inhibitor", "network-namespace"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("runs", "there", "fires"),
    [(257, 257, False), (252, 257, False), (257, 252, False), (257, 256, True), (0, 250, False)],
)
def test_a_state_goes_downwards_only_where_that_was_tested(
    runs: int, there: int, *, fires: bool
) -> None:
    tree = replace(TREE, init_says=f"systemd {there} ({there}.1-1)")
    found = judge(replace(GOOD, systemd=runs, tree=tree))
    assert [f.id for f in found] == (["systemd-older"] if fires else [])
    assert ((257, 252) in DOWNWARDS) and ((252, 257) not in DOWNWARDS)


@pytest.mark.parametrize(
    ("says", "major"),
    [("systemd 257 (257.13-1)", 257), ("252.39-1~deb12u1", 252), ("busybox", 0), ("", 0)],
)
def test_systemd_major(says: str, major: int) -> None:
    assert systemd_major(says) == major


@pytest.mark.parametrize(
    ("kernel", "oldest", "fires"),
    [
        ("6.1.0-40-amd64", (3, 2, 0), False),
        ("6.1.0-40-amd64", (6, 1, 0), False),
        ("6.1.0-40-amd64", (6, 1, 1), True),
        ("6.1", (6, 1, 1), False),
        ("odd", (6, 1, 1), False),
    ],
)
def test_libc_and_the_kernel(kernel: str, oldest: tuple[int, ...], *, fires: bool) -> None:
    tree = replace(TREE, oldest_kernel=oldest, kernels=())
    assert bool(judge(replace(GOOD, kernel=kernel, tree=tree))) == fires


@pytest.mark.parametrize(
    ("strategy", "mechanism", "fires"),
    [("halt", "soft-reboot", True), ("halt", "switch-root", False), ("live", "pivot", False)],
)
def test_when_network_namespaces_are_lost(strategy: str, mechanism: str, *, fires: bool) -> None:
    facts = replace(GOOD, strategy=strategy, mechanism=mechanism, network_namespaces=("n",))
    assert bool(judge(facts)) == fires


def test_a_long_command_is_cut() -> None:
    [found] = judge(replace(GOOD, actions=(Action("a.service", "x" * 9999, "", False),)))
    assert len(found.text) < 300
    assert '[release] keep = ["a.service"]' in found.way_out


def test_another_default_target_that_cannot_be_named_is_not_told() -> None:
    assert judge(replace(GOOD, default_target="")) == []
    assert judge(replace(GOOD, tree=replace(TREE, default_target="default.target"))) == []
