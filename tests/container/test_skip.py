"""A unit of [arrive] skip is not started by an upgrade, and is by the next ordinary boot."""

from pathlib import Path

import pytest

from .element import Customize, Element, element, row, write_settings, write_unit

UNITS = ("hw-reset.service", "plain.service", "reset@asic0.service")
SKIP = '[arrive]\nskip = ["hw-reset.service", "reset@asic0.service"]\n'
LOG = Path("/var/lib/started")  # in the root of the target
UNIT = f"""
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'echo %n >>{LOG}'
"""


def with_units(root: Path) -> None:
    for name in UNITS:
        write_unit(root, name, UNIT)


def with_setting(root: Path) -> None:
    write_settings(root, SKIP)


def with_both(root: Path) -> None:
    with_units(root)
    with_setting(root)


def started(e: Element) -> set[str]:
    log = e.machine.path(LOG)
    return set(log.read_text().splitlines()) if log.exists() else set()


@pytest.mark.parametrize(
    ("source", "target", "in_source", "in_target"),
    [
        ("bookworm", "trixie", with_setting, with_units),
        ("trixie", "bookworm", None, with_both),
    ],
    ids=["12-to-13-by-source", "13-to-12-by-target"],
)
def test_skip(
    tmp_path: Path,
    source: str,
    target: str,
    in_source: Customize | None,
    in_target: Customize,
) -> None:
    with element(tmp_path, source, target, in_source=in_source, in_target=in_target) as e:
        report = e.upgrade()
        assert report["result"] == "accepted", report
        assert started(e) == {"plain.service"}
        assert row(report, "hw-reset.service")["action"] == "skipped"
        assert row(report, "reset@asic0.service")["action"] == "skipped"
        assert row(report, "plain.service")["action"] == "new"
        active = e.machine.systemctl("is-active", *UNITS, check=False).splitlines()
        assert active == ["inactive", "active", "inactive"]

        # Nothing holds them back any longer, neither by hand nor at the next boot.
        e.machine.systemctl("start", "hw-reset.service")
        assert started(e) == {"plain.service", "hw-reset.service"}
        e.machine.path(LOG).unlink()
        e.machine.poweroff()
        e.machine.boot(e.machine.devices[1])
        assert started(e) == set(UNITS)


def test_without_setting(tmp_path: Path) -> None:
    with element(tmp_path, "bookworm", "trixie", in_target=with_units) as e:
        report = e.upgrade()
        assert started(e) == set(UNITS)
        assert [row(report, unit)["action"] for unit in UNITS] == ["new"] * 3
