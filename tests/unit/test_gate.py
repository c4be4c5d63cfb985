"""The run-time drop-ins of one upgrade, written and removed."""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest

from issu_systemd import gate
from issu_systemd.gate import GATE, HALT, NAME, SYSCTL, close, is_among, lift, open_again

SHIPPED = Path(__file__).parents[2] / "dropins/hold"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory in place of /run/systemd/system, with nothing held."""
    monkeypatch.setattr(gate, "PLACE", tmp_path / "system")
    monkeypatch.setattr(gate, "HOLD", tmp_path / "hold")
    return tmp_path / "system"


def lines(place: Path, unit: str) -> list[str]:
    return (place / f"{unit}.d" / NAME).read_text().splitlines()


def written(place: Path) -> set[str]:
    return {path.parent.name.removesuffix(".d") for path in place.glob(f"*.d/{NAME}")}


@pytest.mark.parametrize(
    ("unit", "keep", "kept"),
    [
        ("frr.service", ["frr.service"], True),
        ("frr.service", ["frr2.service", "frr.socket"], False),
        ("frr.service", [], False),
        ("ifup@eth0.service", ["ifup@.service"], True),
        ("ifup@eth0.service", ["ifup@eth0.service"], True),
        ("ifup@eth0.service", ["ifup@eth1.service"], False),
        ("ifup@eth0.service", ["ifup.service"], False),
        ("ifup@eth0.100.service", ["ifup@.service"], True),
        ("ifup@eth0.100.service", ["ifup@.100.service"], False),
        ("ifup@a@b.service", ["ifup@.service"], True),
        ("ifup@eth0.socket", ["ifup@.service"], False),
        ("ifup.service", ["ifup@.service"], False),
    ],
)
def test_is_among(unit: str, keep: list[str], *, kept: bool) -> None:
    assert is_among(unit, keep) is kept


def test_a_kept_unit_ignores_the_isolate_and_depends_on_nothing(place: Path) -> None:
    close(["asic.service"], [], survive=False)
    assert lines(place, "asic.service") == [
        "[Unit]",
        "DefaultDependencies=no",
        "IgnoreOnIsolate=yes",
    ]


@pytest.mark.parametrize("survive", [True, False])
def test_a_kept_unit_survives_the_last_signal_where_pid_1_can(
    place: Path, *, survive: bool
) -> None:
    close(["asic.service"], [], survive=survive)
    assert ("SurviveFinalKillSignal=yes" in lines(place, "asic.service")) is survive


def test_the_target_is_reached_after_everything_stopped(place: Path) -> None:
    close([], ["a.service", r"b\x2dc.socket"], survive=False)
    assert lines(place, HALT) == [
        "[Unit]",
        "After=a.service",
        "Conflicts=a.service",
        r"After=b\x2dc.socket",
        r"Conflicts=b\x2dc.socket",
    ]


def test_nothing_to_keep_or_to_stop(place: Path) -> None:
    close([], [], survive=True)
    assert written(place) == {HALT}
    assert lines(place, HALT) == ["[Unit]"]


@pytest.fixture
def shipped(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The holds of the package."""
    monkeypatch.setattr(gate, "HOLD", SHIPPED)


@pytest.mark.usefixtures("shipped")
def test_what_is_held() -> None:
    assert {"networking.service", "nftables.service", "ifup@.service"} <= set(gate.held())


@pytest.mark.usefixtures("shipped")
@pytest.mark.parametrize(
    ("unit", "stock"),
    [
        ("networking.service", "networking.service.conf"),
        ("ifup@eth0.service", "ifup@.service.conf"),
    ],
)
@pytest.mark.parametrize("survive", [True, False])
def test_a_stock_unit_is_held_without_its_stop_action(
    place: Path, unit: str, stock: str, *, survive: bool
) -> None:
    close([unit], [], survive=survive)
    want = [line for line in (SHIPPED / stock).read_text().splitlines() if line]
    got = [line for line in lines(place, unit) if line]
    if survive:
        got.remove("SurviveFinalKillSignal=yes")
    assert got == want
    assert got[-2:] == ["[Service]", "ExecStop="]


@pytest.mark.usefixtures("shipped")
def test_a_setting_of_the_unit_section_stands_in_it(place: Path) -> None:
    close(["networking.service", "asic.service"], [], survive=True)
    for unit in ("networking.service", "asic.service"):
        parser = configparser.ConfigParser(strict=False)
        parser.read(place / f"{unit}.d" / NAME)
        assert parser["Unit"]["SurviveFinalKillSignal"] == "yes"
        assert parser["Unit"]["IgnoreOnIsolate"] == "yes"


@pytest.mark.usefixtures("shipped")
def test_nothing_is_written_for_what_does_not_run(place: Path) -> None:
    """A hold of a template would keep an instance that somebody starts later from its defaults."""
    close(["asic.service"], [], survive=True)
    assert written(place) == {HALT, "asic.service"}


@pytest.mark.usefixtures("shipped")
def test_what_is_closed_is_opened_again(place: Path) -> None:
    place.mkdir()
    close(["networking.service", "asic.service"], ["a.service"], survive=True)
    assert open_again() is True
    assert list(place.iterdir()) == []
    assert open_again() is False


def test_nothing_to_open(place: Path) -> None:
    assert not place.exists()
    assert open_again() is False


def test_others_drop_ins_stay(place: Path) -> None:
    close(["asic.service"], [], survive=True)
    other = place / "asic.service.d/50-other.conf"
    other.write_text("[Unit]\n")
    (place / "other.service.d").mkdir()
    assert open_again() is True
    assert other.exists()
    assert not (other.parent / NAME).exists()
    assert (place / "other.service.d").is_dir()
    assert open_again() is False


def test_closing_twice_is_closing_once(place: Path) -> None:
    close(["asic.service"], ["a.service"], survive=True)
    before = {path: path.read_text() for path in place.rglob("*.conf")}
    close(["asic.service"], ["a.service"], survive=True)
    assert {path: path.read_text() for path in place.rglob("*") if path.is_file()} == before


# --- lifted gates -------------------------------------------------------------------------------


def test_a_lift_stands_in_the_place_of_the_packages_own_drop_in(place: Path) -> None:
    """systemd.unit(5): of drop-ins of one name that below /run wins over that below /usr/lib."""
    shipped = SHIPPED.parent / f"{SYSCTL}.d" / GATE
    assert "ConditionPathExists=!" in shipped.read_text()
    lift([SYSCTL])
    [lifted] = place.rglob("*.conf")
    assert lifted.relative_to(place) == shipped.relative_to(SHIPPED.parent)
    assert [line for line in lifted.read_text().splitlines() if not line.startswith("#")] == []


def test_a_lift_ends_with_the_rest(place: Path) -> None:
    close([SYSCTL], [], survive=False)  # one more drop-in in the same directory
    lift([SYSCTL])
    assert len(list((place / f"{SYSCTL}.d").iterdir())) == 2
    assert open_again() is True
    assert list(place.iterdir()) == []
    lift([SYSCTL])
    assert open_again() is True
    assert open_again() is False


def test_nothing_to_lift(place: Path) -> None:
    lift([])
    assert not place.exists()
