"""A kept unit stays active: its stop action does not run, nor its start action again."""

from pathlib import Path

import pytest

from .element import element, row, write_settings, write_unit

PAIRS = [("bookworm", "trixie"), ("trixie", "bookworm")]
ACTIONS = Path("/run/actions")  # /run crosses the switch
UNIT = """
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'echo start %p on $(cat /etc/issu-root) >>/run/actions'
ExecStop=/bin/sh -c 'echo stop %p on $(cat /etc/issu-root) >>/run/actions'
"""


def prepare(root: Path) -> None:
    write_unit(root, "asic.service", UNIT)
    write_unit(root, "plain.service", UNIT)  # differs in this alone: nobody asks to keep it
    write_settings(root, '[release]\nkeep = ["asic.service"]\n')


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_kept_oneshot(tmp_path: Path, source: str, target: str) -> None:
    def done() -> list[str]:
        return e.machine.path(ACTIONS).read_text().splitlines()

    with element(tmp_path, source, target, in_source=prepare, in_target=prepare) as e:
        assert sorted(done()) == [f"start asic on {source}", f"start plain on {source}"]
        e.machine.path(ACTIONS).write_text("")

        report = e.upgrade()
        assert report["result"] == "accepted", report
        assert done() == [f"stop plain on {source}", f"start plain on {target}"]
        assert e.machine.systemctl("is-active", "asic.service") == "active"
        assert row(report, "asic.service")["action"] == "kept"
        assert row(report, "asic.service")["outage_usec"] == 0
        assert row(report, "plain.service")["action"] == "restarted"
        assert row(report, "plain.service")["outage_usec"] > 0

        # It was kept for this upgrade only: from now on it stops like any other.
        assert e.machine.systemctl("show", "-P", "IgnoreOnIsolate", "asic.service") == "no"
        e.machine.systemctl("stop", "asic.service")
        assert done()[2:] == [f"stop asic on {target}"]
