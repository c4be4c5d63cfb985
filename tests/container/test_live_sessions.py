"""Who still stands on the old root after a live upgrade: kept and named, or ended."""

from collections.abc import Callable
from pathlib import Path

import pytest

from issu_systemd import oldroot

from .clients import make_key, offer_sessions, session, talk
from .element import Element, element, write_settings
from .kinds import LIVE
from .whole import check_accepted, elsewhere, suite

PAIRS = [("bookworm", "trixie"), ("trixie", "bookworm")]
# Started by hand, and what of the old root each holds.
BY_HAND = {
    "by-hand.service": ("exec 9</etc/hostname; exec sleep 1d", "its program, an open file"),
    "apart.service": ("exec unshare --mount sleep 1d", "a mount, its program"),
}


def fit_out(key: Path, more: str = "") -> Callable[[Path], None]:
    """Both roots let the operator with this key in."""

    def customize(root: Path) -> None:
        write_settings(root, LIVE + more)
        offer_sessions(root, key)

    return customize


def scope_of(e: Element, pid: str) -> str:
    """The unit that a process belongs to."""
    return e.machine.path(f"/proc/{pid}/cgroup").read_text().strip().rpartition("/")[2]


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_kept(tmp_path: Path, source: str, target: str) -> None:
    key = make_key(tmp_path)
    both = {"in_source": fit_out(key), "in_target": fit_out(key)}
    with element(tmp_path, source, target, **both) as e:
        for unit, (command, _) in BY_HAND.items():
            e.machine.run(["systemd-run", "--quiet", "--unit", unit, "sh", "-c", command])
        with talk(e.machine.network, session(e.machine.network, key)) as shell:
            pid = shell.say("echo $$")
            scope = scope_of(e, pid)
            assert scope.startswith("session-"), scope
            report = e.upgrade()
            assert report["result"] == "accepted", report
            assert shell.say("echo $$") == pid
            assert shell.say("cat /etc/issu-root") == target

            pins = [f["text"] for f in report["findings"] if f["id"] == "old-root-pinned"]
            # apart.service stays in a mount namespace of its own: that could be known before.
            assert {f["id"] for f in report["findings"]} == {"namespace-pin", "old-root-pinned"}
            assert "of apart.service stays" in str(
                [f["text"] for f in report["findings"] if f["id"] == "namespace-pin"]
            )
            assert any(f"sh[{pid}] of {scope} (its program" in text for text in pins), pins
            for unit, (_, what) in BY_HAND.items():
                assert any(f"of {unit} ({what}" in text for text in pins), pins
            for process in elsewhere(e):
                assert any(f"[{process.split()[0]}]" in text for text in pins), process
            told = e.machine.run(["issu", "status"]).stdout
            assert f"old root pinned by sh[{pid}] of {scope}" in told

            status, _ = e.start(e.source)  # no way back while somebody stands there
            assert status != 0
            assert f"{e.source} is in use by sh[{pid}] of {scope}" in e.report()["error"]
            assert suite(e) == target
            told = e.machine.run(["issu", "status"]).stdout
            assert ": refused" in told
            assert f"old root pinned by sh[{pid}] of {scope}" in told
        e.machine.systemctl("stop", *BY_HAND)
        e.machine.wait_for(lambda: oldroot.is_free(e.source), 20, "the old root is free")
        assert "the old root is free now" in e.machine.run(["issu", "status"]).stdout
        check_accepted(e, e.upgrade(e.source), source)


def test_terminated(tmp_path: Path) -> None:
    key = make_key(tmp_path)
    ends = fit_out(key, '[live]\nsessions = "terminate"\n')
    with element(tmp_path, in_source=ends, in_target=ends) as e, \
            talk(e.machine.network, session(e.machine.network, key)) as shell:  # fmt: skip
        assert shell.say("cat /etc/issu-root") == "bookworm"
        check_accepted(e, e.upgrade(), "trixie")
        shell.process.wait(10)
        with talk(e.machine.network, session(e.machine.network, key)) as again:
            assert again.say("cat /etc/issu-root") == "trixie"
