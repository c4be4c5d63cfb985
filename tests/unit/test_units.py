"""Our units and drop-ins: what they may pull in, and that an ordinary boot does not feel them."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNITS = sorted((ROOT / "units").iterdir())
BUS = "issu-bus.service"
GATES = sorted((ROOT / "dropins").glob("*.d"))
HOLDS = sorted((ROOT / "dropins/hold").iterdir())

IN_PROGRESS = "/run/issu/in-progress"
REHEARSAL = "issu-rehearsal@.service"
AT_ANY_TIME = (BUS, REHEARSAL)  # not in an upgrade only
# Of these PID 1 stops, unmounts or ends everything: they may be given way to, and no more.
LAST = ("shutdown", "umount", "final", "reboot", "poweroff", "halt", "kexec", "exit", "soft-reboot")
PULLS = ("Requires", "Requisite", "Wants", "BindsTo", "PartOf", "Upholds", "OnSuccess", "OnFailure")

Setting = tuple[str, str, str]  # section, key, value


def settings(path: Path) -> list[Setting]:
    """What a unit file sets, in its order; comments and empty lines are left out."""
    found, section = [], ""
    for line in map(str.strip, path.read_text().splitlines()):
        assert not line.endswith("\\"), "this reader knows no continuation lines"
        if line.startswith("["):
            section = line.strip("[]")
        elif line and line[0] not in "#;":
            key, _, value = line.partition("=")
            found.append((section, key, value))
    return found


def values(path: Path, key: str) -> list[str]:
    return [word for _, name, value in settings(path) if name == key for word in value.split()]


def name(path: Path) -> str:
    return path.name


# --- units --------------------------------------------------------------------------------------


def test_the_units_of_the_contract_are_there() -> None:
    names = {path.name for path in UNITS}
    assert names >= {"issu@.service", "issu-halt.target", "issu-arrive.service"}


@pytest.mark.parametrize("unit", UNITS, ids=name)
def test_a_unit_says_what_it_is_and_where_to_read(unit: Path) -> None:
    page = "org.issu1(5)" if unit.name == BUS else "issu@.service(8)"
    assert values(unit, "Documentation") == [f"man:{page}"]
    assert values(unit, "Description")
    assert (ROOT / f"docs/{page.replace('(', '.').rstrip(')')}.md").exists()


@pytest.mark.parametrize("unit", UNITS, ids=name)
def test_a_unit_pulls_in_nothing_that_ends_the_system(unit: Path) -> None:
    targets = {f"{target}.target" for target in LAST}
    assert {key: set(values(unit, key)) & targets for key in PULLS if values(unit, key)} == {}
    assert set(values(unit, "After")) & targets == set()


@pytest.mark.parametrize("unit", UNITS, ids=name)
def test_a_unit_stays_in_an_isolate_and_stops_in_a_shutdown(unit: Path) -> None:
    if unit.name == BUS:  # an ordinary service, by its default dependencies
        keys = {key for section, key, _ in settings(unit) if section == "Unit"}
        assert keys == {"Description", "Documentation", "StartLimitIntervalSec"}
        return
    assert values(unit, "DefaultDependencies") == ["no"]
    if unit.name == "issu-halt.target":
        everything = " ".join(value for _, _, value in settings(unit))
        assert [target for target in LAST if f"{target}.target" in everything] == []
        assert values(unit, "AllowIsolate") == ["yes"]
        return
    assert values(unit, "IgnoreOnIsolate") == ([] if unit.name == REHEARSAL else ["yes"])
    assert values(unit, "Conflicts") == ["shutdown.target"]
    assert "shutdown.target" in values(unit, "Before")


@pytest.mark.parametrize("unit", UNITS, ids=name)
def test_a_unit_cannot_be_enabled(unit: Path) -> None:
    """Installing the package, and whoever enables everything, changes no ordinary boot."""
    assert [key for section, key, _ in settings(unit) if section == "Install"] == []


def test_what_runs_on_arrival_runs_in_an_upgrade_only() -> None:
    for unit in UNITS:
        ours = unit.name.startswith("issu-") and unit.suffix == ".service"
        if ours and unit.name not in AT_ANY_TIME:
            conditions = values(unit, "ConditionPathExists")
            assert conditions
            # Of several one is enough: all of them begin with "|" then, see systemd.unit(5).
            assert len(conditions) == 1 or all(c.startswith("|") for c in conditions)
            assert all(c.removeprefix("|").startswith("/run/issu/") for c in conditions)


def test_the_agent() -> None:
    unit = ROOT / "units/issu@.service"
    assert values(unit, "Type") == ["notify"]
    assert values(unit, "SuccessExitStatus") == ["SIGTERM"]  # its end at the switch
    assert values(unit, "ExecStopPost") == ["/usr/lib/issu/restore", "%n"]
    assert values(unit, "ExecStart")[-2:] == ["%I", "%n"]
    # In a mount namespace of its own PID 1 would not see the new root.
    private = ("PrivateMounts", "PrivateTmp", "ProtectSystem", "ProtectHome", "RootDirectory")
    assert [key for _, key, _ in settings(unit) if key in private] == []


def test_the_bus_service() -> None:
    unit = ROOT / "units" / BUS
    assert values(unit, "Type") == ["dbus"]
    assert values(unit, "BusName") == ["org.issu1"]
    # What would hide mounts, devices or the capabilities that a look into a device takes.
    hides = ("Private", "Protect", "Inaccessible", "ReadOnly", "Root", "Restrict", "Dynamic",
             "User", "Capability", "AmbientCap", "SystemCall", "DevicePolicy", "Mount")  # fmt: skip
    found = [k for _, k, _ in settings(unit) if k.startswith(hides)]
    assert found == ["RestrictRealtime"]
    activation = settings(ROOT / "data/dbus/org.issu1.service")
    assert ("D-BUS Service", "SystemdService", BUS) in activation


def test_the_rehearsal_is_confined() -> None:
    unit = ROOT / "units" / REHEARSAL
    wanted = {
        "PrivateNetwork": ["yes"], "DevicePolicy": ["closed"], "Delegate": ["yes"],
        "KillSignal": ["SIGKILL"], "CollectMode": ["inactive-or-failed"],
    }  # fmt: skip
    assert {key: values(unit, key) for key in wanted} == wanted
    assert values(unit, "TasksMax")
    assert values(unit, "MemoryMax")


# --- drop-ins that forbid a start ---------------------------------------------------------------


@pytest.mark.parametrize("gate", GATES, ids=name)
def test_a_gate_holds_exactly_the_condition(gate: Path) -> None:
    [file] = gate.iterdir()
    assert file.name == "50-issu.conf"
    assert settings(file) == [("Unit", "ConditionPathExists", f"!{IN_PROGRESS}")]
    assert file.read_text().startswith("# ")  # and why


def test_the_stock_units_that_must_not_run_are_gated() -> None:
    """What loads modules, replays events, keeps hardware state or does first-boot work."""
    gated = {gate.name.removesuffix(".d") for gate in GATES}
    assert gated >= {
        "systemd-modules-load.service",
        "modprobe@.service",
        "systemd-udev-trigger.service",
        "systemd-udev-settle.service",
        "systemd-hwdb-update.service",
        "systemd-tmpfiles-setup-dev.service",
        "systemd-tmpfiles-setup-dev-early.service",
        "systemd-sysctl.service",
        "systemd-random-seed.service",
        "systemd-backlight@.service",
        "systemd-rfkill.service",
        "systemd-pstore.service",
        "systemd-machine-id-commit.service",
        "systemd-firstboot.service",
        "systemd-repart.service",
        "systemd-bless-boot.service",
        "systemd-update-done.service",
        "ldconfig.service",
        "hwclock.service",
    }


def test_what_the_new_root_cannot_do_without_is_not_gated() -> None:
    gated = {gate.name.removesuffix(".d") for gate in GATES}
    needed = {
        "systemd-journald.service",
        "systemd-udevd.service",
        "systemd-remount-fs.service",
        "systemd-tmpfiles-setup.service",
        "systemd-sysusers.service",
        "systemd-logind.service",
        "dbus.service",
        "kmod-static-nodes.service",
        "networking.service",
    }
    assert gated & needed == set()


# --- drop-ins that hold what runs ---------------------------------------------------------------


def test_the_units_whose_stop_cuts_traffic_are_held() -> None:
    held = {hold.name.removesuffix(".conf") for hold in HOLDS}
    assert held >= {
        "networking.service",
        "ifup@.service",
        "nftables.service",
        "blk-availability.service",
    }
    assert [hold.name for hold in HOLDS if hold.suffix != ".conf"] == []


@pytest.mark.parametrize("hold", HOLDS, ids=name)
def test_a_hold_keeps_the_unit_and_takes_its_stop_away(hold: Path) -> None:
    assert settings(hold) == [
        ("Unit", "DefaultDependencies", "no"),
        ("Unit", "IgnoreOnIsolate", "yes"),
        ("Service", "ExecStop", ""),
    ]
    assert hold.read_text().startswith("# ")


@pytest.mark.parametrize("hold", HOLDS, ids=name)
def test_no_drop_in_of_the_package_holds(hold: Path) -> None:
    """In an ordinary shutdown the stop action is run: holds lie where PID 1 does not look."""
    unit = hold.name.removesuffix(".conf")
    assert not (ROOT / "dropins" / f"{unit}.d").exists()
    install = (ROOT / "debian/issu-systemd.install").read_text().splitlines()
    assert "dropins/hold/*.conf usr/lib/issu/hold" in install


def test_the_reader_of_units_finds_what_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "x.conf"
    file.write_text("# why\n[Unit]\nConditionPathExists=!/x\n\n[Service]\nA=b c\n")
    assert settings(file)[1] == ("Service", "A", "b c")
    assert values(file, "A") == ["b", "c"]
