"""Every pair of releases: the system is replaced, the kernel is not."""

from pathlib import Path

import pytest

from .element import element

PAIRS = [(a, b) for a in ("bookworm", "trixie") for b in ("bookworm", "trixie")]


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_upgrade(tmp_path: Path, source: str, target: str) -> None:
    def mark(root: Path) -> None:
        (root / "etc/which-root").write_text("target\n")

    with element(tmp_path, source, target, in_target=mark) as e:
        boot_id = e.machine.boot_id()
        report = e.upgrade()
        assert report["result"] == "accepted", report
        assert e.machine.state() == "running"
        assert e.machine.systemctl("--failed", "--no-legend") == ""
        assert e.machine.boot_id() == boot_id
        assert e.machine.path("/etc/which-root").read_text() == "target\n"
        program = e.machine.run(["readlink", "/proc/1/exe"]).stdout.strip()
        assert program == "/usr/lib/systemd/systemd"
        inside = e.machine.run(["stat", "-Lc", "%d", "/proc/1/exe", "/"]).stdout.split()
        assert inside[0] == inside[1]
        assert report["source"]["device"] == e.source
        assert report["target"]["device"] == e.target
        assert [f["id"] for f in report["findings"]] == ["old-root-free"]
        assert report["continuity"]["differences"] == []
