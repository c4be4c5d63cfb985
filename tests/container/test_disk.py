"""Where the new root may lie, how it may be named, and what an operator sees of an upgrade."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

from tests.rig import sh
from tests.rig.holders import holders, superblock
from tests.rig.scenario import is_free

from .element import UPGRADE_SEC, Element, element

UUID = "6e2a1a05-3c1f-4a0e-9d43-8f8f2b1c0001"


def escaped(e: Element, path: str) -> str:
    argv = ["systemd-escape", "--template=issu@.service", "--path", path]
    return e.machine.run(argv).stdout.strip()


@contextmanager
def stopped(e: Element, unit: str) -> Iterator[None]:
    """The main process of a unit does not run."""
    kill = ["kill", "--kill-whom=main", unit]
    e.machine.systemctl(*kill, "--signal=SIGSTOP")
    try:
        yield
    finally:
        e.machine.systemctl(*kill, "--signal=SIGCONT")


def phase_of(e: Element) -> str | None:
    """Where the upgrade that runs stands."""
    record = e.machine.path("/run/issu/record.json")
    return str(json.loads(record.read_text())["phase"]) if record.exists() else None


def expect_arrival(e: Element, report: dict[str, object], source: str, target: str) -> None:
    """The running root is that of `target`, and nobody has `source` mounted any longer."""
    assert report["result"] == "accepted", report
    assert e.machine.run(["findmnt", "-no", "SOURCE", "/"]).stdout.strip() == target
    assert not superblock(Path(source))
    assert holders(Path(source)) == []
    assert is_free(e.machine, Path(source))
    assert superblock(Path(target)) and not is_free(e.machine, Path(target))


def test_two_partitions_of_one_disk(tmp_path: Path) -> None:
    with element(tmp_path, "bookworm", "trixie", one_disk=True) as e:
        first, second = e.source, e.target
        assert first.removesuffix("p1") == second.removesuffix("p2")
        boot_id = e.machine.boot_id()

        # The plain name there, the escaped one of a link with dashes back.
        expect_arrival(e, e.upgrade(second), first, second)
        assert e.machine.path("/etc/issu-root").read_text() == "trixie\n"

        link = f"/dev/disk/by-uuid/{UUID}"
        e.machine.run(["mkdir", "-p", "/dev/disk/by-uuid"])
        e.machine.run(["ln", "-s", first, link])
        before = set(e.ids())
        unit = escaped(e, link)
        assert "\\x2d" in unit
        e.machine.systemctl("start", unit, timeout=UPGRADE_SEC)
        report = e.wait_end(before)
        expect_arrival(e, report, second, first)
        assert report["target"]["device"] == first
        assert e.machine.path("/etc/issu-root").read_text() == "bookworm\n"
        assert e.machine.boot_id() == boot_id

        # The escaped name of a plain node.
        before = set(e.ids())
        e.machine.systemctl("start", escaped(e, second), timeout=UPGRADE_SEC)
        expect_arrival(e, e.wait_end(before), first, second)


def test_operator(tmp_path: Path) -> None:
    with element(tmp_path, "bookworm", "trixie") as e:

        def issu(*words: str) -> str:
            return e.machine.run(["issu", *words]).stdout

        never = e.machine.run(["issu", "status"], check=False)
        assert never.returncode == 1
        assert "no upgrade is recorded" in never.stderr

        started = e.machine.popen(["issu", "start", e.target])
        try:
            e.machine.wait_for(lambda: phase_of(e) == "stage", UPGRADE_SEC, "the stage begins")
            with stopped(e, escaped(e, e.target)):
                phase = phase_of(e)
                status = json.loads(issu("status", "--json"))
                assert (status["phase"], status["result"]) == (phase, None)
                assert f"{status['id']}: {phase}, going to Debian" in issu("status")
            out, err = started.communicate(timeout=UPGRADE_SEC)
        finally:
            sh.kill(started)
        assert started.returncode == 0, err
        lines = out.splitlines()
        assert "stage" in lines
        assert "every service stops now" in lines[-2]
        report = e.wait_end(set())
        assert report["result"] == "accepted"
        assert report["id"] == status["id"]

        assert re.fullmatch(
            rf"{report['id']}: accepted, Debian GNU/Linux 13 \(trixie\) on {e.target}, "
            r"outage \d+\.\d{3} s\n",
            issu("status"),
        )
        assert json.loads(issu("status", "--json")) == report
        assert json.loads(issu("report", "--json")) == report
        assert json.loads(issu("report", report["id"], "--json")) == report
        text = issu("report")
        assert text.startswith(f"ISSU {report['id']}: ACCEPTED\n")
        for word in ("release", "nginx.service", "T1", "T4", "Outage", "nothing lost"):
            assert word in text
        assert max(map(len, text.splitlines())) <= 80
        issu("report", "--svg", "/tmp/chart.svg")
        chart = ElementTree.fromstring(e.machine.path("/tmp/chart.svg").read_text())
        assert chart.tag == "{http://www.w3.org/2000/svg}svg"
        assert "nginx.service" in "".join(chart.itertext())

        unknown = e.machine.run(["issu", "report", "20200101T000000Z-0000"], check=False)
        assert unknown.returncode == 1
        assert report["id"] in unknown.stderr
        nowhere = e.machine.run(["issu", "report", "--svg", "/none/chart.svg"], check=False)
        assert nowhere.returncode == 1
        assert "/none/chart.svg" in nowhere.stderr
