"""Debian's newest systemd as the target: works, or is refused with a reason. `make test-newest`.

Not run by `make test`: what it tests is another thing every day.
"""

from pathlib import Path

import pytest

from tests.container.element import element, write_settings


@pytest.mark.parametrize("strategy", ["halt", "live"])
def test_to_the_newest_systemd_and_no_way_back(tmp_path: Path, strategy: str) -> None:
    def choose(root: Path) -> None:
        write_settings(root, f'[switch]\nstrategy = "{strategy}"\n')

    with element(tmp_path, "trixie", "sid", in_source=choose, in_target=choose) as e:
        report = e.upgrade()
        print(report["target"], report["findings"], report["plan"], report["error"])
        assert report["result"] == "accepted", report["error"]
        assert report["continuity"]["differences"] == []
        assert e.machine.systemctl("--failed", "--no-legend") == ""
        # That the older systemd takes over the newer one's state is not among what was tested.
        status, _ = e.start(e.source)
        back = e.report()
        print(back["findings"], back["error"])
        assert status != 0
        assert [f["id"] for f in back["findings"] if f["severity"] == "block"] == ["systemd-older"]
